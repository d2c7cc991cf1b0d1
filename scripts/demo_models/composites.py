"""Composites as the pack makes them: one scene scaled into a box of another, and blended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fusedream_core.compose.placement import Box, Placement, box_masks
from fusedream_core.compose.placement import place as place_in_box
from fusedream_core.compose.poisson import blend
from gan_quality import Draw
from scenes import UNKNOWN, Layer, SceneMaker, Scenes, dominant_color
from world import NUM_FACTORS, SHIFT, Z_DIM, Renderer, factors_from_z, sample_z

BLENDS = (("none", 1.0), ("feather", 1.0), ("poisson", 1.0), ("poisson", 0.6), ("mixed", 1.0))


def draw_placement(generator: torch.Generator) -> Placement:
    """A place by a border or in a corner, or now and then anywhere; scales about the paper's."""
    scale, x, y, free = torch.rand(4, generator=generator).tolist()
    if free > 0.3:
        x, y = round(2 * x) / 2, round(2 * y) / 2
    return Placement(0.4 + 0.3 * scale, x, y)


@dataclass
class Part:
    """Pictures of single objects that are to be composed.

    Attributes:
        images: In [-1, 1], shape ``(B, 3, size, size)``.
        classes: Shape ``(B,)``.
        layer: The objects without their backgrounds.
        background: Words of the backgrounds, indices into BACKGROUNDS, shape ``(B,)``.
    """

    images: Tensor
    classes: Tensor
    layer: Layer
    background: Tensor


def compose(front: Part, back: Part, placement: Placement, generator: torch.Generator) -> Scenes:
    """The front pictures scaled into a box of the back ones and blended, all in one way.

    Colours are those after blending.
    """
    size = back.images.shape[-1]
    box = placement.box(size, size)
    mode, strength = BLENDS[torch.randint(len(BLENDS), (), generator=generator)]
    boxes, mask = [box] * len(back.images), box_masks([box], size, size)
    source = place_in_box(front.images, boxes, size, size)
    images = blend(source, back.images, box, mode=mode, strength=strength).clamp(-1, 1)
    alpha = place_in_box(front.layer.alpha.expand(-1, 3, -1, -1), boxes, size, size)[:, :1]
    uncovered = torch.zeros(1)
    (seen, center), (seen_back, center_back) = front.layer.seen(uncovered), back.layer.seen(mask)
    masks = (alpha, back.layer.alpha * (1 - mask))
    center = _inside(center, box, size)
    return Scenes(
        images=images,
        objects=torch.stack([front.classes, back.classes], 1),
        colors=torch.stack([dominant_color((images + 1) / 2, part) for part in masks], 1),
        background=back.background,
        side=side_of(center, center_back),
        front=back.layer.seen(uncovered)[0] - seen_back > 0.08,
        visible=torch.stack([seen, seen_back], 1),
        boxes=torch.stack([_inside(front.layer.boxes(), box, size), back.layer.boxes()], 1),
        centers=torch.stack([center, center_back], 1),
    )


def composed(maker: SceneMaker, classes: Tensor, generator: torch.Generator) -> Scenes:
    """Composites of ``(B, 2)`` classes at one placement: the first object is pasted.

    The second stands in the middle or, in two of three pictures, out of the box's way.
    """
    num, placement = len(classes), draw_placement(generator)

    def rand(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=generator)

    def part(names: Tensor, shift: Tensor, scale: Tensor) -> Part:
        scenes, layer = maker.single_at(names, shift, scale, generator)
        return Part(scenes.images, names, layer, scenes.background)

    away = torch.tensor([1 - 2 * placement.x, 1 - 2 * placement.y])
    aside = torch.where(rand(0, 1) < 0.67, rand(0.1, 0.42), torch.zeros(num))
    shift = rand(-0.12, 0.12, 2) + aside[:, None] * away
    back = part(classes[:, 1], shift, rand(0.72, 0.95) - 0.6 * aside)
    front = part(classes[:, 0], rand(-0.08, 0.08, 2), rand(0.68, 0.95))
    return compose(front, back, placement, generator)


def generated(
    draw: Draw, renderer: Renderer, classes: Tensor, generator: torch.Generator, dim: int = Z_DIM
) -> Scenes:
    """Composites of a generator's pictures, ``(B, 2)`` classes, as :func:`composed` makes them.

    Where its objects are is known from the world that it learned.
    """
    placement = draw_placement(generator)
    away = torch.tensor([1 - 2 * placement.x, 1 - 2 * placement.y])
    parts = []
    for column, pull in ((0, 0.0), (1, 1.6)):
        z, names = 0.8 * sample_z(len(classes), generator, dim), classes[:, column]
        aside = pull * away * (torch.rand(len(z), 1, generator=generator) < 0.67)
        z.unflatten(1, (-1, NUM_FACTORS))[..., SHIFT] += (
            aside[:, None] / (dim // NUM_FACTORS) ** 0.5
        )
        z = z.clamp(-2, 2)
        with torch.no_grad():
            images = draw(z, names).clamp(-1, 1)
        _, alpha = renderer(names, factors_from_z(z))
        pixels = torch.cat([(images + 1) / 2 * alpha, alpha], 1)
        color = dominant_color((images + 1) / 2, alpha)
        layer = Layer(pixels, color, alpha.flatten(1).sum(1))
        parts.append(Part(images, names, layer, torch.full_like(names, UNKNOWN)))
    return compose(parts[0], parts[1], placement, generator)


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
