"""What the trainings share: a budget of time, checkpoints and a learning rate.

An interrupted run goes on from its last checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Counts steps, and seconds of processor time against a budget.

    The time between a step's end and the next one's start, spent on scores or checkpoints, is free.
    """

    def __init__(self, minutes: float) -> None:
        self.total = 60 * minutes
        self.spent = 0.0
        self.step = 0
        self._last: dict[str, float] = {}
        self._began = 0.0

    def steps(self) -> Iterator[float]:
        """Yield the share of the budget that is spent, once a step, until it is used up."""
        while self.spent < self.total:
            self._began = time.process_time()
            yield self.spent / self.total

    def tick(self) -> None:
        """End a step."""
        self.spent += time.process_time() - self._began
        self.step += 1

    def due(self, name: str, seconds: float) -> bool:
        """Whether ``seconds`` of training went by since ``name`` was due; always at the end."""
        late = self.spent - self._last.setdefault(name, 0.0) >= seconds or self.spent >= self.total
        if late:
            self._last[name] = self.spent
        return late

    def state(self) -> dict[str, float]:
        """What a checkpoint needs to go on."""
        return {"spent": self.spent, "step": self.step}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.spent, self.step = float(state["spent"]), int(state["step"])


def cosine(progress: float, step: int, *, warmup: int, floor: float) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to ``floor``."""
    decay = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * decay)


def half_precision() -> torch.autocast:
    """Autocast to bfloat16 where the processor multiplies in it; elsewhere it would be slower."""
    return torch.autocast(
        "cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def save_checkpoint(path: Path, **state: object) -> None:
    """Write a checkpoint, whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint's state, or None where there is none."""
    return torch.load(path, weights_only=True) if path.exists() else None
