"""The levels of comfy-test, the tool of the registry's community, against the real server.

But for its level "validation": it takes ``widgets_values`` by their place alone, and knows neither
the value that the frontend itself saves behind a seed nor its MarkdownNote. What that level is for,
``test_pack.py`` does by the server's own validation, and ``test_browser.py`` in the frontend.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_server import PACK, ComfyServer

pytestmark = pytest.mark.server

LEVELS = (
    "syntax",
    "coverage",
    "warnings",
    "hazards",
    "registration",
    "instantiation",
)
CONFIG = f"""\
[test]
levels = {list(LEVELS)!r}

[test.workflows]
cpu = "all"

[test.platforms]
platforms = ["linux-cpu"]
""".replace("'", '"')
SHIPPED = ("__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
FOLDERS = ("nodes", "fusedream_core", "workflows", "web", "locales", "subgraphs")


def test_all_levels_pass(comfyui: Path, tmp_path: Path) -> None:
    """On what is shipped, in a ComfyUI of its own, since the tool goes by folders."""
    command = shutil.which("comfy-test", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the package comfy-test is not installed")
    home = tmp_path / "ComfyUI"
    shutil.copytree(comfyui, home, ignore=shutil.ignore_patterns("__pycache__", "custom_nodes"))
    pack = home / "custom_nodes" / "fusedream"
    pack.mkdir(parents=True)
    for name in SHIPPED:
        shutil.copy(PACK / name, pack)
    for name in FOLDERS:
        shutil.copytree(PACK / name, pack / name, ignore=shutil.ignore_patterns("__pycache__"))
    (pack / "comfy-test.toml").write_text(CONFIG, encoding="utf-8")
    with ComfyServer(home, home, environment={"HF_HUB_OFFLINE": "1"}) as server:
        logs = tmp_path / "logs"
        logs.mkdir()
        # ComfyUI's own audio nodes want a package that is not installed here.
        lines = [line for line in server.log.splitlines() if "nodes_audio" not in line]
        (logs / "server.log").write_text("\n".join(lines), encoding="utf-8")
        done = subprocess.run(
            [command, "run", "--server-url", server.url, "--level", "instantiation"],
            cwd=pack,
            env={**os.environ, "COMFY_TEST_LOGS_DIR": str(logs), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    for level in LEVELS:
        assert level in said.lower(), level
