"""Random numbers: the only module of the core that draws any.

Everything is drawn on the CPU from a ``torch.Generator`` that the caller passes in, and moved
afterwards, so a seed gives the same numbers on every device. The global generators of torch,
NumPy and Python are neither read nor changed.
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

    Seed and stream are hashed together, for two reasons: streams of one seed are independent of
    each other, and all 64 bits of the seed count (torch's CPU engine keeps only the low 32 of
    the number it is given).

    Args:
        seed: Any integer from 0 to 2**64 - 1.
        stream: Which of the seed's independent streams to make.

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

    What is drawn from the child, however much, leaves the parent's later numbers as they are.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return make_generator(seed)


def copy(generator: torch.Generator) -> torch.Generator:
    """A generator that will draw the same numbers; this one is not advanced."""
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
    """Draw points of the unit cube that are spread evenly along each axis: a Latin hypercube.

    Each point is uniform by itself, so a mean over them has no bias; and it has less noise than one
    over independent points.

    Returns:
        A float32 CPU tensor ``(num, dims)``; of each of its columns, one number lies in each
        ``num``-th of the range from 0 to 1.

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
    """Draw an order of ``num`` things. Returns int64."""
    return torch.randperm(num, generator=generator)


def normal(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Draw from N(0, 1). Returns a float32 CPU tensor of the given shape."""
    return torch.randn(shape, generator=generator)


def truncated_normal(
    shape: tuple[int, ...], *, generator: torch.Generator, bound: float = 2.0
) -> Tensor:
    """Draw from N(0, 1) conditioned on lying within ``[-bound, bound]``.

    Uses the inverse distribution function, one uniform number for each value, so that drawing
    3 rows and then 5 gives the same numbers as drawing 8 rows at once (torch's own normal
    sampler does not promise that).

    Args:
        shape: Shape of the result.
        generator: CPU generator, advanced by this call.
        bound: Largest absolute value. At 2 the standard deviation is 0.880.

    Returns:
        A float32 CPU tensor.

    References:
        Liu et al. 2021, section 3.2 (z truncated to [-2, 2]). Differs from gnobitab/FuseDream,
        which clamps N(0, 1) and so puts 4.6 % of the coordinates exactly on the bound.
    """
    edge = math.erf(bound / math.sqrt(2.0))  # 2 * Phi(bound) - 1
    values = torch.erfinv(uniform(shape, -edge, edge, generator=generator)) * math.sqrt(2.0)
    return values.clamp(-bound, bound)  # the last bit of float32 may overshoot
