"""The node that ranks any pictures by AugCLIP."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.rank import rank_images
from ..fusedream_core.rng import make_generator
from ._boundary import Progress, autograd_scope, image_to_core
from ._models import Managed, activation_bytes, use_models
from ._report import ranking_report
from ._types import PRESETS, ClipSocket, TargetSocket, make_schema, seed_input

if TYPE_CHECKING:
    from torch import Tensor

    from ..fusedream_core.clip.base import ImageTextEncoder
    from ..fusedream_core.types import Target

_D = PRESETS["default"]


class FuseDreamAugCLIPScore(io.ComfyNode):
    """Scores and ranks an IMAGE batch of any origin; no GAN needed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamAugCLIPScore",
            display_name="AugCLIP Score (FuseDream)",
            description=(
                "Scores any pictures, from any node and of any size, by how well they fit the "
                "prompt, and ranks them. AugCLIP looks at many augmented copies of each picture "
                "and is harder to fool than plain CLIP. Needs no GAN."
            ),
            search_aliases=["CLIP score", "rank", "best of", "pick", "AugCLIP", "FuseDream"],
            inputs=[
                ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
                TargetSocket.Input("target", tooltip="From Encode Prompt, with the same CLIP."),
                io.Image.Input(
                    "images",
                    tooltip="The pictures to rank: any batch of any size; alpha is laid on white.",
                ),
                io.Int.Input(
                    "num_best",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many of the best to give out at 'best'.",
                ),
                io.Int.Input(
                    "num_augments",
                    default=_D.optimize.eval_augments,
                    min=2,
                    max=1024,
                    tooltip=(
                        "Augmented copies of each picture; all pictures get the same ones. More "
                        "is more exact and slower; the report gives the error."
                    ),
                ),
                seed_input(
                    "Which augmentations are drawn. Keep it fixed to compare scores between runs.",
                    changes=False,
                ),
            ],
            outputs=[
                io.String.Output(display_name="scores", tooltip="The ranking, one picture a line."),
                io.Image.Output(display_name="ranked", tooltip="All pictures, best first."),
                io.Image.Output(display_name="best", tooltip="The best num_best of them."),
                io.Float.Output(display_name="best score", tooltip="The score of the best."),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: Managed[ImageTextEncoder],
        target: Target,
        images: Tensor,
        num_best: int,
        num_augments: int,
        seed: int,
    ) -> io.NodeOutput:
        with autograd_scope():
            pictures = image_to_core(images)
            memory = activation_bytes(None, clip, pictures=1, augments=num_augments)
            (encoder,) = use_models(clip, activation_bytes=memory)
            score = rank_images(
                pictures,
                target,
                encoder,
                config=replace(_D.augment, num_augments=num_augments),
                generator=make_generator(seed),
                callback=Progress(),
            )
        order = score.mean.argsort(descending=True, stable=True)
        ranked = images[order.to(images.device)]
        return io.NodeOutput(
            ranking_report(score, order.tolist(), target.prompt),
            ranked,
            ranked[:num_best],
            float(score.mean[order[0]]),
        )
