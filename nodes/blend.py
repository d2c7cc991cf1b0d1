"""The node that blends any picture into any other; no GAN takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..fusedream_core.compose import poisson
from ..fusedream_core.compose.placement import POSITIONS, Box, Placement, box_masks, place
from ..fusedream_core.errors import ImageError, ShapeError
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
        background: Tensor,
        foreground: Tensor,
        position: str,
        scale: float,
        blend: BlendMode,
        blend_strength: float,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        with autograd_scope(), torch.no_grad():
            back = image_to_core(background, "background")
            front, alpha = cutout_to_core(foreground, "foreground")
            front = front.to(back.device)
            region, boxes = _find_place(front, back, mask, position, scale)
            tensors = {"foreground": front, "background": back, "mask": region}
            num = _common_batch(tensors)
            front, back, region = (t.expand(num, -1, -1, -1) for t in tensors.values())
            if alpha is not None:
                alpha = alpha.to(back.device).expand(num, -1, -1, -1)
            boxes = boxes * (num // len(boxes))
            region = (region * box_masks(boxes, *back.shape[-2:])).to(back.device)
            images, masks = _blend_each(front, alpha, back, region, boxes, blend, blend_strength)
            return io.NodeOutput(images, masks)


def _find_place(
    front: Tensor, back: Tensor, mask: Tensor | None, position: str, scale: float
) -> tuple[Tensor, list[Box]]:
    """Where the foreground shows, masks ``(B, 1, H, W)`` on the CPU; and the box that it fills.

    A mask of the background's size says both; one of the foreground's size is placed like it.
    """
    size, own = tuple(back.shape[-2:]), tuple(front.shape[-2:])
    placed = mask is None or (isinstance(mask, torch.Tensor) and size != mask.shape[-2:] == own)
    if not placed:
        region = mask_to_core(mask, *size).cpu()
        return region, _bounding_boxes(region)
    box = Placement.named(position, scale).box(*size, own[1] / own[0])
    if mask is None:
        return box_masks([box], *size), [box]
    shown = mask_to_core(mask, *own).cpu().expand(-1, 3, -1, -1)
    return place(shown, [box] * len(shown), *size)[:, :1], [box]


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
    alpha: Tensor | None,
    back: Tensor,
    region: Tensor,
    boxes: Sequence[Box],
    mode: BlendMode,
    strength: float,
) -> tuple[Tensor, Tensor]:
    """The IMAGE of each foreground in its own box of its background, and the MASK of what shows.

    One after the other, which bounds the memory; Cancel acts between two of them.
    """
    from comfy.model_management import throw_exception_if_processing_interrupted

    solved = mode in ("poisson", "mixed")
    solver: poisson.PoissonSolver | None = None
    images, masks = [], []
    for index, box in enumerate(boxes):
        throw_exception_if_processing_interrupted()
        one = slice(index, index + 1)
        if solved and (solver is None or solver.box != box):
            solver = poisson.make_solver(box, back)
        own = None if alpha is None else alpha[one]
        blended, covered = poisson.blend_cutout(
            front[one], own, back[one], box, mode=mode, strength=strength, solver=solver
        )
        images.append(core_to_image(torch.lerp(back[one], blended, region[one])))
        masks.append(core_to_mask(covered * region[one]))
    return torch.cat(images), torch.cat(masks)


def _picture_inputs() -> list[io.Input]:
    """The background first: it is what a bypassed node hands on."""
    return [
        io.Image.Input(
            "background",
            tooltip=(
                "What it is pasted on, of any size. One picture serves for a whole batch of "
                "foregrounds. Bypassed, the node hands this on."
            ),
        ),
        io.Image.Input(
            "foreground",
            tooltip=(
                "What is pasted, of any size; where its alpha is 0 the background stays. One "
                "picture serves for a whole batch of backgrounds."
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
                "Where the foreground goes; ignored where a mask of the background's size is "
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
                "Its largest size, as a share of the background's sides; its aspect is kept. "
                "Ignored where a mask of the background's size is connected."
            ),
        ),
    ]


def _mask_input() -> io.Input:
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip=(
            "Of the background's size: the foreground is stretched to the box around what is "
            "above 0.5 and shows through the mask only. Of the foreground's size: what of it "
            "shows. If both have one size, it is the background's. Blending knows rectangles: it "
            "hides the border of the box, not a mask's own outline inside it, so a rectangular "
            "mask works best. Alpha of the foreground counts as well."
        ),
    )
