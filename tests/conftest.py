"""What all tests share: the core importable by itself, with the checkout off ``sys.path``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _make_core_importable() -> None:
    """Import ``fusedream_core`` from this checkout, installed or not.

    The checkout itself must not be on ``sys.path``: its folder ``nodes`` would hide ComfyUI's
    module of that name.
    """
    folder = ROOT / "fusedream_core"
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = module
    spec.loader.exec_module(module)


_make_core_importable()
