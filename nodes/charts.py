"""Nodes that draw what happened: scores over steps, and labelled sheets of pictures."""

from __future__ import annotations

import io as stdlib_io
import math
from typing import TYPE_CHECKING

from comfy_api.latest import io
from PIL import Image, ImageDraw, ImageFont

from ..fusedream_core.errors import MissingDependencyError
from ..fusedream_core.images import to_pil
from ._boundary import autograd_scope, image_to_core, pictures_to_image
from ._types import Trace, TraceSocket, make_schema

if TYPE_CHECKING:
    from torch import Tensor

_LABEL_SHARE = 0.14  # of a tile's height, for the words below it
_GAP = 4  # pixels between tiles


class FuseDreamPlotTrace(io.ComfyNode):
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
            raise MissingDependencyError(
                "The package matplotlib is needed for curves; run 'pip install matplotlib'."
            ) from error
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
        axes = FigureCanvasAgg(figure).figure.add_subplot()
        axes.plot(range(1, len(trace.values) + 1), trace.values, color="tab:blue")
        axes.set(xlabel="step", ylabel=trace.what)
        axes.set_title(trace.title, parse_math=False)  # a prompt may hold any sign
        axes.grid(alpha=0.3)
        content = stdlib_io.BytesIO()
        figure.savefig(content, format="png")
        with Image.open(content) as picture:
            return io.NodeOutput(pictures_to_image([picture.convert("RGB")]))


class FuseDreamContactSheet(io.ComfyNode):
    """Puts a batch of pictures on one sheet, with words below each."""

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
            inputs=[
                io.Image.Input("images", tooltip="Any batch."),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip=(
                        "One line for each picture. Of the scores of Seed Search and AugCLIP "
                        "Score, the numbered lines count."
                    ),
                ),
                io.Int.Input(
                    "columns", default=0, min=0, max=64, tooltip="Pictures in a row; 0: as square."
                ),
                io.Int.Input("tile", default=192, min=32, max=1024, tooltip="Side of each."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The sheet.")],
        )

    @classmethod
    def execute(cls, images: Tensor, labels: str, columns: int, tile: int) -> io.NodeOutput:
        with autograd_scope():
            pictures = to_pil(image_to_core(images))
        sheet = _sheet(pictures, _lines(labels), columns, tile)
        return io.NodeOutput(pictures_to_image([sheet]))


def _lines(labels: str) -> list[str]:
    """A label for each picture: the numbered lines, if there are some, or else all."""
    lines = [line.strip() for line in labels.splitlines() if line.strip()]
    numbered = [line for line in lines if line.split(".")[0].isdigit()]
    return numbered or lines


def _sheet(pictures: list[Image.Image], lines: list[str], columns: int, tile: int) -> Image.Image:
    """Pictures from left to right and top to bottom, each in a square of its own."""
    wide = columns or math.ceil(math.sqrt(len(pictures)))
    wide = min(wide, len(pictures))
    label = round(_LABEL_SHARE * tile) if lines else 0
    rows = math.ceil(len(pictures) / wide)
    size = (wide * (tile + _GAP) + _GAP, rows * (tile + label + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(max(8, round(0.7 * label))) if lines else None
    for index, picture in enumerate(pictures):
        row, column = divmod(index, wide)
        left, top = _GAP + column * (tile + _GAP), _GAP + row * (tile + label + _GAP)
        small = picture.copy()
        small.thumbnail((tile, tile))
        if max(small.size) < tile:
            small = small.resize([round(side * tile / max(small.size)) for side in small.size])
        sheet.paste(small, (left + (tile - small.width) // 2, top + (tile - small.height) // 2))
        if font is not None and index < len(lines):
            text = lines[index]
            while text and draw.textlength(text, font=font) > tile:
                text = text[:-1]
            draw.text((left, top + tile), text, fill="black", font=font)
    return sheet
