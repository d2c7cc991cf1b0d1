"""Random numbers; no other module of the core draws any.

Numbers are drawn on the CPU from an explicit ``torch.Generator`` and moved afterwards, so a seed
gives the same numbers on every device. The global generators of torch, NumPy and Python are neither
read nor changed.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from .errors import ConfigError

MAX_SEED = 2**64 - 1


def make_generator(seed: int, stream: int = 0) -> torch.Generator:
    """Make a CPU generator from a seed.

    Seed and stream are hashed together: streams of one seed are independent, and all 64 bits of the
    seed have an effect. (The CPU engine of torch keeps the low 32 bits only.)

    Args:
        seed: Any integer from 0 to 2**64 - 1.
        stream: Index of the independent stream.

    Returns:
        A new generator on the CPU.

    Raises:
        ConfigError: If ``seed`` is not an integer in range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ConfigError(
            f"The seed is {seed!r}, but it must be a whole number from 0 to {MAX_SEED}."
        )
    digest = hashlib.sha256(f"fusedream/{seed}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def fork(generator: torch.Generator) -> torch.Generator:
    """Make a child generator, advancing its parent by exactly one draw.

    Draws from the child do not affect later draws from the parent.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return make_generator(seed)


def copy(generator: torch.Generator) -> torch.Generator:
    """Return a generator in the same state; the original is not advanced."""
    return torch.Generator().set_state(generator.get_state())


def uniform(
    shape: tuple[int, ...], low: float, high: float, *, generator: torch.Generator
) -> Tensor:
    """Draw from U(low, high). Returns a float32 CPU tensor of the given shape."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def independent(num: int, dims: int, *, generator: torch.Generator) -> Tensor:
    """Draw independent points from the unit cube. Returns a float32 CPU tensor ``(num, dims)``."""
    return torch.rand(num, dims, generator=generator)


def stratified(num: int, dims: int, *, generator: torch.Generator) -> Tensor:
    """Draw a Latin hypercube: points of the unit cube, stratified along each axis.

    Each point is uniform, so a mean over the points is unbiased. Its variance is lower than with
    independent points.

    Returns:
        A float32 CPU tensor ``(num, dims)``. Each column has one number in each of ``num`` equal
        intervals of [0, 1].

    References:
        McKay, Beckman and Conover 1979.
    """
    cells = [torch.randperm(num, generator=generator) for _ in range(dims)]
    return (torch.stack(cells, dim=1) + torch.rand(num, dims, generator=generator)) / num


def integers(shape: tuple[int, ...], low: int, high: int, *, generator: torch.Generator) -> Tensor:
    """Draw from {low, ..., high}, both ends included. Returns an int64 CPU tensor."""
    return torch.randint(low, high + 1, shape, generator=generator)


def choices(weights: Tensor, num: int, *, generator: torch.Generator) -> Tensor:
    """Draw ``num`` indices of ``weights`` ``(n,)`` in proportion to them. Returns int64."""
    return torch.multinomial(weights, num, replacement=True, generator=generator)


def permutation(num: int, *, generator: torch.Generator) -> Tensor:
    """Draw a permutation of ``num`` indices. Returns int64."""
    return torch.randperm(num, generator=generator)


def normal(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Draw from N(0, 1). Returns a float32 CPU tensor of the given shape."""
    return torch.randn(shape, generator=generator)


def truncated_normal(
    shape: tuple[int, ...], *, generator: torch.Generator, bound: float = 2.0
) -> Tensor:
    """Draw from N(0, 1) conditioned on lying within ``[-bound, bound]``.

    Uses the inverse distribution function, one uniform number per value. Drawing 3 rows and then 5
    therefore equals drawing 8 rows, which ``torch.randn`` does not guarantee.

    Args:
        shape: Shape of the result.
        generator: CPU generator, advanced by this call.
        bound: Largest absolute value. At 2 the standard deviation is 0.880.

    Returns:
        A float32 CPU tensor.

    References:
        Liu et al. 2021, section 3.2 (z truncated to [-2, 2]). gnobitab/FuseDream clamps N(0, 1)
        instead, which puts 4.6 % of the coordinates exactly on the bound.
    """
    edge = math.erf(bound / math.sqrt(2.0))  # 2 * Phi(bound) - 1
    values = torch.erfinv(uniform(shape, -edge, edge, generator=generator)) * math.sqrt(2.0)
    return values.clamp(-bound, bound)  # the last bit of float32 may overshoot
