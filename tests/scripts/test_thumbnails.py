"""The pictures that ComfyUI shows beside templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import thumbnails
from thumbnails import CARDS, FROM_RUNS, SIDE, draw_card, sheet

TEMPLATES = sorted(thumbnails.WORKFLOWS.glob("*.json"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_every_template_has_one(template: Path) -> None:
    with Image.open(template.with_suffix(".jpg")) as picture:
        assert picture.width == picture.height >= 128


def test_those_that_are_made_here_are_of_templates() -> None:
    assert {*CARDS, *FROM_RUNS} <= {path.stem for path in TEMPLATES}


def test_a_card_is_the_one_that_is_shipped() -> None:
    """But for what JPEG does to it: a card that says something else is another picture."""
    for name, card in CARDS.items():
        with Image.open(thumbnails.WORKFLOWS / f"{name}.jpg") as shipped:
            pairs = zip(draw_card(*card).tobytes(), shipped.tobytes(), strict=True)
            assert sum(abs(a - b) for a, b in pairs) / (3 * SIDE * SIDE) < 2.0, name


def test_words_stay_within_a_card() -> None:
    card = draw_card("A title that is much too long for a card of this size", ["x" * 60], "y" * 60)
    paper = card.getpixel((SIDE // 2, SIDE // 2))
    right = card.crop((SIDE - thumbnails.MARGIN + 2, 30, SIDE - 14, SIDE - 30))
    assert right.getcolors() == [(right.width * right.height, paper)]


def test_a_sheet_is_read_in_rows() -> None:
    colors = ["#ff0000", "#00ff00", "#0000ff", "#ffffff"]
    made = sheet([Image.new("RGB", (16, 16), color) for color in colors], columns=2)
    half, quarter = SIDE // 2, SIDE // 4
    places = [(quarter, quarter), (quarter + half, quarter), (quarter, quarter + half)]
    assert [made.getpixel(at) for at in places] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert made.size == (SIDE, SIDE)
