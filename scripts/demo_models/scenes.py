"""Captioned scenes for CLIP and the judge.

A scene holds one or two objects of the small world, and has words for what is in it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from world import BOTTOM, CHROMA, LIGHTNESS, NUM_FACTORS, SATURATION, SHADE, TOP, place, recolor

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
    """

    images: Tensor
    objects: Tensor
    colors: Tensor
    background: Tensor
    side: Tensor

    def pick(self, rows: Tensor) -> Scenes:
        """Some of the scenes, by a mask or by indices."""
        return Scenes(
            self.images[rows],
            self.objects[rows],
            self.colors[rows],
            self.background[rows],
            self.side[rows],
        )


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
    ) -> tuple[Tensor, Tensor]:
        """Premultiplied layers ``(B, 4, size, size)`` and the objects' colour words ``(B,)``."""
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
        color = dominant_color(rgb, tiles[:, 3:])
        rotation = 0.12 * torch.randn(len(classes), generator=generator)
        return place(
            torch.cat([rgb * tiles[:, 3:], tiles[:, 3:]], 1), shift, scale, rotation, self.size
        ), color

    def backdrop(self, top: Tensor, bottom: Tensor) -> Tensor:
        """``(B, 3)`` colours in [0, 1] to a vertical gradient ``(B, 3, size, size)``."""
        ramp = torch.linspace(0, 1, self.size).view(1, 1, -1, 1)
        ramp = ramp * ramp * (3 - 2 * ramp)
        return (top[..., None, None] * (1 - ramp) + bottom[..., None, None] * ramp).expand(
            -1, -1, -1, self.size
        )

    def single(self, classes: Tensor, generator: torch.Generator) -> Scenes:
        """One object each, of ``(B,)`` classes: large, anywhere near the middle."""
        num = len(classes)
        factors = sample_factors(num, generator)
        scale = 0.62 + 0.36 * torch.rand(num, generator=generator)
        shift = (torch.rand(num, 2, generator=generator) * 2 - 1) * (1.1 - scale)[:, None] * 0.8
        layer, color = self.layer(classes, factors, shift, scale, generator)
        top, bottom, word = sample_backgrounds(factors, generator)
        images = layer[:, :3] + (1 - layer[:, 3:]) * self.backdrop(top, bottom)
        none = torch.full((num,), UNKNOWN)
        return Scenes(
            images * 2 - 1,
            torch.stack([classes, none], 1),
            torch.stack([color, none], 1),
            word,
            none,
        )

    def double(self, classes: Tensor, generator: torch.Generator) -> Scenes:
        """Two objects each, of ``(B, 2)`` classes: side by side or one above the other.

        In a third of the scenes the first object is pasted with a box of its own ground.
        """
        num = len(classes)
        side = torch.randint(4, (num,), generator=generator)
        direction = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])[side]
        factors = [sample_factors(num, generator) for _ in range(2)]
        top, bottom, word = sample_backgrounds(factors[0], generator)
        images, colors = self.backdrop(top, bottom), []
        boxed = torch.rand(num, 1, 1, 1, generator=generator) < 0.33
        for index, sign in ((1, -1.0), (0, 1.0)):
            scale = 0.42 + 0.16 * torch.rand(num, generator=generator)
            jitter = 0.12 * (torch.rand(num, 2, generator=generator) * 2 - 1)
            shift = sign * 0.48 * direction + jitter
            layer, color = self.layer(classes[:, index], factors[index], shift, scale, generator)
            colors.insert(0, color)
            if index == 0:
                own = self.backdrop(*sample_backgrounds(factors[1], generator)[:2])
                box = place(
                    torch.ones(num, 1, 8, 8).expand(-1, 4, -1, -1).contiguous(),
                    shift,
                    scale * 1.15,
                    torch.zeros(num),
                    self.size,
                )[:, 3:]
                images = torch.where(boxed, images * (1 - box) + own * box, images)
            images = layer[:, :3] + (1 - layer[:, 3:]) * images
        return Scenes(images * 2 - 1, classes, torch.stack(colors, 1), word, side)

    def pasted(self, classes: Tensor, generator: torch.Generator) -> Scenes:
        """Two objects each, of ``(B, 2)`` classes: the first, with a ground of its own, in a box.

        The box covers a part of the second, which is large, and lies in a corner or by an edge: as
        in a composition of two pictures.
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
        layer, back_color = self.layer(
            classes[:, 1],
            factors[1],
            torch.stack([rand(-0.15, 0.15), rand(-0.15, 0.15)], 1),
            rand(0.7, 0.95),
            generator,
        )
        images = layer[:, :3] + (1 - layer[:, 3:]) * self.backdrop(*grounds[1][:2])
        box = self.box(middle, share)
        images = torch.where(box, self.backdrop(*grounds[0][:2]), images)
        layer, front_color = self.layer(
            classes[:, 0], factors[0], middle, share * rand(0.75, 0.98), generator
        )
        images = layer[:, :3] + (1 - layer[:, 3:]) * images
        upright = (where[:, 0] == 0) | ((where[:, 1] != 0) & (rand(0, 1) < 0.5))
        side = torch.where(upright, 2 + (where[:, 1] > 0).long(), (where[:, 0] > 0).long())
        colors = torch.stack([front_color, back_color], 1)
        return Scenes(images * 2 - 1, classes, colors, grounds[1][2], side)

    def box(self, middle: Tensor, share: Tensor) -> Tensor:
        """Squares of a share ``(B,)`` of the side about ``(B, 2)``: ``(B, 1, size, size)`` bool."""
        axis = (torch.arange(self.size) + 0.5) / self.size * 2 - 1
        inside = (axis[None, None] - middle[..., None]).abs() <= share[:, None, None]
        return (inside[:, 0, None, :] & inside[:, 1, :, None])[:, None]


def join_scenes(parts: list[Scenes]) -> Scenes:
    """Several batches of scenes as one."""
    fields = ("images", "objects", "colors", "background", "side")
    return Scenes(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))


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


def article(phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


OPENINGS = (
    "",
    "",
    "",
    "",
    "a photo of ",
    "a picture of ",
    "an emoji of ",
    "a drawing of ",
    "an image of ",
    "a painting of ",
)
RELATIONS = (
    ("to the left of", "left of"),
    ("to the right of", "right of"),
    ("above", "over"),
    ("below", "under"),
)
JOINTS = ("and", "and", "near", "next to", "with")


@dataclass(frozen=True)
class Facts:
    """What is in one scene, as plain numbers."""

    objects: tuple[int, int]
    colors: tuple[int, int]
    background: int
    side: int

    def claims(self) -> frozenset[tuple[int | str, ...]]:
        """Every single thing a true caption may say."""
        first, second = self.objects
        true: set[tuple[int | str, ...]] = {("background", self.background)}
        for name, color in zip(self.objects, self.colors, strict=True):
            true |= {("object", name), ("color", name, color)}
        if second != UNKNOWN:
            true |= {("side", self.side, first, second), ("side", self.side ^ 1, second, first)}
        return frozenset(true)


@dataclass(frozen=True)
class Caption:
    """A sentence and what it claims; it is true of a scene whose facts hold all its claims."""

    text: str
    claims: frozenset[tuple[int | str, ...]]


class Captioner:
    """Writes captions from one random stream."""

    def __init__(self, names: list[str], seed: int) -> None:
        self.names = names
        self.rng = random.Random(seed)  # noqa: S311 - captions, not secrets

    def _object(self, name: int, color: int, claims: set, tell: float) -> str:
        """An object's phrase, with its colour at the probability ``tell``; adds to ``claims``."""
        words = []
        if self.rng.random() < 0.05:
            words.append(self.rng.choice(("small", "big", "cute")))
        if color != UNKNOWN and self.rng.random() < tell:
            words.append(self.rng.choice(SYNONYMS.get(COLORS[color], (COLORS[color],))))
            claims.add(("color", name, color))
        claims.add(("object", name))
        return article(" ".join([*words, self.names[name]]))

    def _background(self, word: int, claims: set) -> str:
        """The end of a caption that tells the background; adds to ``claims``."""
        claims.add(("background", word))
        if word >= len(COLORS):
            return " " + PLACES[word - len(COLORS)]
        name = self.rng.choice(SYNONYMS.get(COLORS[word], (COLORS[word],)))
        return " " + self.rng.choice(
            ("on {} background", "on {} background", "in front of {} background")
        ).format(article(name))

    def _write(
        self, facts: Facts, *, tell_color: float, tell_side: float, tell_background: float
    ) -> Caption:
        """A caption of the facts, each kind of them told at its own probability."""
        claims: set[tuple[int | str, ...]] = set()
        phrases = [
            self._object(n, c, claims, tell_color)
            for n, c in zip(facts.objects, facts.colors, strict=True)
            if n != UNKNOWN
        ]
        if len(phrases) == 2 and self.rng.random() < tell_side:
            claims.add(("side", facts.side, *facts.objects))
            phrases.insert(1, self.rng.choice(RELATIONS[facts.side]))
        elif len(phrases) == 2:
            self.rng.shuffle(phrases)
            phrases.insert(1, self.rng.choice(JOINTS))
        text = self.rng.choice(OPENINGS) + " ".join(phrases)
        if facts.background != UNKNOWN and self.rng.random() < tell_background:
            text += self._background(facts.background, claims)
        return Caption(text, frozenset(claims))

    def true(self, facts: Facts) -> Caption:
        """A true caption that tells some of the facts."""
        return self._write(facts, tell_color=0.85, tell_side=0.5, tell_background=0.55)

    def writers(self) -> tuple[Callable[[Facts], Caption], ...]:
        """The captions that every picture gets, the true one first."""
        return self.true, self.misnamed, self.false

    def misnamed(self, facts: Facts) -> Caption:
        """A caption with another object, and all else right: what names a thing must weigh most."""
        other = self._other(len(self.names), facts.objects)
        changed = replace(facts, objects=(other, facts.objects[1]))
        return self._write(changed, tell_color=1.0, tell_side=0.5, tell_background=0.8)

    def false(self, facts: Facts) -> Caption:
        """A caption with one lie: another colour or ground, or swapped colours or sides."""
        (_, second), (color, other) = facts.objects, facts.colors
        lies = ["color"] * 2 * (color != UNKNOWN) + ["background"] * (facts.background != UNKNOWN)
        if second != UNKNOWN:
            lies += ["side"] * 2 + ["swap"] * (color != other)
        if not lies:
            return self.misnamed(facts)
        lie = self.rng.choice(lies)
        changed = {
            "color": lambda: replace(facts, colors=(self._other(len(COLORS), (color,)), other)),
            "background": lambda: replace(
                facts, background=self._other(len(BACKGROUNDS), (facts.background,))
            ),
            "side": lambda: replace(facts, side=facts.side ^ 1),
            "swap": lambda: replace(facts, colors=(other, color)),
        }[lie]()
        return self._write(
            changed,
            tell_color=1.0,
            tell_side=1.0 if lie == "side" else 0.5,
            tell_background=1.0 if lie == "background" else 0.5,
        )

    def _other(self, count: int, taken: tuple[int, ...]) -> int:
        """A random number below ``count`` that is not taken."""
        return self.rng.choice([i for i in range(count) if i not in taken])


def scene_facts(scenes: Scenes) -> list[Facts]:
    """The facts of every scene of a batch."""
    rows = zip(
        scenes.objects.tolist(),
        scenes.colors.tolist(),
        scenes.background.tolist(),
        scenes.side.tolist(),
        strict=True,
    )
    return [Facts(tuple(o), tuple(c), b, s) for o, c, b, s in rows]
