"""Charts of a run: a score curve, and a sheet of labelled images."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import MissingDependencyError
from ..images import to_pil
from .label_fonts import cut_to_width, draw_text, in_matplotlib, text_width

if TYPE_CHECKING:
    from PIL import Image

_LABEL_SHARE = 0.14  # height of a label, as a share of the tile's side
_GAP = 4  # pixels between tiles
_TITLE_STRIP = 24  # pixels


def plot_curve(
    values: Sequence[float], *, title: str, name: str, width: int, height: int
) -> Image.Image:
    """Return a chart of one value per step.

    Args:
        values: One value for each step, from step 1.
        title: Any text, in any script.
        name: What the values are, for the vertical axis.
        width: Width of the chart in pixels.
        height: Height of the chart in pixels.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError.of("matplotlib", "curves") from error
    from PIL import Image

    strip = 0 if in_matplotlib(title) else _TITLE_STRIP
    size = (width / 100, (height - strip) / 100)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    axes.plot(range(1, len(values) + 1), values, color="tab:blue")
    axes.set(xlabel="step", ylabel=name)
    if not strip:
        axes.set_title(title, parse_math=False)  # a prompt may hold any sign
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    with Image.open(content) as image:
        chart = image.convert("RGB")
    return _with_title(chart, title, strip) if strip else chart


def _with_title(chart: Image.Image, title: str, strip: int) -> Image.Image:
    """Add a title with characters that matplotlib's own font does not have."""
    from PIL import Image

    whole = Image.new("RGB", (chart.width, chart.height + strip), "white")
    whole.paste(chart, (0, strip))
    size = round(0.6 * strip)
    line = cut_to_width(" ".join(title.split()), size, chart.width)
    draw_text(whole, (chart.width - text_width(line, size)) / 2, 0.2 * strip, line, size)
    return whole


def contact_sheet(
    batches: Sequence[Tensor], labels: Sequence[str] = (), *, columns: int = 0, tile: int = 192
) -> Image.Image:
    """Return one image with all images in rows, each in a square tile with its label below.

    Args:
        batches: Images, each batch ``(B, 3, H, W)`` in ``[-1, 1]``; sizes may differ.
        labels: One line for each image; images beyond them have none.
        columns: Images in a row; 0 makes the sheet as square as possible.
        tile: Side of a tile in pixels.
    """
    from PIL import Image

    images = [image for batch in batches for image in to_pil(batch)]
    num_columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    num_rows = math.ceil(len(images) / num_columns)
    label = round(_LABEL_SHARE * tile) if labels else 0
    font_size = max(8, round(0.7 * label))
    size = (num_columns * (tile + _GAP) + _GAP, num_rows * (tile + label + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    for index, image in enumerate(images):
        row, column = divmod(index, num_columns)
        left, top = _GAP + column * (tile + _GAP), _GAP + row * (tile + label + _GAP)
        image.thumbnail((tile, tile))
        small = image
        if max(small.size) < tile:
            small = small.resize([round(side * tile / max(small.size)) for side in small.size])
        sheet.paste(small, (left + (tile - small.width) // 2, top + (tile - small.height) // 2))
        if index < len(labels):
            line = cut_to_width(labels[index], font_size, tile)
            draw_text(sheet, left, top + tile, line, font_size)
    return sheet
