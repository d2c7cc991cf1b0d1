"""The drawing of the rooms, and the loops printed beside the paper's steps."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import architecture
from architecture import BASE, DRAWING, PAGE, body_of, draw, print_loops, read_imports, read_rooms

HINT = "run: python scripts/dev.py architecture"


def test_drawing_is_current() -> None:
    assert DRAWING.read_text(encoding="utf-8") == draw(PAGE.read_text(encoding="utf-8")), HINT


def test_loops_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == print_loops(page), HINT


def test_drawing_needs_nothing_else() -> None:
    """No font, style or picture from elsewhere, and it is well-formed."""
    drawing = DRAWING.read_text(encoding="utf-8")
    root = ElementTree.fromstring(drawing)  # noqa: S314 - our own file
    assert root.tag.endswith("svg")
    assert drawing.count("http") == 1  # the name space
    assert not [word for word in ("@import", "@font-face", "<image", "url(http") if word in drawing]


def test_rooms_and_arrows() -> None:
    rooms = read_rooms(PAGE.read_text(encoding="utf-8"))
    assert rooms == list(architecture.ABOUT)
    modules, arrows = read_imports(rooms)
    assert set(modules) == set(rooms)
    assert all(rooms.index(source) < rooms.index(room) for source, room in arrows)
    assert {room for source, room in arrows if source == BASE} == set(rooms[1:])


def test_body_has_no_docstring(tmp_path: Path) -> None:
    file = tmp_path / "loop.py"
    file.write_text(
        "@one\ndef loop(\n    x: int,\n) -> int:\n"
        '    """Return x.\n\n    More.\n    """\n'
        "    # a word\n    while x:\n        x -= 1\n    return x\n\n\ndef other() -> None: ...\n",
        encoding="utf-8",
    )
    lines = ["def loop(...):", "    # a word", "    while x:", "        x -= 1", "    return x"]
    assert body_of("loop", file).splitlines() == lines


def test_a_page_without_its_markers_is_said() -> None:
    with pytest.raises(SystemExit, match="no place for the loop"):
        print_loops("# A page\n")
