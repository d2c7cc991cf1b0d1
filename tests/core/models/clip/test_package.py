from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fusedream_core import MissingDependencyError
from fusedream_core.models.clip import package


def test_the_installed_one() -> None:
    assert package.open_clip_package().__name__ == "open_clip"


@pytest.mark.parametrize("version", ["2.32.0", "2.9", "of an unknown version"])
def test_one_that_is_too_old(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(__version__=version)
    monkeypatch.setattr(package.importlib, "import_module", lambda _: old)
    with pytest.raises(MissingDependencyError, match=r"3\.0 or newer is needed"):
        package.open_clip_package()


def test_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:  # noqa: ANN401
        raise ImportError("No module named 'open_clip'")

    monkeypatch.setattr(package.importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match="open_clip_torch"):
        package.open_clip_package()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (KeyError(), "KeyError: no reason given"),
    ],
)
def test_in_one_line(error: Exception, line: str) -> None:
    assert package.in_one_line(error) == line
