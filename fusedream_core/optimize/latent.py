"""The over-parameterised latent: k basis latents and the weights that mix them.

Paper: Liu et al. 2021, section 3.2, eq. 4: ``xi = sum_i w_i xi_i``, with both w_i and xi_i free.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import rng
from ..config import Mixing, Start
from ..state import State, like
from ..types import Basis

LatentPair = tuple[Tensor, Tensor]  # z (R, dim_z) and y (R, dim_y)

Z_BOUND = 2.0  # largest coordinate of z, in units of the truncation; as in the reference code
# Weight of the leading member in a softmax start. It stays below 1, where the others would get no
# gradient at all.
_LEADING_WEIGHT = 0.95


@dataclass(eq=False)
class OverparameterizedLatent:
    """R latents, each a mix of K basis latents; the optimiser moves all tensors.

    Attributes:
        z_basis: Shape ``(R, K, dim_z)``.
        y_basis: Shape ``(R, K, dim_y)``.
        z_mix: Weights of z, shape ``(R, K, 1)``, or their logits, ``(R, K, dim_z)``.
        y_mix: The same for y; with scalar weights it is the tensor ``z_mix`` itself, since the
            paper mixes the pair (z, y).
        mixing: "scalar" weights, or "softmax" over the basis in each coordinate.
        z_bound: Largest absolute value of a coordinate of z.
    """

    z_basis: Tensor
    y_basis: Tensor
    z_mix: Tensor
    y_mix: Tensor
    mixing: Mixing
    z_bound: float

    def weights(self) -> tuple[Tensor, Tensor]:
        """The weights of z and of y, to be broadcast over the coordinates."""
        if self.mixing == "scalar":
            return self.z_mix, self.y_mix
        return self.z_mix.softmax(dim=1), self.y_mix.softmax(dim=1)

    def mixes(self) -> list[Tensor]:
        """The tensors of the weights, each once."""
        return [self.z_mix] if self.y_mix is self.z_mix else [self.z_mix, self.y_mix]

    def mixed(self) -> LatentPair:
        """The mixed z ``(R, dim_z)`` and y ``(R, dim_y)``: eq. 4.

        Scalar weights may take z out of its bound, so it is clamped; under softmax it cannot
        leave it.
        """
        z_weights, y_weights = self.weights()
        z = (z_weights * self.z_basis).sum(dim=1).clamp(-self.z_bound, self.z_bound)
        return z, (y_weights * self.y_basis).sum(dim=1)

    def pick(self, rows: Tensor) -> OverparameterizedLatent:
        """Some of the latents, as new leaf tensors."""
        return self._replaced([tensor.detach()[rows] for tensor in self._tensors()])

    def state_dict(self) -> State:
        """The tensors."""
        return {"z_basis": self.z_basis, "y_basis": self.y_basis, "mixes": self.mixes()}

    def restored(self, state: State) -> OverparameterizedLatent:
        """Latents of this form with saved tensors.

        Raises:
            CheckpointError: If these are of another form.
        """
        saved = [state["z_basis"], state["y_basis"], *state["mixes"]]
        pairs = zip(saved, self._tensors(), strict=True)
        return self._replaced([like(own, old) for own, old in pairs])

    @torch.no_grad()
    def clamp_basis_(self) -> None:
        """Bring the basis back within its bound, after a step."""
        self.z_basis.clamp_(-self.z_bound, self.z_bound)

    def _tensors(self) -> list[Tensor]:
        """All tensors, each once."""
        return [self.z_basis, self.y_basis, *self.mixes()]

    def _replaced(self, tensors: Sequence[Tensor]) -> OverparameterizedLatent:
        """Latents of this form with other tensors."""
        z_basis, y_basis, *mixes = tensors
        return dataclasses.replace(
            self, z_basis=z_basis, y_basis=y_basis, z_mix=mixes[0], y_mix=mixes[-1]
        )


def make_latent(
    bases: Sequence[Basis],
    start: Start,
    *,
    mixing: Mixing,
    device: torch.device,
    generators: Sequence[torch.Generator],
) -> OverparameterizedLatent:
    """Make one over-parameterised latent for each basis, at its start.

    Args:
        bases: R bases of one size and truncation.
        start: The weights at first; see ``start_weights``.
        mixing: The form of the weights.
        device: Where to.
        generators: One CPU generator for each basis, advanced where the start is random.

    Returns:
        Leaf tensors that share no memory with the bases.
    """
    # stack copies: the result is fit for autograd even where the basis is an inference tensor
    z_basis = torch.stack([basis.latent.z for basis in bases]).to(device)
    y_basis = torch.stack([basis.latent.y for basis in bases]).to(device)

    def mix(dim: int) -> Tensor:
        rows = [
            start_weights(start, z_basis.shape[1], dim, mixing=mixing, generator=generator)
            for generator in generators
        ]
        weights = torch.stack(rows).to(z_basis)
        return weights if mixing == "scalar" else weights.log()

    if mixing == "scalar":
        z_mix = y_mix = mix(1)
    else:
        z_mix, y_mix = mix(z_basis.shape[-1]), mix(y_basis.shape[-1])
    z_bound = Z_BOUND * bases[0].latent.truncation
    return OverparameterizedLatent(z_basis, y_basis, z_mix, y_mix, mixing, z_bound)


def join_latents(several: Sequence[OverparameterizedLatent]) -> OverparameterizedLatent:
    """Latents of one form as one batch, as new leaf tensors."""
    tensors = zip(*(own._tensors() for own in several), strict=True)
    return several[0]._replaced([torch.cat([own.detach() for own in some]) for some in tensors])


def start_weights(
    start: Start, num_basis: int, dim: int, *, mixing: Mixing, generator: torch.Generator
) -> Tensor:
    """The weights at the start, shape ``(num_basis, dim)``, best member first.

    Averaging k independent latents shrinks their spread to ``1 / sqrt(k)``, as strong a
    truncation; "preserving" keeps it: scalar weights of ``1 / sqrt(k)``, or under softmax one
    random member for each coordinate.

    Args:
        start: "alone", "uniform", "random" or "preserving".
        num_basis: k.
        dim: Coordinates with weights of their own; 1 for scalar weights.
        mixing: The form of the weights; under softmax they are positive and sum to 1.
        generator: CPU generator, advanced by "random" and, under softmax, by "preserving".

    References:
        Paper: "uniform" (w = 1/k). gnobitab/FuseDream: "random" (softmax of N(0, 1)).
    """
    shape = (num_basis, dim)
    if start == "uniform":
        return torch.full(shape, 1.0 / num_basis)
    if start == "random":
        return rng.normal(shape, generator=generator).softmax(dim=0)
    if start == "preserving" and mixing == "scalar":
        return torch.full(shape, 1.0 / math.sqrt(num_basis))
    leader = torch.zeros(1, dim, dtype=torch.int64)
    if start == "preserving":
        leader = rng.integers((1, dim), 0, num_basis - 1, generator=generator)
    leading = torch.zeros(shape).scatter_(0, leader, 1.0)
    if mixing == "scalar":
        return leading
    return leading * _LEADING_WEIGHT + (1.0 - _LEADING_WEIGHT) / num_basis
