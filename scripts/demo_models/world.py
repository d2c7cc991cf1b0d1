"""The small world of the demo models: one emoji, recoloured, on a two-coloured background.

A picture is a class and ``NUM_FACTORS`` numbers. Every factor is smooth in its number, so that a
generator can learn the world as a regression; colour is an additive shift of chroma, linear in its
two factors. Objects can stand aside: two factors move them from the middle, and the farther they
are from it the smaller they are, so that they stay whole and leave a corner free. The world is kept
small on purpose: at equal training time a smaller world is a crisper one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_FACTORS = 16
Z_DIM = 4 * NUM_FACTORS  # also of a class embedding, so that 92 drawings differ in enough ways
CHROMA = (0, 1)
LIGHTNESS = 2
SATURATION = 3
TOP = slice(4, 7)
BOTTOM = slice(7, 10)
SHIFT = slice(10, 12)
SCALE = 12
ROTATION = 13
SHADE = slice(14, 16)
ASIDE = 0.12  # half pictures from the middle at a factor of 1
LARGEST, SHRINK = 0.84, 0.6  # share of the side in the middle, and what each half picture takes


def factors_from_z(z: Tensor) -> Tensor:
    """``(B, dim)`` latents to ``(B, NUM_FACTORS)`` factors, of the latents' variance.

    Each is the sum of several coordinates, four of them where dim is ``Z_DIM``, over the root of
    their number.
    """
    return z.unflatten(1, (-1, NUM_FACTORS)).sum(1) / math.sqrt(z.shape[1] // NUM_FACTORS)


def sample_z(num: int, generator: torch.Generator, dim: int = Z_DIM) -> Tensor:
    """Latents ``(num, dim)`` in [-2, 2], drawn from the truncated normal distribution.

    A quarter of the rows are uniform, so that the rim is learned too.
    """
    uniform = torch.rand(num, dim, generator=generator)
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1) * math.erf(math.sqrt(2)))
    rim = torch.rand(num, 1, generator=generator) < 0.25
    return torch.where(rim, 4 * uniform - 2, normal)


def recolor(rgb: Tensor, chroma: Tensor, lightness: Tensor, saturation: Tensor) -> Tensor:
    """Shift, lighten or darken, and wash out the colours of pictures.

    Args:
        rgb: Pictures in [0, 1], shape ``(B, 3, H, W)``.
        chroma: Factors, shape ``(B, 2)``; 1 shifts Cb or Cr by 0.17. Dark outlines and eyes keep
            their colour.
        lightness: Factors, shape ``(B,)``; -2 leaves a quarter of the light, +2 takes three
            quarters of the way to white.
        saturation: Factors, shape ``(B,)``; -2 leaves an eighth of the natural colour, 2 all of it.

    Returns:
        Pictures in [0, 1], shape ``(B, 3, H, W)``.
    """
    r, g, b = rgb.unbind(1)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    keep = torch.sigmoid(2 * (saturation + 1)).view(-1, 1, 1)
    shift = 0.17 * chroma
    mid = ((luma - 0.08) / 0.3).clamp(0, 1)  # 0 on black outlines
    cb = (b - luma) / 1.772 * keep + shift[:, 0].view(-1, 1, 1) * mid
    cr = (r - luma) / 1.402 * keep + shift[:, 1].view(-1, 1, 1) * mid
    light = (0.38 * lightness).clamp(-0.85, 0.85).view(-1, 1, 1)
    strength = shift.norm(dim=1).view(-1, 1, 1)
    luma = luma * (1 - 0.6 * strength * luma)  # white takes colour too
    luma = torch.where(light < 0, luma * (1 + light), luma + (1 - luma) * light)
    out = torch.stack(
        [luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], 1
    )
    return out.clamp(0, 1)


def background(top: Tensor, bottom: Tensor, size: int) -> Tensor:
    """``(B, 3)`` colours in [0, 1] to a vertical gradient ``(B, 3, size, size)``."""
    ramp = torch.linspace(0, 1, size).view(1, 1, -1, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return (top[..., None, None] * (1 - ramp) + bottom[..., None, None] * ramp).expand(
        -1, -1, size, size
    )


def place(tiles: Tensor, shift: Tensor, scale: Tensor, rotation: Tensor, size: int) -> Tensor:
    """Draw tiles on a transparent canvas.

    Args:
        tiles: Premultiplied RGBA in [0, 1], shape ``(B, 4, S, S)``.
        shift: Offset from the middle in half pictures, shape ``(B, 2)``.
        scale: The tile's share of the picture's side, shape ``(B,)``.
        rotation: Radians, shape ``(B,)``.
        size: Side of the canvas in pixels.

    Returns:
        Premultiplied layers, shape ``(B, 4, size, size)``.
    """
    cos, sin = torch.cos(rotation) / scale, torch.sin(rotation) / scale
    row_x = torch.stack([cos, -sin, -(cos * shift[:, 0] - sin * shift[:, 1])], 1)
    row_y = torch.stack([sin, cos, -(sin * shift[:, 0] + cos * shift[:, 1])], 1)
    grid = F.affine_grid(
        torch.stack([row_x, row_y], 1), [len(tiles), 4, size, size], align_corners=False
    )
    return F.grid_sample(tiles, grid, align_corners=False)


def stand(factors: Tensor) -> tuple[Tensor, Tensor]:
    """Where objects of the generator's world are.

    Args:
        factors: Shape ``(B, NUM_FACTORS)``.

    Returns:
        Offset from the middle in half pictures, ``(B, 2)``, and the share of the picture's side
        that the drawing's tile takes, ``(B,)``. A tile stays inside the picture.
    """
    shift = ASIDE * factors[:, SHIFT]
    away = (shift.pow(4).sum(1) + 1e-6).pow(0.25)
    return shift, LARGEST - SHRINK * away + 0.02 * factors[:, SCALE]


@dataclass(frozen=True)
class Renderer:
    """Draws the world at one size from an atlas ``(num_classes, 128, 128, 4)`` uint8."""

    tiles: Tensor  # (num_classes, 4, S, S), colour in [0, 1] (not premultiplied), alpha last
    size: int

    @classmethod
    def from_atlas(cls, atlas: Tensor, size: int) -> Renderer:
        """Reduce the atlas's tiles to ``size`` pixels."""
        tiles = atlas.permute(0, 3, 1, 2).float() / 255
        tiles[:, :3] *= tiles[:, 3:]
        tiles = F.interpolate(tiles, size=size, mode="area") if size != tiles.shape[-1] else tiles
        tiles[:, :3] /= tiles[:, 3:].clamp_min(1e-3)
        return cls(tiles, size)

    def __call__(self, classes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures ``(B, 3, size, size)`` in [-1, 1] and objects' alpha ``(B, 1, size, size)``."""
        tiles = self.tiles[classes]
        rgb = recolor(
            tiles[:, :3], factors[:, CHROMA], factors[:, LIGHTNESS], factors[:, SATURATION]
        )
        axis = torch.linspace(-1, 1, tiles.shape[-1])
        shade = factors[:, SHADE, None, None] * torch.stack(
            [axis.view(1, -1).expand(len(axis), -1), axis.view(-1, 1).expand(-1, len(axis))]
        )
        rgb = (rgb * (1 + 0.08 * shade.sum(1, keepdim=True))).clamp(0, 1)
        tiles = torch.cat([rgb * tiles[:, 3:], tiles[:, 3:]], 1)
        layer = place(
            tiles,
            *stand(factors),
            0.03 * factors[:, ROTATION],
            self.size,
        )
        top = torch.sigmoid(1.6 * factors[:, TOP])
        bottom = torch.sigmoid(1.6 * (0.75 * factors[:, TOP] + 0.66 * factors[:, BOTTOM]))
        picture = layer[:, :3] + (1 - layer[:, 3:]) * background(top, bottom, self.size)
        return picture * 2 - 1, layer[:, 3:]
