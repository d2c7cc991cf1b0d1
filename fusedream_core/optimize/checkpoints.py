"""The latents on the way that may be returned. The paper returns the last one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..config import AdamConfig
from ..state import State, like
from .latent import LatentPair

EMA_DECAY = 0.95  # of the running average of the latent


class Checkpoints:
    """The latents on the way that may be returned: some steps', the running average, the last."""

    def __init__(self, config: AdamConfig) -> None:
        """Plan which to keep; ``config`` says how many, and which are asked for."""
        self._only_last = config.selection == "last"
        num = config.num_snapshots
        self._steps = {config.num_steps * index // num for index in range(num)}
        self._kept: dict[str, LatentPair] = {}
        self._ends: dict[str, LatentPair] = {}  # "average" and "last", as of now

    def add(self, step: int, latent: LatentPair) -> None:
        """Take in the latents after ``step`` steps; 0 is the start."""
        z, y = latent[0].detach(), latent[1].detach()
        old_z, old_y = self._ends.get("average", (z, y))
        average = torch.lerp(z, old_z, EMA_DECAY), torch.lerp(y, old_y, EMA_DECAY)
        self._ends = {"average": average, "last": (z, y)}
        if step in self._steps:
            self._kept[f"step {step}"] = (z, y)

    def pick(self, rows: Tensor) -> Checkpoints:
        """The same, of some rows."""
        return self._mapped(self.state_dict(), lambda z, y: (z[rows], y[rows]))

    def state_dict(self) -> State:
        """All latents by name."""
        return {"kept": self._kept, "ends": self._ends}

    def restored(self, state: State, latent: LatentPair) -> Checkpoints:
        """Checkpoints as they were saved, of rows like those of a latent.

        Raises:
            CheckpointError: If they are of another kind.
        """
        return self._mapped(state, lambda z, y: (like(z, latent[0]), like(y, latent[1])))

    def tensors(self) -> list[Tensor]:
        """All tensors; their first dimension is that of the rows."""
        return [
            block for part in (self._kept, self._ends) for pair in part.values() for block in pair
        ]

    @property
    def is_whole(self) -> bool:
        """Whether the last latent and the average are there."""
        return {*self._ends} == {"average", "last"}

    def named(self) -> dict[str, LatentPair]:
        """The latents to choose from, by name."""
        if self._only_last:
            return {"last": self._ends["last"]}
        return self._kept | self._ends

    def _mapped(self, state: State, change: Callable[[Any, Any], LatentPair]) -> Checkpoints:
        """Checkpoints of this plan, with the changed latents of a state."""
        other = copy.copy(self)
        other._kept, other._ends = (
            {name: change(*pair) for name, pair in state[part].items()} for part in ("kept", "ends")
        )
        return other
