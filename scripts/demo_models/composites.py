"""Composites as the pack makes them: one scene scaled into a box of another, and blended."""

from __future__ import annotations

import torch
from torch import Tensor

from fusedream_core.placement import Box, Placement, box_masks
from fusedream_core.placement import place as place_in_box
from fusedream_core.poisson import blend
from scenes import UNKNOWN, SceneMaker, Scenes, dominant_color

BLENDS = (("none", 1.0), ("feather", 1.0), ("poisson", 1.0), ("poisson", 0.6), ("mixed", 1.0))


def draw_placement(generator: torch.Generator) -> Placement:
    """A place by a border or in a corner, or now and then anywhere; scales about the paper's."""
    scale, x, y, free = torch.rand(4, generator=generator).tolist()
    if free > 0.3:
        x, y = round(2 * x) / 2, round(2 * y) / 2
    return Placement(0.4 + 0.3 * scale, x, y)


def composed(maker: SceneMaker, classes: Tensor, generator: torch.Generator) -> Scenes:
    """Composites of ``(B, 2)`` classes at one placement: the first object is pasted.

    The second stands in the middle or, in two of three pictures, out of the box's way. Colours are
    those after blending.
    """
    num, size, placement = len(classes), maker.size, draw_placement(generator)

    def rand(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=generator)

    away = torch.tensor([1 - 2 * placement.x, 1 - 2 * placement.y])
    aside = torch.where(rand(0, 1) < 0.67, rand(0.1, 0.42), torch.zeros(num))
    back, back_layer = maker.single_at(
        classes[:, 1],
        rand(-0.12, 0.12, 2) + aside[:, None] * away,
        rand(0.72, 0.95) - 0.6 * aside,
        generator,
    )
    front, front_layer = maker.single_at(
        classes[:, 0], rand(-0.08, 0.08, 2), rand(0.68, 0.95), generator
    )
    box = placement.box(size, size)
    mode, strength = BLENDS[torch.randint(len(BLENDS), (), generator=generator)]
    boxes, mask = [box] * num, box_masks([box], size, size)
    source = place_in_box(front.images, boxes, size, size)
    images = blend(source, back.images, box, mode=mode, strength=strength).clamp(-1, 1)
    alpha = place_in_box(front_layer.alpha.expand(-1, 3, -1, -1), boxes, size, size)[:, :1]
    share, center = back_layer.seen(mask)
    masks = (alpha, back_layer.alpha * (1 - mask))
    colors = [dominant_color((images + 1) / 2, part) for part in masks]
    pasted_at = _inside(front.centers[:, 0], box, size)
    return Scenes(
        images=images,
        objects=classes,
        colors=torch.stack(colors, 1),
        background=back.background,
        side=side_of(pasted_at, center),
        front=back_layer.seen(torch.zeros(1))[0] - share > 0.08,
        visible=torch.stack([front.visible[:, 0], share], 1),
        boxes=torch.stack([_inside(front.boxes[:, 0], box, size), back.boxes[:, 0]], 1),
        centers=torch.stack([pasted_at, center], 1),
    )


def side_of(one: Tensor, other: Tensor) -> Tensor:
    """On which side of the others things are, both ``(B, 2)`` shares: as in ``Scenes.side``.

    UNKNOWN where both are at nearly the same place.
    """
    x, y = (one - other).unbind(1)
    side = torch.where(x.abs() > y.abs(), (x > 0).long(), 2 + (y > 0).long())
    return side.masked_fill(torch.maximum(x.abs(), y.abs()) < 0.12, UNKNOWN)


def _inside(points: Tensor, box: Box, size: int) -> Tensor:
    """Columns and rows ``(B, 2 n)``, shares of a picture, where they are after it is pasted."""
    corner = torch.tensor([box.left, box.top] * (points.shape[1] // 2)) / size
    extent = torch.tensor([box.width, box.height] * (points.shape[1] // 2)) / size
    return corner + extent * points
