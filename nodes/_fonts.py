"""Text of any script on an image: each character in the first font that has it.

Pillow's own font holds Latin letters alone. For others the installed fonts are searched, those of
matplotlib included; emoji are drawn in colour where a font has them so.
"""

from __future__ import annotations

import contextlib
import functools
import io as stdlib_io
import itertools
import logging
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

logger = logging.getLogger(__name__)

_OWN = ""  # in place of a path: Pillow's own font
_SPECIAL = re.compile("bold|italic|oblique|black|light|thin|condensed|serif|mono", re.IGNORECASE)
_EMOJI = 0x1F000  # from here on most characters are pictures
# What makes one emoji of several, or changes its look or its skin.
_JOINERS = re.compile("[\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
_CLUSTER = re.compile(
    "[A-Za-z\u00c0-\u024f]+|"  # a word, so that its accented letters look like the others
    ".(?:[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]"
    "|\u200d.)*",
    re.DOTALL,
)
_STRIKES = (109, 136, 128, 160, 96, 64, 72)  # sizes in pixels that fonts of bitmaps come in


@dataclass(frozen=True)
class _Run:
    """Neighbouring characters of one font.

    Attributes:
        text: The characters.
        font: The font, at the wished size or, if it is of bitmaps, at its own.
        scale: What brings it to the wished size.
    """

    text: str
    font: ImageFont.FreeTypeFont
    scale: float

    @property
    def width(self) -> float:
        """In pixels."""
        return self.font.getlength(self.text) * self.scale


def draw_text(image: Image.Image, left: float, top: float, text: str, size: int) -> None:
    """Draw one line in black.

    Args:
        image: Where to; it is changed.
        left: Where the line begins, in pixels.
        top: Where its highest letters end.
        text: The line.
        size: Of the letters, in pixels.
    """
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
    """Width of a line in pixels."""
    return sum(run.width for run in _runs(text, size))


def fitted(text: str, size: int, width: float) -> str:
    """As much of a line as a width has room for."""
    if text_width(text, size) <= width:
        return text
    fits, over = 0, len(text)  # lengths; the one sought is between them
    while over - fits > 1:
        middle = (fits + over) // 2
        if text_width(text[:middle], size) <= width:
            fits = middle
        else:
            over = middle
    return text[:fits]


def warn_of_boxes(*texts: str) -> str | None:
    """Log which characters no installed font has, and return the sentence, if there are any."""
    missing = dict.fromkeys(
        cluster for text in texts for cluster in _clusters(text) if _font_for(cluster) is None
    )
    if not missing:
        return None
    sentence = (
        f"No installed font has {' '.join(itertools.islice(missing, 8))}, so boxes are drawn; "
        "install one that has, such as one of the Noto fonts, and restart ComfyUI."
    )
    logger.warning("FuseDream: %s", sentence)
    return sentence


def in_matplotlib(text: str) -> bool:
    """Whether matplotlib's own font has all characters of a text."""
    return all(char.isspace() or ord(char) in _characters(str(_dejavu())) for char in text)


def _dejavu() -> Path:
    """Matplotlib's own font."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def _paste_bitmaps(image: Image.Image, left: float, baseline: float, run: _Run) -> None:
    """Draw a run of a font that comes in one size alone, and scale it."""
    up, down = run.font.getmetrics()
    layer = Image.new("RGBA", (max(1, round(run.font.getlength(run.text))), up + down))
    draw = ImageDraw.Draw(layer)
    draw.text((0, up), run.text, fill="black", font=run.font, anchor="ls", embedded_color=True)
    small = layer.resize([max(1, round(side * run.scale)) for side in layer.size])
    image.paste(small, (round(left), round(baseline - up * run.scale)), small)


def _runs(text: str, size: int) -> Iterator[_Run]:
    """A line in pieces of one font each."""
    pairs = [(_font_for(cluster) or _OWN, cluster) for cluster in _clusters(text)]
    for path, neighbours in itertools.groupby(pairs, key=lambda pair: pair[0]):
        font, scale = _load(path, size)
        yield _Run("".join(cluster for _, cluster in neighbours), font, scale)


def _clusters(text: str) -> list[str]:
    """Latin words, and other characters with the accents and joiners that belong to them.

    Without a layout engine joiners have no effect but a box of their own, and are left out.
    """
    composed = unicodedata.normalize("NFC", text)
    return _CLUSTER.findall(composed if features.check("raqm") else _JOINERS.sub("", composed))


@functools.lru_cache(maxsize=4096)
def _font_for(cluster: str) -> str | None:
    """The first font that has all characters of a cluster; None if there is none."""
    needed = set(map(ord, _JOINERS.sub("", cluster)))
    if needed <= _characters(_OWN) or cluster.isspace():
        return _OWN
    emoji = [path for path in _installed() if "emoji" in path.name.lower()]
    others = [path for path in _installed() if path not in emoji]
    order = emoji + others if max(needed, default=0) >= _EMOJI else others + emoji
    return next((str(path) for path in order if needed <= _characters(str(path))), None)


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """Font files, plain ones first; none without matplotlib, which knows where they lie."""
    try:
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return ()
    found = map(Path, findSystemFonts())
    return (_dejavu(), *sorted(found, key=lambda path: (bool(_SPECIAL.search(path.name)), path)))


@functools.lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[int]:
    """The code points that a font has; none if it cannot be read or drawn."""
    try:
        from fontTools.ttLib import TTFont, TTLibError
    except ImportError:  # comes with matplotlib
        return frozenset(range(0x250)) if path == _OWN else frozenset()
    try:
        font, _ = _load(path, 16)
        source = path or stdlib_io.BytesIO(font.path.getvalue())
        with TTFont(source, fontNumber=0, lazy=True) as table:
            return frozenset(table.getBestCmap() or ())
    except (OSError, TTLibError, ValueError, KeyError, AssertionError):
        return frozenset()


@functools.lru_cache(maxsize=64)
def _load(path: str, size: int) -> tuple[ImageFont.FreeTypeFont, float]:
    """A font, and what brings it to a size.

    Raises:
        OSError: If it cannot be drawn at any size.
    """
    if path == _OWN:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - as long as Pillow has FreeType
        return font, 1.0
    for strike in (size, *_STRIKES):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(path, strike), size / strike
    raise OSError(f"The font {path} cannot be drawn at any usual size.")
