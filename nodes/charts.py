"""Nodes for charts: a curve of scores over steps, and a sheet of labelled images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from comfy_api.latest import io

from ..fusedream_core.pipeline.charts import contact_sheet, plot_curve
from ..fusedream_core.pipeline.label_fonts import missing_characters
from ._boundary import autograd_scope, images_to_core, pil_to_image, show_text
from ._node import Node
from ._report import labels_of
from ._types import Trace, TraceSocket, make_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

logger = logging.getLogger(__name__)


class FuseDreamPlotTrace(Node):
    """Draws the score of each step as a curve."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamPlotTrace",
            display_name="Plot Trace (FuseDream)",
            description=(
                "Draws the score of each step as a curve, which shows whether it "
                "still rises at the end."
            ),
            search_aliases=["FuseDream", "chart", "graph", "curve", "loss"],
            inputs=[
                TraceSocket.Input("trace", tooltip="From Optimize or Invert Image (FuseDream)."),
                io.Int.Input("width", default=640, min=128, max=4096, tooltip="Size in pixels."),
                io.Int.Input("height", default=400, min=128, max=4096, tooltip="Size in pixels."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The curve.")],
        )

    @classmethod
    def execute(cls, trace: Trace, width: int, height: int) -> io.NodeOutput:
        chart = plot_curve(
            trace.values, title=trace.title, name=trace.name, width=width, height=height
        )
        _warn_of_boxes(trace.title)
        return io.NodeOutput(pil_to_image([chart]))


class FuseDreamContactSheet(Node):
    """Arranges images on one sheet, with a label below each."""

    whole: ClassVar = frozenset({"images", "labels"})

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamContactSheet",
            display_name="Contact Sheet (FuseDream)",
            description=(
                "Arranges a batch on one sheet, with a label below each picture: the basis "
                "of Seed Search with its scores, or any ranking."
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
                        "One line for each picture, or a list of as many texts. Of the "
                        "scores of Seed Search and AugCLIP Score, only the numbered lines "
                        "are used."
                    ),
                ),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Pictures per row; 0: as square as possible.",
                ),
                io.Int.Input(
                    "tile", default=192, min=32, max=1024, tooltip="Side of each tile in pixels."
                ),
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
            batches = images_to_core(images)
        lines = _lines(labels, sum(map(len, batches)))
        _warn_of_boxes(*lines)
        sheet = contact_sheet(batches, lines, columns=columns, tile=tile)
        return io.NodeOutput([pil_to_image([sheet])])


def _lines(labels: Sequence[str], num: int) -> list[str]:
    """Return the labels of ``num`` images: one text for each, or the lines of one text."""
    if len(labels) == num > 1:
        return [" ".join(label.split()) for label in labels]
    return [line for label in labels for line in labels_of(label)]


def _warn_of_boxes(*texts: str) -> None:
    """Report, in the log and below the node, which characters are drawn as boxes."""
    missing = missing_characters(*texts)
    if missing:
        sentence = (
            f"No installed font has {' '.join(missing[:8])}, so boxes are drawn; install one that "
            "has, such as one of the Noto fonts, and restart ComfyUI."
        )
        logger.warning("FuseDream: %s", sentence)
        show_text(sentence)
