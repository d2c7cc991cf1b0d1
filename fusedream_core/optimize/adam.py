"""Adam on the tensors of a mixture: what is moved, how fast, and the noise on the way."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import OptimizeConfig
from ..models.gan.base import Gan
from ..state import State, like
from .latent import Mixture, join_runs

_FINAL_RATE = 0.1  # of the learning rate, at the end of the cosine schedule


class Descent:
    """The optimisation of a batch of runs: a mixture, and Adam's memory of it.

    No term couples the rows of a mixture, so any of them can go on without the others.

    Attributes:
        mixture: The mixture, moved in place.
        config: Steps, learning rates and schedule.
        units: The spread of z and of y, in whose units learning rates and noise are, or ones.
        num_steps_done: Steps taken so far.
    """

    def __init__(
        self, mixture: Mixture, gan: Gan, config: OptimizeConfig, *, truncation: float
    ) -> None:
        """Make the mixture's tensors require gradients, and Adam for them."""
        self.mixture, self.config = mixture, config
        spread = config.units == "spread"
        self.units = (gan.z_std * truncation, gan.y_std) if spread else (1.0, 1.0)
        self.num_steps_done = 0
        self._adam = torch.optim.Adam(self._groups())

    def _groups(self) -> list[dict[str, Any]]:
        """What Adam moves, and how fast at first."""
        config, (z_unit, y_unit) = self.config, self.units
        groups: list[dict[str, Any]] = [
            {"params": [self.mixture.z_basis], "rate": config.lr_z * z_unit},
            {"params": self.mixture.mixes(), "rate": config.lr_w},
        ]
        if config.y_mode == "free":
            groups.append({"params": [self.mixture.y_basis], "rate": config.lr_y * y_unit})
        for group in groups:
            for tensor in group["params"]:
                tensor.requires_grad_(True)
        return groups

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that are moved; each has the runs as its first dimension."""
        return [tensor for group in self._adam.param_groups for tensor in group["params"]]

    @property
    def decay(self) -> float:
        """What falls from 1 to 0 over the steps, or stays 1."""
        if self.config.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * self.num_steps_done / self.config.num_steps))

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step against the gradients of ``parameters``."""
        for tensor, gradient in zip(self.parameters, gradients, strict=True):
            tensor.grad = gradient
        factor = _FINAL_RATE + (1.0 - _FINAL_RATE) * self.decay
        for group in self._adam.param_groups:
            group["lr"] = group["rate"] * factor
        self._adam.step()
        self.mixture.clamp_basis_()
        self.num_steps_done += 1

    def metric(self) -> list[Tensor]:
        """How far Adam would move each coordinate for a gradient of 1, as of its last step.

        The diagonal of P in ``step = -P gradient``, momentum aside: the learning rate over the
        root of the second moment. Where there is none yet that root is taken for 1: before the
        first step, and for a coordinate that only had gradients of exactly 0, like those of a
        member whose weight was 0 so far.
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

    def pick(self, rows: Tensor) -> Descent:
        """Some of the runs, which go on just as they would have among all."""
        memory = [
            {name: value[rows] if value.ndim else value.clone() for name, value in own.items()}
            for own in self._memory()
        ]
        return self._resumed(self.mixture.pick(rows), memory)

    def state_dict(self) -> State:
        """The mixture, and what Adam remembers of it."""
        return {
            "num_steps_done": self.num_steps_done,
            "mixture": self.mixture.state_dict(),
            "adam": [dict(own) for own in self._memory()],
        }

    def restored(self, state: State) -> Descent:
        """A descent of these settings that stands where a saved one stood.

        Raises:
            CheckpointError: If it is one of other tensors.
        """
        mixture = self.mixture.restored(state["mixture"])
        memory = [
            {k: like(own, old) if own.ndim else own for k, own in saved.items()}
            for saved, old in zip(state["adam"], self.parameters, strict=True)
        ]
        other = self._resumed(mixture, memory)
        other.num_steps_done = int(state["num_steps_done"])
        return other

    def _memory(self) -> list[dict[str, Tensor]]:
        """What Adam remembers of each of ``parameters``: nothing before the first step."""
        return [self._adam.state[tensor] for tensor in self.parameters]

    def _resumed(self, mixture: Mixture, memory: Sequence[dict[str, Tensor]]) -> Descent:
        """A descent that is as far as this one, of another mixture."""
        other = copy.copy(self)
        other.mixture = mixture
        other._adam = torch.optim.Adam(other._groups())
        for tensor, own in zip(other.parameters, memory, strict=True):
            if own:
                other._adam.state[tensor] = own
        return other


def join_descents(several: Sequence[Descent]) -> Descent:
    """The runs of several descents that are equally far, as one batch."""
    memory = [
        {
            name: torch.cat([own[name] for own in each]) if value.ndim else value.clone()
            for name, value in each[0].items()
        }
        for each in zip(*(descent._memory() for descent in several), strict=True)
    ]
    mixture = join_runs([descent.mixture for descent in several])
    return several[0]._resumed(mixture, memory)
