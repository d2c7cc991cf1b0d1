from __future__ import annotations

import re
from pathlib import Path

from fusedream_core.version import VERSION


def test_it_is_the_projects() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (stated,) = re.findall(r'^version = "(.*)"$', project, re.MULTILINE)
    assert stated == VERSION
