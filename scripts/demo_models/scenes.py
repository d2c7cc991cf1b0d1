"""Captioned scenes for CLIP and the judge.

A scene holds one or two objects of the small world, and has words for what is in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from world import (
    BOTTOM,
    CHROMA,
    LIGHTNESS,
    NUM_FACTORS,
    SATURATION,
    SHADE,
    TOP,
    background,
    place,
    recolor,
)

COLORS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
)
SYNONYMS = {
    "yellow": ("yellow", "golden"),
    "grey": ("grey", "gray"),
    "purple": ("purple", "violet"),
}
PLACES = ("in the sky", "under water", "at night", "on the grass", "in the snow", "at sunset")
BACKGROUNDS = COLORS + PLACES
UNKNOWN = -1
BLACK, WHITE, GREY = COLORS.index("black"), COLORS.index("white"), COLORS.index("grey")
# Place -> mean colours at the top and at the bottom, RGB in [0, 1]; the words of a place win over
# those of a colour.
PLACE_COLORS = {
    "in the sky": ((0.30, 0.62, 0.90), (0.70, 0.86, 1.00)),
    "under water": ((0.05, 0.62, 0.72), (0.02, 0.22, 0.50)),
    "at night": ((0.03, 0.04, 0.12), (0.12, 0.10, 0.30)),
    "on the grass": ((0.50, 0.80, 0.98), (0.28, 0.66, 0.20)),
    "in the snow": ((0.72, 0.82, 0.90), (0.97, 0.98, 1.00)),
    "at sunset": ((0.95, 0.45, 0.15), (0.98, 0.72, 0.50)),
}


def name_pixels(rgb: Tensor) -> Tensor:
    """Colour word index of every pixel: ``(B, 3, H, W)`` in [0, 1] to ``(B, H, W)`` int64."""
    high, low = rgb.amax(1), rgb.amin(1)
    chroma = high - low
    r, g, b = rgb.unbind(1)
    safe = chroma.clamp_min(1e-4)
    hue = (
        torch.where(
            high == r,
            (g - b) / safe % 6,
            torch.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4),
        )
        * 60
    )
    saturation = chroma / high.clamp_min(1e-4)
    out = torch.zeros_like(hue, dtype=torch.long)  # red
    for name, start in (
        ("orange", 16),
        ("yellow", 43),
        ("green", 68),
        ("blue", 168),
        ("purple", 258),
        ("pink", 300),
        ("red", 342),
    ):
        out[hue >= start] = COLORS.index(name)
    reddish = (hue < 16) | (hue >= 335)
    out[reddish & (saturation < 0.58) & (high > 0.7)] = COLORS.index("pink")
    warm = (hue >= 8) & (hue < 48)
    out[warm & (high < 0.68)] = COLORS.index("brown")
    out[(hue < 16) & (high < 0.5)] = COLORS.index("brown")
    pale = (saturation < 0.16) | (chroma < 0.09)
    out[pale] = GREY
    out[pale & (high > 0.86)] = WHITE
    out[high < 0.2] = BLACK
    return out


def dominant_color(rgb: Tensor, alpha: Tensor, share: float = 0.55) -> Tensor:
    """The colour word that covers at least ``share`` of an object, UNKNOWN where none does.

    Black pixels are outlines and eyes: they count only when they cover that share themselves.

    Args:
        rgb: Pictures in [0, 1], shape ``(B, 3, H, W)``.
        alpha: The object's alpha in [0, 1], shape ``(B, 1, H, W)``.
        share: Of the object's pixels.

    Returns:
        Indices into COLORS, shape ``(B,)``.
    """
    names = name_pixels(F.adaptive_avg_pool2d(rgb, 32))
    inside = F.adaptive_avg_pool2d(alpha, 32)[:, 0] > 0.6
    votes = torch.zeros(len(rgb), len(COLORS))
    votes.scatter_add_(1, names.flatten(1), inside.flatten(1).float())
    black = votes[:, BLACK] / votes.sum(1).clamp_min(1)
    votes[black < share, BLACK] = 0
    part, best = (votes / votes.sum(1, keepdim=True).clamp_min(1)).max(1)
    return torch.where(part >= share, best, UNKNOWN)


def sample_factors(num: int, generator: torch.Generator) -> Tensor:
    """Factors ``(num, NUM_FACTORS)`` of objects.

    40 % of the objects are spread as in the generator's world; the rest are tinted, natural or
    colourless.
    """

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    factors = torch.randn(num, NUM_FACTORS, generator=generator).clamp(-2.2, 2.2) * 0.9
    kind = rand(num)
    angle, radius = 2 * math.pi * rand(num), 1.0 + 1.4 * rand(num)
    tinted = (kind >= 0.4) & (kind < 0.7)
    natural = (kind >= 0.7) & (kind < 0.88)
    plain = kind >= 0.88
    factors[tinted, CHROMA[0]] = (radius * angle.cos())[tinted]
    factors[tinted, CHROMA[1]] = (radius * angle.sin())[tinted]
    factors[tinted, SATURATION] = (2.5 * rand(num) - 2)[tinted]
    for index in (*CHROMA, LIGHTNESS):
        factors[natural, index] *= 0.25
        factors[plain, index] *= 0.3
    factors[natural, SATURATION] = (2 * rand(num))[natural]
    factors[plain, SATURATION] = -2.2
    factors[plain, LIGHTNESS] = (4.4 * rand(num) - 2.2)[plain]
    return factors


def sample_backgrounds(
    factors: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Top and bottom colours ``(B, 3)`` in [0, 1] and the word of the background.

    The word is an index into BACKGROUNDS, ``(B,)``; UNKNOWN for mixed colours.
    """
    num = len(factors)
    top = torch.sigmoid(1.6 * factors[:, TOP])
    bottom = torch.sigmoid(1.6 * (0.75 * factors[:, TOP] + 0.66 * factors[:, BOTTOM]))
    kind = torch.rand(num, generator=generator)
    even = kind < 0.45  # nearly one colour, of an evenly drawn word
    wanted = torch.randint(len(COLORS), (num,), generator=generator)
    candidates = torch.rand(num, 24, 3, generator=generator)
    # The first four are greys, blacks and whites.
    candidates[:, :4] = candidates[:, :4, :1] * 0.95 + 0.04 * candidates[:, :4]
    fits = name_pixels(candidates.permute(0, 2, 1)[..., None])[..., 0] == wanted[:, None]
    chosen = candidates[torch.arange(num), fits.float().argmax(1)]
    top = torch.where(even[:, None], chosen, top)
    drift = 0.06 * torch.randn(num, 3, generator=generator)
    bottom = torch.where(even[:, None], (chosen + drift).clamp(0, 1), bottom)
    names = [
        name_pixels(part[..., None, None])[:, 0, 0] for part in (top, bottom, (top + bottom) / 2)
    ]
    word = torch.where((names[0] == names[1]) & (names[0] == names[2]), names[0], UNKNOWN)
    where = torch.randint(len(PLACES), (num,), generator=generator)
    placed = kind > 0.72
    ranges = torch.tensor([PLACE_COLORS[name] for name in PLACES])[where]
    noise = 0.05 * torch.randn(num, 2, 3, generator=generator)
    colors = (ranges + noise).clamp(0, 1)
    top = torch.where(placed[:, None], colors[:, 0], top)
    bottom = torch.where(placed[:, None], colors[:, 1], bottom)
    return top, bottom, torch.where(placed, len(COLORS) + where, word)


