"""Draws text of any script on an image, each character in the first font that has it.

Pillow's own font holds Latin letters only. For others the installed fonts are searched, including
those of matplotlib; emoji are drawn in colour if the font has colours.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import io
import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageFont

_OWN = ""  # Pillow's own font, in place of a path
_SPECIAL = re.compile("bold|italic|oblique|black|light|thin|condensed|serif|mono", re.IGNORECASE)
_EMOJI = 0x1F000  # most code points from here on are emoji
# Joiners of several emoji, variation selectors and skin tones.
_JOINERS = re.compile("[\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
_CLUSTER = re.compile(
    "[A-Za-z\u00c0-\u024f]+|"  # a word, so that its accented letters share its font
    ".(?:[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]"
    "|\u200d.)*",
    re.DOTALL,
)
_STRIKES = (109, 136, 128, 160, 96, 64, 72)  # pixel sizes of common bitmap fonts


@dataclass(frozen=True)
class _Run:
    """Neighbouring characters with one font.

    Attributes:
        text: The characters.
        font: The font, at the requested size; a bitmap font at its own size.
        scale: Requested size over the size of the font.
    """

    text: str
    font: ImageFont.FreeTypeFont
    scale: float

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.font.getlength(self.text) * self.scale


def draw_text(image: Image.Image, left: float, top: float, text: str, size: int) -> None:
    """Draw one line in black on an image, in place.

    Args:
        image: The image to draw on.
        left: Left end of the line in pixels.
        top: Top of its tallest letters in pixels.
        text: The line.
        size: Font size in pixels.
    """
    from PIL import ImageDraw

    own, _ = _load(_OWN, size)
    baseline = top + own.getmetrics()[0]
    draw = ImageDraw.Draw(image)
    for run in _runs(text, size):
        if run.scale == 1.0:
            draw.text(
                (left, baseline),
                run.text,
                fill="black",
                font=run.font,
                anchor="ls",
                embedded_color=True,
            )
        else:
            _paste_bitmaps(image, left, baseline, run)
        left += run.width


def text_width(text: str, size: int) -> float:
    """Return the width of a line in pixels."""
    return sum(run.width for run in _runs(text, size))


def cut_to_width(text: str, size: int, width: float) -> str:
    """Return as much of a line as fits into a width in pixels."""
    lengths = range(1, len(text) + 1)
    return text[: bisect.bisect(lengths, width, key=lambda end: text_width(text[:end], size))]


def missing_characters(*texts: str) -> list[str]:
    """Return the characters that no installed font has, each once; they are drawn as boxes."""
    clusters = dict.fromkeys(cluster for text in texts for cluster in _clusters(text))
    return [cluster for cluster in clusters if _font_for(cluster) is None]


def in_matplotlib(text: str) -> bool:
    """Return whether matplotlib's own font has all characters of a text."""
    return all(char.isspace() or ord(char) in _characters(str(_dejavu())) for char in text)


def _dejavu() -> Path:
    """Return the path of matplotlib's own font."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def _paste_bitmaps(image: Image.Image, left: float, baseline: float, run: _Run) -> None:
    """Draw a run of a bitmap font at the font's own size, and scale it."""
    from PIL import Image, ImageDraw

    up, down = run.font.getmetrics()
    layer = Image.new("RGBA", (max(1, round(run.font.getlength(run.text))), up + down))
    draw = ImageDraw.Draw(layer)
    draw.text((0, up), run.text, fill="black", font=run.font, anchor="ls", embedded_color=True)
    small = layer.resize([max(1, round(side * run.scale)) for side in layer.size])
    image.paste(small, (round(left), round(baseline - up * run.scale)), small)


def _runs(text: str, size: int) -> Iterator[_Run]:
    """Yield the parts of a line that have one font each."""
    pairs = [(_font_for(cluster) or _OWN, cluster) for cluster in _clusters(text)]
    for path, neighbours in itertools.groupby(pairs, key=lambda pair: pair[0]):
        font, scale = _load(path, size)
        yield _Run("".join(cluster for _, cluster in neighbours), font, scale)


def _clusters(text: str) -> list[str]:
    """Split a text into Latin words, and other characters with their accents and joiners.

    Without a layout engine joiners would only be drawn as boxes, so they are left out.
    """
    from PIL import features

    composed = unicodedata.normalize("NFC", text)
    return _CLUSTER.findall(composed if features.check("raqm") else _JOINERS.sub("", composed))


@functools.lru_cache(maxsize=4096)
def _font_for(cluster: str) -> str | None:
    """Return the first font that has all characters of a cluster, or None."""
    needed = set(map(ord, _JOINERS.sub("", cluster)))
    if needed <= _characters(_OWN) or cluster.isspace():
        return _OWN
    emoji = [path for path in _installed() if "emoji" in path.name.lower()]
    others = [path for path in _installed() if path not in emoji]
    order = emoji + others if max(needed, default=0) >= _EMOJI else others + emoji
    return next((str(path) for path in order if needed <= _characters(str(path))), None)


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """Return all font files, plain ones first; none without matplotlib, which finds them."""
    try:
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return ()
    found = map(Path, findSystemFonts())
    return (_dejavu(), *sorted(found, key=lambda path: (bool(_SPECIAL.search(path.name)), path)))


@functools.lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[int]:
    """Return the code points of a font; none if it cannot be read or drawn."""
    try:
        from fontTools.ttLib import TTFont, TTLibError  # type: ignore[import-untyped]
    except ImportError:  # fontTools comes with matplotlib
        return frozenset(range(0x250)) if path == _OWN else frozenset()
    try:
        font, _ = _load(path, 16)
        source = path or io.BytesIO(font.path.getvalue())  # type: ignore[union-attr]
        with TTFont(source, fontNumber=0, lazy=True) as table:
            return frozenset(table.getBestCmap() or ())
    except (OSError, TTLibError, ValueError, KeyError, AssertionError):
        return frozenset()


@functools.lru_cache(maxsize=64)
def _load(path: str, size: int) -> tuple[ImageFont.FreeTypeFont, float]:
    """Load a font; return it with the requested size over its own.

    Raises:
        OSError: If it cannot be loaded at any usual size.
    """
    from PIL import ImageFont

    if path == _OWN:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - as long as Pillow has FreeType
        return font, 1.0
    for strike in (size, *_STRIKES):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(path, strike), size / strike
    raise OSError(f"The font {path} cannot be drawn at any usual size.")
