"""Adam on the tensors of an over-parameterised latent: what is moved, and how fast."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import AdamConfig
from ..models.gan.base import Gan
from ..state import State, like
from .latent import OverparameterizedLatent

_FINAL_RATE = 0.1  # of the learning rate, at the end of the cosine schedule


class LatentOptimizer:
    """Over-parameterised latents, and Adam's moments for them.

    No term couples the rows of a latent, so that some of them can go on without the others.

    Attributes:
        latent: The latents, moved in place.
        config: Steps, learning rates and schedule.
        units: The spread of z and of y, in whose units learning rates and noise are, or ones.
        num_steps: Steps taken so far.
    """

    def __init__(
        self,
        latent: OverparameterizedLatent,
        gan: Gan,
        config: AdamConfig,
        *,
        truncation: float,
    ) -> None:
        """Make the latents' tensors require gradients, and Adam for them."""
        self.latent, self.config = latent, config
        spread = config.units == "spread"
        self.units = (gan.z_std * truncation, gan.y_std) if spread else (1.0, 1.0)
        self.num_steps = 0
        self._adam = torch.optim.Adam(self._groups())

    def _groups(self) -> list[dict[str, Any]]:
        """Adam's parameter groups with their first learning rates."""
        config, (z_unit, y_unit) = self.config, self.units
        groups: list[dict[str, Any]] = [
            {"params": [self.latent.z_basis], "rate": config.lr_z * z_unit},
            {"params": self.latent.mixes(), "rate": config.lr_w},
            {"params": [self.latent.y_basis], "rate": config.lr_y * y_unit},
        ]
        for group in groups:
            for tensor in group["params"]:
                tensor.requires_grad_(True)
        return groups

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that are moved; the first dimension of each is that of the latents."""
        return [tensor for group in self._adam.param_groups for tensor in group["params"]]

    @property
    def decay(self) -> float:
        """A factor that falls from 1 to 0 over the steps, or stays 1.

        The latent noise follows it all the way, learning rates down to ``_FINAL_RATE``.
        """
        if self.config.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * self.num_steps / self.config.num_steps))

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step against the gradients of ``parameters``."""
        for tensor, gradient in zip(self.parameters, gradients, strict=True):
            tensor.grad = gradient
        factor = _FINAL_RATE + (1.0 - _FINAL_RATE) * self.decay
        for group in self._adam.param_groups:
            group["lr"] = group["rate"] * factor
        self._adam.step()
        self.latent.clamp_basis_()
        self.num_steps += 1

    def metric(self) -> list[Tensor]:
        """How far Adam would move each coordinate for a gradient of 1, as of its last step.

        The diagonal of P in ``step = -P gradient``, momentum aside: the learning rate over the
        root of the second moment. Where there is none yet that root is taken for 1: before the
        first step, and for a coordinate that only had gradients of exactly 0, like those of a
        member whose weight was 0 so far. The schedule's factor is left out: it is common to all
        coordinates, and cancels in lambda and the cosine.
        """
        metric = []
        for group in self._adam.param_groups:
            for tensor in group["params"]:
                state, rate = self._adam.state[tensor], group["rate"]
                if not state:
                    metric.append(torch.full_like(tensor, rate))
                    continue
                correction = 1.0 - group["betas"][1] ** float(state["step"])
                root = (state["exp_avg_sq"] / correction).sqrt()
                metric.append(rate / torch.where(root > 0, root + group["eps"], 1.0))
        return metric

    def pick(self, rows: Tensor) -> LatentOptimizer:
        """Some of the latents, which go on just as they would have among all."""
        memory = [
            {name: value[rows] if value.ndim else value.clone() for name, value in own.items()}
            for own in self._memory()
        ]
        return self._resumed(self.latent.pick(rows), memory)

    def state_dict(self) -> State:
        """The latents and Adam's moments."""
        return {
            "num_steps": self.num_steps,
            "latent": self.latent.state_dict(),
            "adam": [dict(own) for own in self._memory()],
        }

    def restored(self, state: State) -> LatentOptimizer:
        """An optimiser of these settings with a saved one's latents and moments.

        Raises:
            CheckpointError: If it is one of other tensors.
        """
        memory = [
            {k: like(own, old) if own.ndim else own for k, own in saved.items()}
            for saved, old in zip(state["adam"], self.parameters, strict=True)
        ]
        other = self._resumed(self.latent.restored(state["latent"]), memory)
        other.num_steps = int(state["num_steps"])
        return other

    def tensors(self) -> list[Tensor]:
        """The latents' tensors and Adam's moments of them; their first dimension is the rows."""
        moments = (own for memory in self._memory() for own in memory.values() if own.ndim)
        return [*self.parameters, *moments]

    def _memory(self) -> list[dict[str, Tensor]]:
        """Adam's moments of each of ``parameters``: nothing before the first step."""
        return [self._adam.state[tensor] for tensor in self.parameters]

    def _resumed(
        self, latent: OverparameterizedLatent, memory: Sequence[dict[str, Tensor]]
    ) -> LatentOptimizer:
        """An optimiser after as many steps, of other latents."""
        other = copy.copy(self)
        other.latent = latent
        other._adam = torch.optim.Adam(other._groups())
        for tensor, own in zip(other.parameters, memory, strict=True):
            if own:
                other._adam.state[tensor] = own
        return other