@dataclass
class Scenes:
    """A batch of pictures and what is in them.

    Attributes:
        images: Pictures in [-1, 1], shape ``(B, 3, size, size)``.
        objects: Classes, shape ``(B, 2)``; column 1 is UNKNOWN where there is one object.
        colors: Indices into COLORS, shape ``(B, 2)``; UNKNOWN where no word covers the object.
        background: Indices into BACKGROUNDS, shape ``(B,)``; UNKNOWN where no word fits.
        side: Where the first object lies, shape ``(B,)``: 0 left, 1 right, 2 above, 3 below;
            UNKNOWN where there is one object.
        front: Whether the first object covers some of the second, shape ``(B,)`` bool.
        visible: Share of each object that can be seen, shape ``(B, 2)``; 0 where there is none.
        boxes: Left, top, right and bottom of what of each object lies in the picture, covered or
            not, as shares of the side, shape ``(B, 2, 4)``.
        centers: Where the middle of what can be seen of each object is: column and row as shares of
            the side, shape ``(B, 2, 2)``.
    """

    images: Tensor
    objects: Tensor
    colors: Tensor
    background: Tensor
    side: Tensor
    front: Tensor
    visible: Tensor
    boxes: Tensor
    centers: Tensor

    def pick(self, rows: Tensor) -> Scenes:
        """Some of the scenes, by a mask or by indices."""
        return Scenes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def seen(self, least: float = 0.4) -> Scenes:
        """The same scenes, without second objects of which less than ``least`` can be seen."""
        hidden = self.visible[:, 1] < least
        gone = torch.stack([torch.zeros_like(hidden), hidden], 1)
        return replace(
            self,
            objects=self.objects.masked_fill(gone, UNKNOWN),
            colors=self.colors.masked_fill(gone, UNKNOWN),
            side=self.side.masked_fill(hidden, UNKNOWN),
            front=self.front & ~hidden,
        )


