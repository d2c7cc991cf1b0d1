"""Rules that no single module can keep: who imports whom, and what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "fusedream_core"
MODULES = sorted(CORE.rglob("*.py"))
FOREIGN = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server", "execution"}
HEAVY = {"open_clip", "pytorch_pretrained_biggan", "torchvision", "timm", "boto3", "PIL"}


def unit_of(path: Path) -> str:
    """A module or folder as docs/architecture.md names it: ``rng.py``, ``models/``."""
    inside = path.relative_to(CORE)
    return inside.name if len(inside.parts) == 1 else f"{inside.parts[0]}/"


def read_ladder() -> dict[str, int]:
    """The step of each room, from the table of docs/architecture.md, which is thereby kept true."""
    ladder = {}
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (\d+) \| ([^|]*) \|", line)
        if row:
            ladder.update({name: int(row[1]) for name in re.findall(r"`([\w.]+/?)`", row[2])})
    return ladder


def imports_of(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Level, dotted name and whether it is inside a function, of every import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            for alias in node.names:
                yield node.level, f"{base}{alias.name}", id(node) in inside


def resolve(path: Path, level: int, name: str) -> Path:
    """The file of the core that a relative import means."""
    folder = path.parents[level - 1]
    parts = name.split(".")
    for end in range(len(parts), -1, -1):
        target = folder.joinpath(*parts[:end])
        for candidate in (target.with_suffix(".py"), target / "__init__.py"):
            if candidate.is_file() and candidate != CORE / "__init__.py":
                return candidate
    raise AssertionError(f"{path}: cannot resolve {name}")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
class TestModules:
    def test_imports_go_one_way(self, path: Path) -> None:
        ladder = read_ladder()
        unit = unit_of(path)
        if unit == "__init__.py":
            return
        assert unit in ladder, f"{unit} is missing in docs/architecture.md"
        for level, name, _ in imports_of(path):
            if level == 0:
                continue
            other = unit_of(resolve(path, level, name))
            assert other == unit or ladder[other] < ladder[unit], f"{unit} imports {other}"

    def test_no_foreign_or_heavy_imports(self, path: Path) -> None:
        for level, name, is_lazy in imports_of(path):
            top = name.split(".")[0]
            assert level > 0 or top not in FOREIGN | {"fusedream_core"}, name
            assert level > 0 or is_lazy or top not in HEAVY, name

    def test_no_print_and_small(self, path: Path) -> None:
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 300
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) != "print"
                assert ast.unparse(node.func) not in ("torch.manual_seed", "torch.seed")


def test_no_circle() -> None:
    """A module is imported after all that it imports itself, inside a folder too."""
    graph = {
        path: {resolve(path, level, name) for level, name, _ in imports_of(path) if level}
        for path in MODULES
        if path.name != "__init__.py"
    }
    order = list(TopologicalSorter(graph).static_order())  # a CycleError names the circle
    assert set(graph) <= set(order)


@pytest.mark.parametrize(
    ("path", "name"), [("optimize/optimize.py", "optimize"), ("compose/compose.py", "compose")]
)
def test_a_loop_is_one_screen(path: str, name: str) -> None:
    """Its body, without the docstring, holds the algorithm in at most 40 lines."""
    tree = ast.parse((CORE / path).read_text(encoding="utf-8"))
    (function,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    assert any(isinstance(node, ast.While) for node in ast.walk(function))
    assert (function.end_lineno or 0) - function.body[1].lineno < 40


@pytest.mark.parametrize(
    "path",
    [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_comfy_test_refuses(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    source.encode("cp1252")
    calls = ("nn.Linear", "nn.Conv2d", "nn.Embedding", "torch.autocast", ".cuda")
    assert not [call for call in calls if f"{call}(" in source]


class TestImport:
    def test_light_and_silent(self) -> None:
        script = (
            "import sys, torch; before = set(sys.modules); import fusedream_core;"
            f"print(sorted({HEAVY!r} & set(sys.modules)));"
            "new = {name.split('.')[0] for name in set(sys.modules) - before};"
            "print(sorted(new - sys.stdlib_module_names))"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        heavy, new = done.stdout.splitlines()
        assert heavy == "[]"
        assert new == "['fusedream_core']"  # beside the standard library; counted, not timed

    def test_public_names(self) -> None:
        import fusedream_core

        assert all(hasattr(fusedream_core, name) for name in fusedream_core.__all__)
