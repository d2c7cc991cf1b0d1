"""What the registry, ComfyUI-Manager and pip read."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from pathlib import Path

import pathspec
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SUPPLIED_BY_COMFYUI = {"torch", "torchvision", "torchaudio", "numpy", "scipy", "pillow", "tqdm"}


def requirements(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_requirements_and_pyproject_agree() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert re.findall(r'"(.+?)"', block.group(1)) == requirements("requirements.txt")


def test_requirements_leave_comfyui_alone() -> None:
    for line in requirements("requirements.txt"):
        name = re.split(r"[<>=!~ \[]", line)[0].lower()
        assert name not in SUPPLIED_BY_COMFYUI
        assert "<" not in line
        assert "==" not in line


def test_what_users_do_not_get_is_named_from_the_root() -> None:
    """The pattern `docs/` would leave out `web/docs/` as well, and with it all help pages."""
    patterns = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    assert patterns
    for pattern in patterns:
        assert pattern.startswith("/"), pattern
    files = {path for path in ROOT.rglob("*") if path.is_file()}
    names = {path.relative_to(ROOT).as_posix() for path in files}
    shipped = names - set(pathspec.GitIgnoreSpec.from_lines(patterns).match_files(names))
    for folder in (
        "fusedream_core/assets/",
        "nodes/",
        "web/docs/images/",
        "locales/",
        "workflows/",
    ):
        assert {name for name in names if name.startswith(folder)} <= shipped
    assert not [name for name in shipped if name.startswith(("tests/", "scripts/", "docs/"))]


def test_help_pages_name_no_file_that_users_do_not_get() -> None:
    for page in (ROOT / "web" / "docs").rglob("*.md"):
        assert not re.search(r"(?<!web/)\b(docs|scripts|tests)/", page.read_text("utf-8")), page


def test_icon_is_as_the_registry_takes_it() -> None:
    with Image.open(ROOT / "docs" / "images" / "icon.png") as icon:
        assert icon.width == icon.height <= 400


def test_only_the_core_is_importable() -> None:
    assert importlib.util.find_spec("fusedream_core") is not None
    spec = importlib.util.find_spec("nodes")
    assert spec is None or not str(spec.origin).startswith(str(ROOT / "nodes"))


def test_the_pack_root_imports_without_comfyui_and_tells_what_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = importlib.util.spec_from_file_location("pack_without_nodes", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Loaded like this it is no package, so that its relative import must fail.
    with pytest.raises(ImportError):
        asyncio.run(module.comfy_entrypoint())
    assert "could not load its nodes" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    "path",
    [
        *(path for path in ROOT.glob("docs/images/*.*") if path.suffix != ".svg"),
        *ROOT.glob("workflows/*.jpg"),
    ],
    ids=lambda path: path.name,
)
def test_pictures_tell_nothing_of_the_machine_that_made_them(path: Path) -> None:
    with Image.open(path) as picture:
        assert not {"prompt", "workflow", "exif", "comment"} & set(picture.info)


def test_what_the_core_reads_is_installed_with_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    line = re.search(r"^fusedream_core = \[(.*)\]$", text, re.MULTILINE)
    assert line is not None
    patterns = re.findall(r'"(.+?)"', line[1])
    core = ROOT / "fusedream_core"
    installed = {path for pattern in patterns for path in core.glob(pattern) if path.is_file()}
    others = {
        path
        for path in core.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so")
    }
    assert installed == others
