"""The node that blends any image into any other, without a GAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..fusedream_core.compose.blend_batch import blend_batch
from ..fusedream_core.compose.placement import POSITIONS, Placement
from ._boundary import (
    autograd_scope,
    core_to_image,
    core_to_mask,
    cutout_to_core,
    image_to_core,
    mask_to_core,
)
from ._node import Node
from ._types import blend_inputs, make_schema

if TYPE_CHECKING:
    from torch import Tensor

    from ..fusedream_core.config import BlendMode


class FuseDreamPoissonBlend(Node):
    """Pastes one image into another and hides the seam."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamPoissonBlend",
            display_name="Poisson Blend (FuseDream)",
            description=(
                "Pastes any picture into any other and hides the seam: an exact solution of "
                "Poisson's equation fits its colours to the surroundings. It takes batches "
                "of any size, and needs no GAN and no other package."
            ),
            search_aliases=[
                "FuseDream",
                "seamless clone",
                "poisson",
                "blend",
                "paste",
                "composite",
            ],
            inputs=[*_picture_inputs(), *_place_inputs(), *blend_inputs(), _mask_input()],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The background with the foreground in it."
                ),
                io.Mask.Output(
                    display_name="mask", tooltip="White where the foreground was pasted."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        background: Tensor,
        foreground: Tensor,
        position: str,
        scale: float,
        blend: BlendMode,
        blend_strength: float,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        from comfy.model_management import throw_exception_if_processing_interrupted

        images, masks = [], []
        with autograd_scope(), torch.no_grad():
            back = image_to_core(background, "background")
            front, alpha = cutout_to_core(foreground, "foreground")
            fits_front = getattr(mask, "shape", ())[-2:] == front.shape[-2:]
            size = (front if fits_front else back).shape[-2:]
            for image, shown in blend_batch(
                front,
                back,
                Placement.named(position, scale),
                alpha=alpha,
                mask=None if mask is None else mask_to_core(mask, *size),
                mode=blend,
                strength=blend_strength,
            ):
                throw_exception_if_processing_interrupted()
                images.append(core_to_image(image))
                masks.append(core_to_mask(shown))
            return io.NodeOutput(torch.cat(images), torch.cat(masks))


def _picture_inputs() -> list[io.Input]:
    """Return both images; the background is first, so that a bypassed node returns it."""
    return [
        io.Image.Input(
            "background",
            tooltip=(
                "The picture to paste on, of any size. One picture serves for a whole batch "
                "of foregrounds. If the node is bypassed, this is its output."
            ),
        ),
        io.Image.Input(
            "foreground",
            tooltip=(
                "The picture to paste, of any size; where its alpha is 0 the background "
                "stays. One picture serves for a whole batch of backgrounds."
            ),
        ),
    ]


def _place_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "position",
            options=list(POSITIONS),
            default="center",
            tooltip=(
                "Where the foreground goes. Ignored if a mask of the background's size is "
                "connected."
            ),
        ),
        io.Float.Input(
            "scale",
            default=0.5,
            min=0.01,
            max=1.0,
            step=0.05,
            tooltip=(
                "Largest size of the foreground, as a share of the background's sides; its "
                "aspect ratio is kept. Ignored if a mask of the background's size is "
                "connected."
            ),
        ),
    ]


def _mask_input() -> io.Input:
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip=(
            "Of the background's size: the foreground is stretched to the box around all "
            "values above 0.5 and shows through the mask only. Of the foreground's size: the "
            "part of it that shows. If both have one size, it is the background's. Only the "
            "border of the box is blended, not the outline of a mask inside it, so a "
            "rectangular mask works best. The alpha of the foreground applies as well."
        ),
    )
