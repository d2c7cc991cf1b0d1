"""The node that optimises an image."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.optimize.latent_file import GanLatent
from ..fusedream_core.optimize.optimize import optimize
from ..fusedream_core.pipeline.generate import OPTIMIZE_STREAM
from ..fusedream_core.rng import make_generator
from ._boundary import Progress, autograd_scope, core_to_image
from ._models import Managed, plan_batches, use_models
from ._node import Node
from ._report import SCORE_NAMES, latent_notes, optimize_report
from ._types import (
    AS_PRESET,
    PRESETS,
    BasisSocket,
    ClipSocket,
    GanSocket,
    LatentSocket,
    TargetSocket,
    Trace,
    TraceSocket,
    chosen,
    make_schema,
    seed_input,
)

if TYPE_CHECKING:
    from ..fusedream_core.config import Recipe
    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.models.gan.base import Gan
    from ..fusedream_core.types import Basis, Target

logger = logging.getLogger(__name__)

_D = PRESETS["default"]
_REFERENCE = PRESETS["reference code"]


class FuseDreamOptimize(Node):
    """Optimises a mix of the basis latents for AugCLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamOptimize",
            display_name="Optimize (FuseDream)",
            description=(
                "Mixes the basis latents of Seed Search and optimises the mix and the "
                "latents together for AugCLIP, the CLIP score under random augmentations. "
                "The default preset is multi-start: it starts from the best pictures of "
                "different classes and continues with the best."
            ),
            search_aliases=["FuseDream", "text to image", "AugCLIP"],
            inputs=[
                GanSocket.Input("gan", tooltip="The GAN that the basis was searched with."),
                ClipSocket.Input("clip", tooltip="The CLIP that the prompt was encoded with."),
                TargetSocket.Input("target", tooltip="From Encode Prompt."),
                BasisSocket.Input("basis", tooltip="From Seed Search."),
                seed_input(
                    "Which random augmentations are drawn. A change of this seed alone gives "
                    "a variation without a new search."
                ),
                io.Int.Input(
                    "num_steps",
                    default=_D.optimize.num_steps,
                    min=AS_PRESET,
                    max=10_000,
                    tooltip=(
                        "Optimisation steps; run time grows with them. -1: the number of the "
                        f"preset (reference code: {_REFERENCE.optimize.num_steps})."
                    ),
                ),
                io.Int.Input(
                    "num_augments",
                    default=_D.augment.num_augments,
                    min=AS_PRESET,
                    max=512,
                    tooltip=(
                        "Augmented views that CLIP encodes per step. More give a steadier "
                        "gradient, but take more time and memory. -1: the number of the "
                        f"preset (reference code: {_REFERENCE.augment.num_augments})."
                    ),
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="default",
                    tooltip=(
                        "How the mix is parameterised and optimised. default: this pack's, "
                        "the best of the three. paper: one weight per basis picture, as "
                        "published. reference code: one weight per coordinate, as in the "
                        "authors' code."
                    ),
                ),
                ClipSocket.Input(
                    "selector",
                    optional=True,
                    tooltip=(
                        "A second CLIP that takes no part in the gradients. It selects the "
                        "best checkpoint and gives the score, so that a picture with a high "
                        "score in the first CLIP alone is not selected. Without it, the "
                        "first CLIP does so on held-out augmentations."
                    ),
                ),
                _patience_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture."),
                LatentSocket.Output(
                    display_name="latent", tooltip="Its latent, for Decode Latent."
                ),
                io.Float.Output(
                    display_name="score",
                    tooltip="Its AugCLIP score on held-out augmentations.",
                ),
                io.String.Output(display_name="report", tooltip="A summary of the run."),
                TraceSocket.Output(
                    display_name="trace", tooltip="The score of each step, for Plot Trace."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        gan: Managed[Gan],
        clip: Managed[ImageTextEncoder],
        target: Target,
        basis: Basis,
        seed: int,
        num_steps: int,
        num_augments: int,
        preset: str,
        selector: Managed[ImageTextEncoder] | None = None,
        patience: int = 0,
    ) -> io.NodeOutput:
        if patience != 0:
            logger.warning("FuseDream: patience is ignored; every run takes all of its steps.")
        recipe = _recipe(preset, num_steps, num_augments)
        starts = min(recipe.optimize.num_starts, len(basis.scores))
        _, views, memory = plan_batches(
            gan, clip, most=starts, augments=recipe.augment.num_augments
        )
        with autograd_scope():
            others = () if selector is None else (selector,)
            generator, encoder, *chooser = use_models(gan, clip, *others, activation_bytes=memory)
            result = optimize(
                generator,
                encoder,
                [target],
                [basis],
                config=recipe.optimize,
                augment=recipe.augment,
                generators=[make_generator(seed, OPTIMIZE_STREAM)],
                selector=chooser[0] if chooser else None,
                clip_batch=views,
                callback=Progress(),
            ).to("cpu")
            image = core_to_image(result.images)
        score = float(result.score.mean[0])
        report = optimize_report(result, target, basis, preset)
        settings = {"seed": seed, "steps": recipe.optimize.num_steps, "preset": preset}
        about = latent_notes(target, clip.name, **settings, augments=recipe.augment.num_augments)
        about |= {"score": f"{score:.4f}"}
        latent = GanLatent(result.latent, basis.gan_id, about, (image.shape[1], image.shape[2]))
        what = SCORE_NAMES[recipe.optimize.objective]
        trace = Trace(tuple(result.trace[:, 0].tolist()), what, target.prompt)
        return io.NodeOutput(image, latent, score, report, trace)


def _recipe(preset: str, num_steps: int, num_augments: int) -> Recipe:
    """Return a preset with the numbers of the widgets."""
    recipe = chosen(PRESETS, preset, "preset")
    if num_steps != AS_PRESET:
        recipe = replace(recipe, optimize=replace(recipe.optimize, num_steps=num_steps))
    if num_augments != AS_PRESET:
        recipe = replace(recipe, augment=replace(recipe.augment, num_augments=num_augments))
    return recipe


def _patience_input() -> io.Int.Input:
    """Return an input without effect; saved workflows and API prompts have a value for it."""
    entry = io.Int.Input(
        "patience",
        default=0,
        min=0,
        max=19,
        optional=True,
        tooltip="Has no effect. It is kept so that old workflows load; leave it at 0.",
    )
    entry.extra_dict["advanced"] = True  # ComfyUI 0.3.75 has no argument for it
    return entry