@dataclass
class Layer:
    """Objects drawn on a transparent canvas.

    Attributes:
        pixels: Premultiplied RGBA in [0, 1], shape ``(B, 4, size, size)``.
        color: The objects' colour words, indices into COLORS, shape ``(B,)``.
        whole: Their area in pixels, inside the canvas or not, shape ``(B,)``.
    """

    pixels: Tensor
    color: Tensor
    whole: Tensor

    @property
    def alpha(self) -> Tensor:
        """``(B, 1, size, size)`` in [0, 1]."""
        return self.pixels[:, 3:]

    def over(self, images: Tensor) -> Tensor:
        """The objects on pictures ``(B, 3, size, size)`` in [0, 1]."""
        return self.pixels[:, :3] + (1 - self.alpha) * images

    def seen(self, cover: Tensor) -> tuple[Tensor, Tensor]:
        """What can be seen of each object under a cover ``(B, 1, size, size)`` in [0, 1].

        Returns:
            The share of it, ``(B,)``, and its centre, column and row as shares, ``(B, 2)``.
        """
        left = (self.alpha * (1 - cover))[:, 0]
        area = left.flatten(1).sum(1)
        axis = (torch.arange(left.shape[-1]) + 0.5) / left.shape[-1]
        center = torch.stack([(left.sum(1) * axis).sum(1), (left.sum(2) * axis).sum(1)], 1)
        share = (area / self.whole.clamp_min(1)).clamp(0, 1)
        return share, center / area.clamp_min(1e-3)[:, None]

    def boxes(self) -> Tensor:
        """Left, top, right and bottom ``(B, 4)`` of what lies on the canvas, shares of its side."""
        size = self.pixels.shape[-1]
        inside, axis = self.alpha[:, 0] > 0.3, torch.arange(size)
        low, high = [], []
        for line in (inside.any(1), inside.any(2)):
            low.append(torch.where(line, axis, size).amin(1))
            high.append(torch.where(line, axis + 1, 0).amax(1))
        return torch.stack([*low, *high], 1) / size


