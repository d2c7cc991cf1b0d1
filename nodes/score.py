"""The node that ranks any images by AugCLIP."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from comfy_api.latest import io

from ..fusedream_core.augclip.rank import rank_images
from ..fusedream_core.rng import make_generator
from ._boundary import Progress, autograd_scope, images_to_core, join_batches, select_images
from ._models import Managed, activation_bytes, use_models
from ._node import Node
from ._report import ranking_lines, ranking_report
from ._types import PRESETS, ClipSocket, TargetSocket, make_schema, seed_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.types import Target

_D = PRESETS["default"]
_NO_THRESHOLD = -1.0  # no cosine is below it


class FuseDreamAugCLIPScore(Node):
    """Scores and ranks images from any source, in batches or lists."""

    whole: ClassVar = frozenset({"images"})

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamAugCLIPScore",
            display_name="AugCLIP Score (FuseDream)",
            description=(
                "Scores any pictures, from any node and of any size, by how well they fit "
                "the prompt, and ranks them. AugCLIP averages the CLIP score over many "
                "augmented views of each picture, which makes it more robust than plain "
                "CLIP. Needs no GAN."
            ),
            search_aliases=["CLIP score", "rank", "best of", "pick", "AugCLIP", "FuseDream"],
            is_input_list=True,
            inputs=_inputs(),
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        clip: Managed[ImageTextEncoder],
        target: Target,
        images: list[Tensor],
        num_best: int,
        num_augments: int,
        seed: int,
        threshold: float = _NO_THRESHOLD,
    ) -> io.NodeOutput:
        with autograd_scope():
            core_images = images_to_core(images)
            memory = activation_bytes(None, clip, images=1, augments=num_augments)
            (encoder,) = use_models(clip, activation_bytes=memory)
            score = rank_images(
                core_images,
                target,
                encoder,
                config=replace(_D.augment, num_augments=num_augments),
                generator=make_generator(seed),
                callback=Progress(),
            )
        values = score.mean.tolist()
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
        ranked = [values[index] for index in order]
        good = [index for index in order if values[index] >= threshold]
        lines = ranking_lines(score, order)
        batches = join_batches(images)
        return io.NodeOutput(
            [ranking_report(lines, target.prompt)],
            _selected(batches, order),
            _selected(batches, order[:num_best]),
            ranked[:1],
            ["\n".join(lines)],
            ranked,
            _selected(batches, good),
            _selected(batches, order[len(good) :]),
        )


def _selected(batches: Sequence[Tensor], indices: Sequence[int]) -> list[Any]:
    """Return the images at some indices; without any, nodes wired to the output do not run."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return select_images(batches, indices) or [ExecutionBlocker(None)]


def _inputs() -> list[io.Input]:
    return [
        ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
        TargetSocket.Input("target", tooltip="From Encode Prompt, with the same CLIP."),
        io.Image.Input(
            "images",
            tooltip=(
                "The pictures to rank: any batch of any size, or a list of batches, which is "
                "ranked as one. Alpha is composited over white."
            ),
        ),
        io.Int.Input(
            "num_best",
            default=1,
            min=1,
            max=4096,
            tooltip="How many of the best to return at 'best'.",
        ),
        io.Int.Input(
            "num_augments",
            default=_D.optimize.eval_augments,
            min=2,
            max=1024,
            tooltip=(
                "Augmented views of each picture; all pictures get the same augmentations. "
                "More is more exact and slower; the report gives the standard error."
            ),
        ),
        seed_input(
            "Which augmentations are drawn. Keep it fixed to compare scores between runs.",
            changes=False,
        ),
        io.Float.Input(
            "threshold",
            default=_NO_THRESHOLD,
            min=-1.0,
            max=1.0,
            step=0.01,
            optional=True,  # so that prompts from before it are valid
            tooltip=(
                "Pictures with this score or a higher one come out at 'good', the others at "
                "'rest'. -1: all are good. Check the scores first; their range depends on "
                "the CLIP."
            ),
        ),
    ]


def _outputs() -> list[io.Output]:
    """Return the outputs, all lists; most hold one value, which other nodes take as such."""
    return [
        io.String.Output(
            display_name="scores",
            is_output_list=True,
            tooltip="The ranking, one picture a line.",
        ),
        io.Image.Output(
            display_name="ranked",
            is_output_list=True,
            tooltip="All pictures, best first; a list if they differ in size.",
        ),
        io.Image.Output(
            display_name="best", is_output_list=True, tooltip="The best num_best of them."
        ),
        io.Float.Output(
            display_name="best score", is_output_list=True, tooltip="The score of the best."
        ),
        io.String.Output(
            display_name="labels",
            is_output_list=True,
            tooltip="The lines of the ranking alone, for Contact Sheet.",
        ),
        io.Float.Output(
            display_name="all scores",
            is_output_list=True,
            tooltip="The scores as a list of numbers, best first.",
        ),
        io.Image.Output(
            display_name="good",
            is_output_list=True,
            tooltip=(
                "The pictures at or above the threshold, best first. If there are none, "
                "nodes wired to this output do not run."
            ),
        ),
        io.Image.Output(
            display_name="rest",
            is_output_list=True,
            tooltip=(
                "The pictures below the threshold, best first. If there are none, nodes "
                "wired to this output do not run."
            ),
        ),
    ]
