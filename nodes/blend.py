"""The node that blends any picture into any other; no GAN takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..fusedream_core import poisson
from ..fusedream_core.errors import ImageError, ShapeError
from ..fusedream_core.placement import POSITIONS, Box, Placement, box_masks, place
from ._boundary import autograd_scope, core_to_image, core_to_mask, image_to_core, mask_to_core
from ._node import Node
from ._types import blend_inputs, make_schema

if TYPE_CHECKING:
    from torch import Tensor

    from ..fusedream_core.config import BlendMode


class FuseDreamPoissonBlend(Node):
    """Pastes one picture into another and hides the seam."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamPoissonBlend",
            display_name="Poisson Blend (FuseDream)",
            description=(
                "Pastes any picture into any other and hides the seam: its colours are fitted to "
                "what surrounds it by an exact solution of Poisson's equation. Batches of any "
                "size; needs no GAN and no other package."
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
                io.Image.Output(display_name="image", tooltip="The background with it in."),
                io.Mask.Output(
                    display_name="mask", tooltip="White where the foreground was pasted."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        foreground: Tensor,
        background: Tensor,
        position: str,
        scale: float,
        blend: BlendMode,
        blend_strength: float,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        with autograd_scope(), torch.no_grad():
            back = image_to_core(background, "background")
            front = image_to_core(foreground, "foreground").to(back.device)
            height, width = back.shape[-2:]
            if mask is None:
                placement = Placement.named(position, scale)
                boxes = [placement.box(height, width, front.shape[-1] / front.shape[-2])]
                region = box_masks(boxes, height, width)
            else:
                region = mask_to_core(mask, height, width).cpu()  # where boxes are found
                boxes = _bounding_boxes(region)
            num = _common_batch({"foreground": front, "background": back, "mask": region})
            front, back, region = (
                tensor.expand(num, -1, -1, -1) for tensor in (front, back, region)
            )
            boxes = boxes * (num // len(boxes))
            region = (region * box_masks(boxes, height, width)).to(back.device)
            images = _blend_each(front, back, region, boxes, blend, blend_strength)
            return io.NodeOutput(images, core_to_mask(region))


def _bounding_boxes(masks: Tensor) -> list[Box]:
    """The smallest box around what is above 0.5, for each mask ``(B, 1, H, W)``."""
    boxes = []
    for number, covered in enumerate(masks[:, 0] > 0.5, start=1):
        rows, columns = (covered.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
        if not rows:
            raise ImageError(
                f"Mask {number} of the batch has nothing above 0.5; paint white where the "
                "foreground is to go, or disconnect the mask."
            )
        top, left = rows[0], columns[0]
        boxes.append(Box(top, left, rows[-1] + 1 - top, columns[-1] + 1 - left))
    return boxes


def _common_batch(batches: Mapping[str, Tensor]) -> int:
    """The number of pictures that all batches have, or those that have more than one."""
    num = max(map(len, batches.values()))
    if any(len(batch) not in (1, num) for batch in batches.values()):
        counts = ", ".join(f"{name} {len(batch)}" for name, batch in batches.items())
        raise ShapeError(
            f"The batches differ in length ({counts}); give as many of each, or one, which then "
            "serves for all."
        )
    return num


def _blend_each(
    front: Tensor,
    back: Tensor,
    region: Tensor,
    boxes: Sequence[Box],
    mode: BlendMode,
    strength: float,
) -> Tensor:
    """The IMAGE of each foreground in its own box of its background, where its mask shows it.

    One after the other, which bounds the memory; Cancel acts between two of them.
    """
    from comfy.model_management import throw_exception_if_processing_interrupted

    solved = mode in ("poisson", "mixed")
    solver: poisson.PoissonSolver | None = None
    images = []
    for index, box in enumerate(boxes):
        throw_exception_if_processing_interrupted()
        one = slice(index, index + 1)
        layer = place(front[one], [box], *back.shape[-2:])
        if solved and (solver is None or solver.box != box):
            solver = poisson.make_solver(box, back)
        blended = poisson.blend(layer, back[one], box, mode=mode, strength=strength, solver=solver)
        images.append(core_to_image(torch.lerp(back[one], blended, region[one])))
    return torch.cat(images)


def _picture_inputs() -> list[io.Input]:
    return [
        io.Image.Input(
            "foreground",
            tooltip=(
                "What is pasted, of any size; alpha is laid on white. One picture serves for a "
                "whole batch of backgrounds."
            ),
        ),
        io.Image.Input(
            "background",
            tooltip=(
                "What it is pasted on, of any size. One picture serves for a whole batch of "
                "foregrounds."
            ),
        ),
    ]


def _place_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "position",
            options=list(POSITIONS),
            default="center",
            tooltip="Where the foreground goes; ignored where a mask is connected.",
        ),
        io.Float.Input(
            "scale",
            default=0.5,
            min=0.01,
            max=1.0,
            step=0.05,
            tooltip=(
                "Its largest size, as a share of the background's sides; its aspect is kept. "
                "Ignored where a mask is connected."
            ),
        ),
    ]


def _mask_input() -> io.Input:
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip=(
            "Of the background's size: the foreground is stretched to the box around what is "
            "above 0.5 and shows through the mask only. Blending knows rectangles: it hides "
            "the border of that box, not a mask's own outline inside it, so a rectangular "
            "mask works best."
        ),
    )
