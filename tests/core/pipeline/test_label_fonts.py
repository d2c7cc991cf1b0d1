from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from fusedream_core.pipeline import label_fonts

DOG = "\u72d7"


@pytest.fixture
def fonts() -> Iterator[ModuleType]:
    """The module, with an empty cache."""
    label_fonts._font_for.cache_clear()
    yield label_fonts
    label_fonts._font_for.cache_clear()


@pytest.fixture
def square_font(tmp_path: Path) -> Path:
    """A font of one character: a full square for the Chinese word for a dog."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "dog"])
    builder.setupCharacterMap({ord(DOG): "dog"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "dog": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "dog": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "Square.ttf"
    builder.save(path)
    return path


def drawn(fonts: ModuleType, text: str, size: int = 20) -> np.ndarray:
    """Black ink of a line, height x width, from 0 to 1."""
    image = Image.new("RGB", (200, 40), "white")
    fonts.draw_text(image, 4, 4, text, size)
    return 1.0 - np.asarray(image).mean(axis=2) / 255.0


class TestFonts:
    def test_plain_letters_are_in_pillows_own(
        self, fonts: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No font is searched, and the line is what Pillow itself draws."""
        from PIL import ImageDraw, ImageFont

        monkeypatch.setattr(fonts, "_installed", lambda: pytest.fail("fonts were searched"))
        image = Image.new("RGB", (200, 40), "white")
        font = ImageFont.load_default(20)
        ImageDraw.Draw(image).text((4, 4), "1. cafe +- 2.5x", fill="black", font=font)
        expected = 1.0 - np.asarray(image).mean(axis=2) / 255.0
        assert np.array_equal(drawn(fonts, "1. cafe +- 2.5x"), expected)
        assert fonts.text_width("a b", 20) == font.getlength("a b")

    def test_a_font_that_has_it_is_found(
        self, fonts: ModuleType, square_font: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fonts, "_installed", lambda: (Path("gone.ttf"), square_font))
        assert fonts.missing_characters(f"a {DOG}") == []
        ink = drawn(fonts, DOG)
        rows, columns = np.nonzero(ink > 0.9)
        assert len(rows) == 20 * 20  # all of it is one square
        assert (rows.max() - rows.min(), columns.max() - columns.min()) == (19, 19)
        both = drawn(fonts, f"a {DOG}")
        assert both.sum() > ink.sum() + drawn(fonts, "a").sum() - 1.0

    def test_greek_comes_with_matplotlib(
        self, fonts: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fonts, "_installed", lambda: (fonts._dejavu(),))
        text = "\u03c3\u03ba\u03cd\u03bb\u03bf\u03c2 e\u0301 \u0434\u0430"
        assert fonts.missing_characters(text) == []
        assert len({drawn(fonts, letter).tobytes() for letter in "\u03c3\u03ba\u03bb\u0434"}) == 4

    def test_emoji_are_in_colour(self, fonts: ModuleType) -> None:
        path = fonts._font_for("\U0001f431")
        if path is None or "color" not in path.lower():
            pytest.skip("no font of colour emoji is installed")
        image = Image.new("RGB", (60, 40), "white")
        fonts.draw_text(image, 4, 4, "\U0001f431", 20)
        pixels = np.asarray(image).astype(int)
        assert (pixels.max(axis=2) - pixels.min(axis=2)).max() > 60
        assert 18 <= fonts.text_width("\U0001f431", 20) <= 30

    def test_joiners_take_no_room(self, fonts: ModuleType) -> None:
        heart = "\u2764"
        assert fonts.text_width(f"a{heart}\ufe0f", 20) <= fonts.text_width(f"a{heart}", 20) + 1.0

    def test_missing_characters_come_once(
        self, fonts: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fonts, "_installed", tuple)
        assert fonts.missing_characters(f"{DOG} a {DOG}", "\u03b1") == [DOG, "\u03b1"]

    def test_a_long_label_is_not_measured_letter_by_letter(
        self, fonts: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One of a thousand letters took two seconds, of Chinese ones half a minute."""
        measured: list[str] = []
        width = fonts.text_width

        def count(text: str, size: int) -> float:
            measured.append(text)
            return float(width(text, size))

        monkeypatch.setattr(fonts, "text_width", count)
        text = "a long caption " * 70
        short = fonts.cut_to_width(text, 20, 200)
        assert len(measured) < 20
        assert width(short, 20) <= 200 < width(text[: len(short) + 1], 20)
        assert fonts.cut_to_width("a dog", 20, 200) == "a dog"
        assert fonts.cut_to_width("a dog", 20, 1) == ""

    def test_cut_to_width(self, fonts: ModuleType) -> None:
        whole = "a long line of words"
        line = fonts.cut_to_width(whole, 20, 60.0)
        assert whole.startswith(line)
        assert fonts.text_width(line, 20) <= 60.0 < fonts.text_width(whole[: len(line) + 1], 20)
