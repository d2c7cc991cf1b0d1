"""How good the demo generator's pictures are beside the drawings of its world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from world import Z_DIM, Renderer, factors_from_z, sample_z

Draw = Callable[[Tensor, Tensor], Tensor]  # latents and classes to pictures in [-1, 1]


@dataclass(frozen=True)
class Quality:
    """How near pictures are to the drawings: dB, dB on objects, dB on backgrounds, sharpness.

    The last two are the gradients at outlines over those of the drawings: their length, and its
    square, the energy. Energy is the stricter: a drawing blurred by 1 4 1 keeps 0.6 of it.
    """

    psnr: float
    on_object: float
    on_background: float
    sharpness: float
    energy: float

    def __str__(self) -> str:
        return (
            f"{self.psnr:.2f} ({self.on_object:.2f} {self.on_background:.2f}) "
            f"sharp {self.sharpness:.3f} energy {self.energy:.3f}"
        )


def gradient_energy(images: Tensor) -> Tensor:
    """Squared differences ``(B, 1, H - 1, W - 1)`` of ``(B, C, H, W)`` pictures, over channels."""
    dx, dy = images.diff(dim=3)[..., 1:, :], images.diff(dim=2)[..., 1:]
    return (dx.square() + dy.square()).sum(1, keepdim=True)


def outlines(alpha: Tensor) -> Tensor:
    """Where an object ends within two pixels: ``(B, 1, H - 1, W - 1)`` bool."""
    high, low = F.max_pool2d(alpha, 3, 1, 1), -F.max_pool2d(-alpha, 3, 1, 1)
    return (high - low > 0.3)[..., 1:, 1:]


@torch.no_grad()
def measure(
    draw: Draw, renderer: Renderer, radius: float, *, dim: int = Z_DIM, num: int = 196
) -> Quality:
    """Mean quality at 128 px on ``num`` held-out latents: those of sample_z, times ``radius``."""
    generator = torch.Generator().manual_seed(777)
    z = sample_z(4 * num, generator, dim)
    z = z[z.abs().amax(1) <= 2][:num] * radius
    classes = torch.arange(num) % len(renderer.tiles)
    rows = []
    for part_z, part_c in zip(z.split(28), classes.split(28), strict=True):
        real, alpha = renderer(part_c, factors_from_z(part_z))
        fake = draw(part_z, part_c).clamp(-1, 1)
        error = ((fake - real) / 2).square().mean(1, keepdim=True)
        inside, edge = (alpha > 0.5).float(), outlines(alpha).float()
        decibels = [
            -10 * ((error * mask).flatten(1).sum(1) / mask.flatten(1).sum(1)).log10()
            for mask in (torch.ones_like(inside), inside, 1 - inside)
        ]
        energies = [gradient_energy(side) * edge for side in (fake, real)]
        sums = [part.flatten(1).sum(1) for e in energies for part in (e.sqrt(), e)]
        rows.append(torch.stack([*decibels, *sums], 1))
    *decibels, length, energy, real_length, real_energy = torch.cat(rows).mean(0).tolist()
    return Quality(*decibels, length / real_length, energy / real_energy)
