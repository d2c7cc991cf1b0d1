"""Batch normalisations of a frozen generator: a scale and a shift of each channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops import Affine, frozen


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """``(x + missing - mean) / sqrt(variance + eps) * scale + offset`` of C channels.

    Attributes:
        means: Means of the channels, shape ``(S, C)``, with rows for truncations from 0 to 1.
        variances: Variances, same shape.
        scale: Shape ``(C,)``, or ``(C, D)`` for 1 plus the product with a condition of length D.
        offset: Shape ``(C,)``, or ``(C, D)`` for the product with the condition.
        missing: Deferred bias of x, shape ``(C,)``.
    """

    means: Tensor
    variances: Tensor
    scale: Tensor
    offset: Tensor
    missing: Tensor


class Norms(nn.Module):
    """Several normalisations of one condition, computed by one matrix product."""

    def __init__(self, norms: Sequence[Norm], eps: float) -> None:
        """Copy the tensors; either all normalisations have a condition, or none."""
        super().__init__()
        self.eps, self.sizes = eps, [len(norm.missing) for norm in norms]
        self.means = frozen(torch.cat([norm.means for norm in norms], dim=1))
        self.variances = frozen(torch.cat([norm.variances for norm in norms], dim=1))
        self.missing = frozen(torch.cat([norm.missing for norm in norms]))
        both = torch.cat([norm.scale for norm in norms] + [norm.offset for norm in norms])
        ones = torch.ones_like(self.missing)
        self.weight = frozen(both) if both.ndim == 2 else None
        self.base = frozen(both if both.ndim == 1 else torch.cat([ones, torch.zeros_like(ones)]))

    def forward(self, condition: Tensor, truncation: float) -> Iterator[Affine]:
        """Return the scales and shifts in order, for conditions ``(B, D)``."""
        if self.weight is None:
            both = self.base.expand(len(condition), -1)
        else:
            both = F.linear(condition, self.weight, self.base)
        weight, offset = both.chunk(2, dim=1)
        mean, variance = _at(self.means, truncation), _at(self.variances, truncation)
        scale = weight * (variance + self.eps).rsqrt()
        shift = torch.addcmul(offset, self.missing - mean, scale)
        return zip(scale.split(self.sizes, dim=1), shift.split(self.sizes, dim=1), strict=True)


def _at(table: Tensor, truncation: float) -> Tensor:
    """Interpolate statistics; the rows are for truncations from 0 to 1.

    The package swaps the two interpolation weights; here they are correct.
    """
    position = truncation * (len(table) - 1)
    low = min(int(position), len(table) - 2)
    return torch.lerp(table[low], table[low + 1], position - low)