class SceneMaker:
    """Draws scenes from the atlases of some art sets."""

    def __init__(self, atlases: list[Tensor], size: int = 64) -> None:
        # (sets, classes, 4, 128, 128) in [0, 1]
        tiles = torch.stack(atlases).permute(0, 1, 4, 2, 3).float() / 255
        flat = tiles.flatten(0, 1)
        flat[:, :3] *= flat[:, 3:]
        flat = F.interpolate(flat, size=size, mode="area")
        flat[:, :3] /= flat[:, 3:].clamp_min(1e-3)
        self.size = size
        self.num_classes = tiles.shape[1]
        self.exists = (flat[:, 3].flatten(1).sum(1) > 0).view(tiles.shape[:2])
        self.tiles = flat.view(*tiles.shape[:2], 4, size, size)

    def pick_sets(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """A random set ``(B,)`` for each object, among those that have it."""
        return torch.multinomial(self.exists.t()[classes].float(), 1, generator=generator)[:, 0]

    def layer(
        self,
        classes: Tensor,
        factors: Tensor,
        shift: Tensor,
        scale: Tensor,
        generator: torch.Generator,
    ) -> Layer:
        """Objects of ``(B,)`` classes, each of a random set that has it, where they are to be."""
        tiles = self.tiles[self.pick_sets(classes, generator), classes]
        rgb = recolor(
            tiles[:, :3], factors[:, CHROMA], factors[:, LIGHTNESS], factors[:, SATURATION]
        )
        axis = torch.linspace(-1, 1, self.size)
        shade = (
            factors[:, SHADE.start, None, None] * axis
            + factors[:, SHADE.start + 1, None, None] * axis[:, None]
        )
        rgb = (rgb * (1 + 0.08 * shade[:, None])).clamp(0, 1)
        rotation = 0.12 * torch.randn(len(classes), generator=generator)
        tiles = torch.cat([rgb * tiles[:, 3:], tiles[:, 3:]], 1)
        return Layer(
            place(tiles, shift, scale, rotation, self.size),
            dominant_color(rgb, tiles[:, 3:]),
            tiles[:, 3:].flatten(1).sum(1) * scale.square(),
        )

    def single(self, classes: Tensor, generator: torch.Generator) -> Scenes:
        """One object each, of ``(B,)`` classes, anywhere near the middle; smaller ones stand aside.

        A quarter of them are as small as an object that leaves a corner free.
        """
        num = len(classes)
        low = torch.where(torch.rand(num, generator=generator) < 0.25, 0.48, 0.62)
        scale = low + (0.98 - low) * torch.rand(num, generator=generator)
        shift = (torch.rand(num, 2, generator=generator) * 2 - 1) * (1.1 - scale)[:, None] * 0.8
        return self.single_at(classes, shift, scale, generator)[0]

    def single_at(
        self, classes: Tensor, shift: Tensor, scale: Tensor, generator: torch.Generator
    ) -> tuple[Scenes, Layer]:
        """One object each at a place, and the object without its background."""
        factors = sample_factors(len(classes), generator)
        layer = self.layer(classes, factors, shift, scale, generator)
        top, bottom, word = sample_backgrounds(factors, generator)
        none, empty = torch.full((len(classes),), UNKNOWN), torch.zeros(len(classes))
        visible, center = layer.seen(torch.zeros(1))
        scenes = Scenes(
            images=layer.over(background(top, bottom, self.size)) * 2 - 1,
            objects=torch.stack([classes, none], 1),
            colors=torch.stack([layer.color, none], 1),
            background=word,
            side=none,
            front=none > 0,
            visible=torch.stack([visible, empty], 1),
            boxes=torch.stack([layer.boxes(), empty[:, None].expand(-1, 4)], 1),
            centers=torch.stack([center, empty[:, None].expand(-1, 2)], 1),
        )
        return scenes, layer

    def double(self, classes: Tensor, generator: torch.Generator) -> Scenes:
        """Two objects each, of ``(B, 2)`` classes: side by side or one above the other.

        In a third of the scenes the first object is pasted with a box of its own ground.
        """
        num = len(classes)
        side = torch.randint(4, (num,), generator=generator)
        direction = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])[side]
        factors = [sample_factors(num, generator) for _ in range(2)]
        top, bottom, word = sample_backgrounds(factors[0], generator)
        layers, places = [], []
        for index, sign in ((0, 1.0), (1, -1.0)):
            scale = 0.42 + 0.16 * torch.rand(num, generator=generator)
            jitter = 0.12 * (torch.rand(num, 2, generator=generator) * 2 - 1)
            places.append((sign * 0.48 * direction + jitter, scale))
            layers.append(self.layer(classes[:, index], factors[index], *places[index], generator))
        own = sample_backgrounds(factors[1], generator)[:2]
        boxed = torch.rand(num, 1, 1, 1, generator=generator) < 0.33
        box = self.box(places[0][0], places[0][1] * 1.15) & boxed
        back = layers[1].over(background(top, bottom, self.size))
        return self._join(layers, back, own, box, word=word, classes=classes, side=side)

    def pasted(self, classes: Tensor, generator: torch.Generator) -> Scenes:
        """Two objects each, of ``(B, 2)`` classes: the first, with a ground of its own, in a box.

        The box lies in a corner or by an edge, as in a composition of two pictures. The second
        object is large and partly covered, or smaller and out of the box's way.
        """
        num = len(classes)

        def rand(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(num, generator=generator)

        factors = [sample_factors(num, generator) for _ in range(2)]
        grounds = [sample_backgrounds(f, generator) for f in factors]
        corners = torch.tensor(
            [[x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0) if x or y]
        )
        where = corners[torch.randint(len(corners), (num,), generator=generator)]
        share = rand(0.45, 0.7)
        middle = where * (1 - share)[:, None]
        aside = torch.where(rand(0, 1) < 0.6, rand(0, 0.4), torch.zeros(num))
        shift = torch.stack([rand(-0.15, 0.15), rand(-0.15, 0.15)], 1) - aside[:, None] * where
        back = self.layer(
            classes[:, 1], factors[1], shift, rand(0.7, 0.95) - 0.6 * aside, generator
        )
        front = self.layer(classes[:, 0], factors[0], middle, share * rand(0.75, 0.98), generator)
        upright = (where[:, 0] == 0) | ((where[:, 1] != 0) & (rand(0, 1) < 0.5))
        side = torch.where(upright, 2 + (where[:, 1] > 0).long(), (where[:, 0] > 0).long())
        scene = back.over(background(*grounds[1][:2], self.size))
        box, own = self.box(middle, share), grounds[0][:2]
        return self._join(
            [front, back], scene, own, box, word=grounds[1][2], classes=classes, side=side
        )

    def _join(
        self,
        layers: list[Layer],
        back: Tensor,
        own: tuple[Tensor, Tensor],
        box: Tensor,
        *,
        word: Tensor,
        classes: Tensor,
        side: Tensor,
    ) -> Scenes:
        """Scenes of the first layer on ``back``, which shows the second, with a box of its own."""
        covered = torch.where(box, background(*own, self.size), back)
        cover = torch.maximum(box.float(), layers[0].alpha)
        (seen, center), (seen_back, center_back) = (
            layers[0].seen(torch.zeros(1)),
            layers[1].seen(cover),
        )
        return Scenes(
            images=layers[0].over(covered) * 2 - 1,
            objects=classes,
            colors=torch.stack([layer.color for layer in layers], 1),
            background=word,
            side=side,
            front=layers[1].seen(torch.zeros(1))[0] - seen_back > 0.08,
            visible=torch.stack([seen, seen_back], 1),
            boxes=torch.stack([layer.boxes() for layer in layers], 1),
            centers=torch.stack([center, center_back], 1),
        )

    def box(self, middle: Tensor, share: Tensor) -> Tensor:
        """Squares of a share ``(B,)`` of the side about ``(B, 2)``: ``(B, 1, size, size)`` bool."""
        axis = (torch.arange(self.size) + 0.5) / self.size * 2 - 1
        inside = (axis[None, None] - middle[..., None]).abs() <= share[:, None, None]
        return (inside[:, 0, None, :] & inside[:, 1, :, None])[:, None]


def join_scenes(parts: list[Scenes]) -> Scenes:
    """Several batches of scenes as one."""
    names = [field.name for field in fields(Scenes)]
    return Scenes(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def distort(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Mild versions of AugCLIP's augmentations, and an imperfect generator's blur and noise.

    Pictures are ``(B, 3, H, W)`` around [-1, 1]; the result may leave that range.
    """
    num = len(images)

    def rand(*shape: int) -> Tensor:
        return strength * (2 * torch.rand(num, *shape, generator=generator) - 1)

    images = images + 0.3 * rand(1, 1, 1)
    gray = images.mean(1, keepdim=True)
    images = gray + (1 + 0.4 * rand(1, 1, 1)) * (images - gray)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (1 + 0.35 * rand(1, 1, 1)) * (images - mean)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.lerp(images, soft, (rand(1, 1, 1) * 1.2).clamp(0, 1))
    images = images + 0.12 * rand(1, 1, 1).clamp_min(0) * torch.randn(
        images.shape, generator=generator
    )
    size = images.shape[-1]
    grid = torch.arange(size)
    corner = torch.randint(-size // 4, size, (num, 2), generator=generator)
    edge = torch.randint(size // 6, size // 2 + 1, (num, 2), generator=generator)
    inside = [
        (grid >= corner[:, i, None]) & (grid < corner[:, i, None] + edge[:, i, None])
        for i in range(2)
    ]
    cut = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    cut &= torch.rand(num, 1, 1, 1, generator=generator) < 0.35 * strength
    return images.masked_fill(cut, 0.0)
