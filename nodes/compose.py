"""The node that composes two images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from comfy_api.latest import io

from ..fusedream_core.compose import compose
from ..fusedream_core.compose.placement import POSITIONS, SCALES, all_placements
from ..fusedream_core.config import PAPER_COMPOSITION, ComposeConfig, CompositionRecipe, Consistency
from ..fusedream_core.optimize.latent_file import GanLatent
from ..fusedream_core.pipeline.generate import OPTIMIZE_STREAM
from ..fusedream_core.rng import make_generator
from ._boundary import Progress, autograd_scope, core_to_image, core_to_mask
from ._models import Managed, plan_batches, use_models
from ._node import Node
from ._report import compose_report, latent_notes
from ._types import (
    AS_PRESET,
    PRESETS,
    BasisSocket,
    ClipSocket,
    GanSocket,
    LatentSocket,
    LpipsSocket,
    TargetSocket,
    blend_inputs,
    chosen,
    make_schema,
    seed_input,
)

if TYPE_CHECKING:
    from ..fusedream_core.compose import ComposeResult
    from ..fusedream_core.compose.placement import Placement
    from ..fusedream_core.config import AugmentConfig, BlendMode
    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.models.gan.base import Gan
    from ..fusedream_core.models.lpips import Perceptual
    from ..fusedream_core.types import Basis, Target

COMPOSE_PRESETS = {"default": ComposeConfig(), "paper": PAPER_COMPOSITION}
_AUGMENTS = {"default": CompositionRecipe().augment, "paper": PRESETS["paper"].augment}
ANYWHERE = "auto"

_D = COMPOSE_PRESETS["default"]
_PAPER = COMPOSE_PRESETS["paper"]
_SEARCH = CompositionRecipe().search
_HOW_TO_SEARCH = (
    f"Search with num_basis {_SEARCH.num_basis}, max_per_class {_SEARCH.max_per_class}, so "
    "that the basis has several pictures of each class."
)
_AUTO_SCALES = " and ".join(f"{scale:g}" for scale in SCALES)


class FuseDreamCompose(Node):
    """Optimises a foreground and a background together, at the best placement."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamCompose",
            display_name="Compose (FuseDream)",
            description=(
                "Makes one picture of two. It pastes a scaled foreground on a background and "
                "optimises both together, at the size and place with the best AugCLIP score. "
                "Where they meet, their perceptual distance is reduced as far as that costs "
                "no score. For prompts with two objects, which a single picture of a GAN "
                "cannot show."
            ),
            search_aliases=["FuseDream", "composition", "two objects", "text to image", "paste"],
            inputs=[*_socket_inputs(), *_place_inputs(), *_recipe_inputs(), *_optional_inputs()],
            outputs=[
                io.Image.Output(display_name="composite", tooltip="The composite."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="White where the foreground was pasted, as for inpainting nodes.",
                ),
                io.Image.Output(
                    display_name="foreground", tooltip="The pasted picture, before it is scaled."
                ),
                io.Image.Output(
                    display_name="background", tooltip="The picture that it is pasted on."
                ),
                LatentSocket.Output(
                    display_name="latent",
                    tooltip="The latents of foreground and background, for Decode Latent.",
                ),
                io.Float.Output(
                    display_name="score",
                    tooltip="AugCLIP score of the composite on held-out augmentations.",
                ),
                io.String.Output(
                    display_name="placement", tooltip="Position and scale of the foreground."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip=(
                        "The placements that were tried, their scores, and a summary of the run."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        gan: Managed[Gan],
        clip: Managed[ImageTextEncoder],
        target: Target,
        foreground: Basis,
        background: Basis,
        seed: int,
        scale: float,
        position: str,
        num_steps: int,
        num_augments: int,
        preset: str,
        consistency: Consistency,
        blend: BlendMode,
        blend_strength: float,
        lpips: Managed[Perceptual] | None = None,
        foreground_target: Target | None = None,
        background_target: Target | None = None,
    ) -> io.NodeOutput:
        config = _config(preset, num_steps, consistency, blend, blend_strength)
        augment = _augment(preset, num_augments)
        placements = _placements(scale, position)
        handles = (gan, clip, lpips if consistency != "none" else None)
        parts = (foreground_target, background_target)
        most = config.batch_size_on(gan.patcher.load_device)
        num, views, memory = plan_batches(
            gan,
            clip,
            handles[2],
            most=min(most, len(placements)),
            images=2,
            augments=augment.num_augments,
            graphs=1 + sum(part is not None for part in parts),
        )
        with autograd_scope():
            generator, encoder, *distance = use_models(
                *filter(None, handles), activation_bytes=memory
            )
            (result,) = compose(
                generator,
                encoder,
                [target],
                [foreground],
                [background],
                config=replace(config, batch_size=num),
                augment=augment,
                generators=[make_generator(seed, OPTIMIZE_STREAM)],
                placements=placements,
                perceptual=distance[0] if distance else None,
                foreground_targets=[foreground_target],
                background_targets=[background_target],
                clip_batch=views,
                callback=Progress(),
            )
            result = result.to("cpu")
        report = compose_report(result, target, config, preset)
        settings = {"seed": seed, "steps": config.optimize.num_steps, "preset": preset}
        about = latent_notes(target, clip.name, **settings, place=result.placement.name)
        height, width = result.images.shape[-2:]
        latent = GanLatent(result.latent, foreground.gan_id, about, (height, width))
        return _output(result, latent, report)


def _output(result: ComposeResult, latent: GanLatent, report: str) -> io.NodeOutput:
    """Return a composition as the node's outputs."""
    return io.NodeOutput(
        core_to_image(result.images),
        core_to_mask(result.mask),
        core_to_image(result.foreground),
        core_to_image(result.background),
        latent,
        float(result.score.mean[0]),
        result.placement.name,
        report,
    )


def _config(
    preset: str, num_steps: int, consistency: Consistency, blend: BlendMode, strength: float
) -> ComposeConfig:
    """Return a preset with the values of the widgets."""
    config = chosen(COMPOSE_PRESETS, preset, "preset")
    if num_steps != AS_PRESET:
        config = replace(config, optimize=replace(config.optimize, num_steps=num_steps))
    return replace(config, consistency=consistency, blend=blend, blend_strength=strength)


def _augment(preset: str, num_augments: int) -> AugmentConfig:
    """Return the preset's augmentations, with the number of the widget."""
    augment = chosen(_AUGMENTS, preset, "preset")
    return augment if num_augments == AS_PRESET else replace(augment, num_augments=num_augments)


def _placements(scale: float, position: str) -> tuple[Placement, ...]:
    """Return the placements to try."""
    scales = (scale,) if scale > 0 else SCALES
    return all_placements(scales, tuple(POSITIONS) if position == ANYWHERE else (position,))


def _socket_inputs() -> list[io.Input]:
    return [
        GanSocket.Input("gan", tooltip="The GAN that both bases were searched with."),
        ClipSocket.Input("clip", tooltip="The CLIP that the prompt was encoded with."),
        TargetSocket.Input("target", tooltip="The prompt for the composite."),
        BasisSocket.Input(
            "foreground",
            tooltip=f"From Seed Search: the start of the pasted picture. {_HOW_TO_SEARCH}",
        ),
        BasisSocket.Input(
            "background",
            tooltip=(
                f"From Seed Search: the start of the background. {_HOW_TO_SEARCH} The same "
                "basis may serve for both, as in the paper."
            ),
        ),
    ]


def _place_inputs() -> list[io.Input]:
    return [
        seed_input(
            "Which random augmentations are drawn. A change of this seed alone gives a "
            "variation without a new search."
        ),
        io.Float.Input(
            "scale",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip=(
                "Size of the foreground as a share of the background's sides. 0: automatic, "
                f"{_AUTO_SCALES} are tried."
            ),
        ),
        io.Combo.Input(
            "position",
            options=[ANYWHERE, *POSITIONS],
            default=ANYWHERE,
            tooltip=(
                "Where the foreground goes. auto: all nine places are tried, and those with "
                "low scores are dropped early. A fixed place is faster."
            ),
        ),
    ]


def _recipe_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "num_steps",
            default=_D.optimize.num_steps,
            min=AS_PRESET,
            max=10_000,
            tooltip=(
                "Optimisation steps of the last remaining placement; run time grows with "
                f"them. -1: the number of the preset (paper: {_PAPER.optimize.num_steps})."
            ),
        ),
        io.Int.Input(
            "num_augments",
            default=_AUGMENTS["default"].num_augments,
            min=AS_PRESET,
            max=512,
            tooltip=(
                "Augmented views that CLIP encodes per step. More give a steadier gradient, "
                "but take more time and memory. -1: the number of the preset (paper: "
                f"{_AUGMENTS['paper'].num_augments})."
            ),
        ),
        io.Combo.Input(
            "preset",
            options=list(COMPOSE_PRESETS),
            default="default",
            tooltip=(
                "How placements are selected. default: by successive halving, which drops "
                "the worse ones during the run. paper: all are optimised to the end, about "
                "ten times the work, and blended after the last step. The widgets below "
                f"apply to both presets; the values of the paper are {_PAPER.consistency}, "
                f"{_PAPER.blend} and {_PAPER.blend_strength:g}."
            ),
        ),
        *_seam_inputs(),
    ]


def _seam_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "consistency",
            options=list(get_args(Consistency)),
            default=_D.consistency,
            tooltip=(
                "Where the LPIPS distance of foreground and background is reduced, as far as "
                "that costs no score. seam: just inside the border of the pasted picture. "
                "patch: in all of its area. whole: everywhere, unscaled. none: nowhere, and "
                "lpips is not needed."
            ),
        ),
        *blend_inputs(),
    ]


def _optional_inputs() -> list[io.Input]:
    return [
        LpipsSocket.Input(
            "lpips",
            optional=True,
            tooltip="From Load LPIPS (FuseDream); needed unless consistency is none.",
        ),
        *(
            TargetSocket.Input(
                f"{part}_target",
                optional=True,
                tooltip=(
                    f"A prompt for the {part} alone, from another Encode Prompt. It has half "
                    "the weight of the composite's prompt. It is not in the paper, and the "
                    "preset paper ignores it."
                ),
            )
            for part in ("foreground", "background")
        ),
    ]
