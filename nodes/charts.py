"""Nodes that draw what happened: scores over steps, and labelled sheets of pictures."""

from __future__ import annotations

import io as stdlib_io
import math
from typing import TYPE_CHECKING, ClassVar

from comfy_api.latest import io
from PIL import Image

from ..fusedream_core.errors import MissingDependencyError
from ..fusedream_core.images import to_pil
from ._boundary import autograd_scope, images_to_core, pictures_to_image, show_text
from ._fonts import draw_text, fitted, in_matplotlib, text_width, warn_of_boxes
from ._node import Node
from ._report import labels_of
from ._types import Trace, TraceSocket, make_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_LABEL_SHARE = 0.14  # of a tile's height, for the words below it
_GAP = 4  # pixels between tiles
_TITLE_STRIP = 24  # pixels


class FuseDreamPlotTrace(Node):
    """Draws the numbers of a run's steps as a curve."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamPlotTrace",
            display_name="Plot Trace (FuseDream)",
            description="Draws the score of each step as a curve: is it still rising at the end?",
            search_aliases=["FuseDream", "chart", "graph", "curve", "loss"],
            inputs=[
                TraceSocket.Input("trace", tooltip="From Optimize or Invert Image (FuseDream)."),
                io.Int.Input("width", default=640, min=128, max=4096, tooltip="In pixels."),
                io.Int.Input("height", default=400, min=128, max=4096, tooltip="In pixels."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The curve.")],
        )

    @classmethod
    def execute(cls, trace: Trace, width: int, height: int) -> io.NodeOutput:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependencyError.of("matplotlib", "curves") from error
        special = not in_matplotlib(trace.title)
        strip = _TITLE_STRIP if special else 0
        size = (width / 100, (height - strip) / 100)
        figure = Figure(figsize=size, dpi=100, layout="constrained")
        axes = FigureCanvasAgg(figure).figure.add_subplot()
        axes.plot(range(1, len(trace.values) + 1), trace.values, color="tab:blue")
        axes.set(xlabel="step", ylabel=trace.what)
        if not special:
            axes.set_title(trace.title, parse_math=False)  # a prompt may hold any sign
        axes.grid(alpha=0.3)
        content = stdlib_io.BytesIO()
        figure.savefig(content, format="png")
        with Image.open(content) as picture:
            chart = picture.convert("RGB")
        if special:
            chart = _with_title(chart, trace.title, strip)
        return io.NodeOutput(pictures_to_image([chart]))


def _with_title(chart: Image.Image, title: str, strip: int) -> Image.Image:
    """A curve below a title whose letters matplotlib's own font does not have."""
    _warn(title)
    whole = Image.new("RGB", (chart.width, chart.height + strip), "white")
    whole.paste(chart, (0, strip))
    size = round(0.6 * strip)
    line = fitted(" ".join(title.split()), size, chart.width)
    draw_text(whole, (chart.width - text_width(line, size)) / 2, 0.2 * strip, line, size)
    return whole


class FuseDreamContactSheet(Node):
    """Puts pictures on one sheet, with words below each."""

    whole: ClassVar = frozenset({"images", "labels"})

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamContactSheet",
            display_name="Contact Sheet (FuseDream)",
            description=(
                "Puts a batch on one picture, with a line below each: the basis of Seed Search "
                "with its scores, or any ranking."
            ),
            search_aliases=["FuseDream", "grid", "montage", "labels"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="Any batch, or a list of pictures of any sizes."),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip=(
                        "One line for each picture, or a list of as many texts. Of the scores of "
                        "Seed Search and AugCLIP Score, the numbered lines count."
                    ),
                ),
                io.Int.Input(
                    "columns", default=0, min=0, max=64, tooltip="Pictures in a row; 0: as square."
                ),
                io.Int.Input("tile", default=192, min=32, max=1024, tooltip="Side of each."),
            ],
            outputs=[
                io.Image.Output(display_name="image", is_output_list=True, tooltip="The sheet.")
            ],
        )

    @classmethod
    def execute(
        cls, images: list[Tensor], labels: list[str], columns: int, tile: int
    ) -> io.NodeOutput:
        with autograd_scope():
            pictures = [one for batch in images_to_core(images) for one in to_pil(batch)]
        lines = _lines(labels, len(pictures))
        _warn(*lines)
        sheet = _sheet(pictures, lines, columns, tile)
        return io.NodeOutput([pictures_to_image([sheet])])


def _lines(labels: Sequence[str], num: int) -> list[str]:
    """The labels of so many pictures: texts of a list as they are, or the lines of a text."""
    if len(labels) == num > 1:
        return [" ".join(label.split()) for label in labels]
    return [line for label in labels for line in labels_of(label)]


def _warn(*texts: str) -> None:
    """Say, in the log and below the node, which characters will be boxes."""
    sentence = warn_of_boxes(*texts)
    if sentence is not None:
        show_text(sentence)


def _sheet(pictures: list[Image.Image], lines: list[str], columns: int, tile: int) -> Image.Image:
    """Pictures from left to right and top to bottom, each in a square of its own."""
    wide = columns or math.ceil(math.sqrt(len(pictures)))
    wide = min(wide, len(pictures))
    label = round(_LABEL_SHARE * tile) if lines else 0
    rows = math.ceil(len(pictures) / wide)
    size = (wide * (tile + _GAP) + _GAP, rows * (tile + label + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    letters = max(8, round(0.7 * label))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, wide)
        left, top = _GAP + column * (tile + _GAP), _GAP + row * (tile + label + _GAP)
        small = picture.copy()
        small.thumbnail((tile, tile))
        if max(small.size) < tile:
            small = small.resize([round(side * tile / max(small.size)) for side in small.size])
        sheet.paste(small, (left + (tile - small.width) // 2, top + (tile - small.height) // 2))
        if index < len(lines):
            draw_text(sheet, left, top + tile, fitted(lines[index], letters, tile), letters)
    return sheet
