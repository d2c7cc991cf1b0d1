"""Poisson blending of batches: one foreground or many, in a named place or in a mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..config import BlendMode
from ..errors import ImageError, ShapeError
from . import poisson
from .placement import Box, Placement, box_masks, place


def blend_batch(
    foreground: Tensor,
    background: Tensor,
    placement: Placement,
    *,
    alpha: Tensor | None = None,
    mask: Tensor | None = None,
    mode: BlendMode,
    strength: float = 1.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each foreground blended into its background, and the mask of what shows of it.

    One pair at a time bounds the memory. Any batch may have length 1 and then serves for all.

    Args:
        foreground: Images, shape ``(B, 3, h, w)``, in ``[-1, 1]``, on any device.
        background: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``; the work is done on its device.
        placement: Size and place of the foreground; its aspect is kept. Ignored where a mask has
            the background's size.
        alpha: Opacity of the foreground, shape ``(B, 1, h, w)``, in ``[0, 1]``; None means opaque.
        mask: Where the foreground shows, shape ``(B, 1, *, *)``, in ``[0, 1]``. With the
            background's size it also says the place: the box around all values above 0.5. With the
            foreground's size it is placed like the foreground.
        mode: How the seam is blended, as for :func:`.poisson.blend`.
        strength: From 0, the plain paste, to 1, the blended image.

    Yields:
        An image ``(1, 3, H, W)`` and a mask ``(1, 1, H, W)`` in ``[0, 1]``.

    Raises:
        ShapeError: If the batches differ in length, or the mask has neither size.
        ImageError: If a mask of the background's size has nothing above 0.5.
        ConfigError: As for :func:`.poisson.blend`.
    """
    region, boxes = _find_place(foreground, background, placement, mask)
    batches = {"foreground": foreground, "background": background, "mask": region}
    num = _common_length(batches)
    front, back, region = (batch.expand(num, -1, -1, -1) for batch in batches.values())
    if alpha is not None:
        alpha = alpha.to(back.device).expand(num, -1, -1, -1)
    boxes = boxes * (num // len(boxes))
    region = (region * box_masks(boxes, *back.shape[-2:])).to(back.device)
    return _blend_each(front.to(back.device), alpha, back, region, boxes, mode, strength)


def _blend_each(
    front: Tensor,
    alpha: Tensor | None,
    back: Tensor,
    region: Tensor,
    boxes: Sequence[Box],
    mode: BlendMode,
    strength: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs of :func:`blend_batch`; neighbours with the same box share a solver."""
    solver: poisson.PoissonSolver | None = None
    for index, box in enumerate(boxes):
        one = slice(index, index + 1)
        if mode in ("poisson", "mixed") and (solver is None or solver.box != box):
            solver = poisson.make_solver(box, back)
        blended, covered = poisson.blend_cutout(
            front[one],
            None if alpha is None else alpha[one],
            back[one],
            box,
            mode=mode,
            strength=strength,
            solver=solver,
        )
        yield torch.lerp(back[one], blended, region[one]), covered * region[one]


def _find_place(
    front: Tensor, back: Tensor, placement: Placement, mask: Tensor | None
) -> tuple[Tensor, list[Box]]:
    """The region where the foreground shows, ``(B, 1, H, W)`` on the CPU, and its boxes."""
    size, own = back.shape[-2:], front.shape[-2:]
    if mask is not None and mask.shape[-2:] == size:
        region = mask.cpu()
        return region, _bounding_boxes(region)
    height, width = size
    box = placement.box(height, width, own[1] / own[0])
    if mask is None:
        return box_masks([box], height, width), [box]
    if mask.shape[-2:] != own:
        raise ShapeError(
            f"The mask has the size {tuple(mask.shape[-2:])}, but the background has {tuple(size)} "
            f"and the foreground {tuple(own)}; resize the mask to one of them."
        )
    shown = mask.cpu().expand(-1, 3, -1, -1)
    return place(shown, [box] * len(shown), height, width)[:, :1], [box]


def _bounding_boxes(masks: Tensor) -> list[Box]:
    """The smallest box around all values above 0.5, for each mask ``(B, 1, H, W)``."""
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


def _common_length(batches: Mapping[str, Tensor]) -> int:
    """The length that all batches have, apart from those of length 1."""
    num = max(map(len, batches.values()))
    if any(len(batch) not in (1, num) for batch in batches.values()):
        counts = ", ".join(f"{name} {len(batch)}" for name, batch in batches.items())
        raise ShapeError(
            f"The batches differ in length ({counts}); give as many of each, or one, which then "
            "serves for all."
        )
    return num
