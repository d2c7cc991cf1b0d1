"""Who takes part: the runs that are composed together, and the configurations of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .. import rng
from ..state import State
from ..types import Basis, Target
from .placement import Box, Placement
from .records import Attempt


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One composition of several: what it is to show, of what, and its own random numbers.

    Attributes:
        target: What the composite is to show.
        parts: What foreground and background are to show by themselves, or None.
        foreground: Latents for the picture that is pasted.
        background: Latents for the picture that it is pasted on; may be the same basis.
        start: For the mixtures' starts; like the other two, only ever drawn from by copies.
        judge: For the changes that choose the result.
        steps: For the changes of the steps.
        attempts: How far each of its configurations came.
    """

    target: Target
    parts: tuple[Target | None, Target | None]
    foreground: Basis
    background: Basis
    start: torch.Generator
    judge: torch.Generator
    steps: torch.Generator
    attempts: dict[Placement, Attempt] = field(default_factory=dict)

    def attempts_state(self) -> list[State]:
        """How far its configurations came, as plain data."""
        return [dataclasses.asdict(attempt) for attempt in self.attempts.values()]

    def restore_attempts(self, state: Sequence[State]) -> None:
        """Take over how far they came."""
        for own in state:
            placement = Placement(**own["placement"])
            attempt = Attempt(placement, own["score"], own["num_steps"])
            self.attempts[placement] = attempt

    def num_members(self, most: int) -> int:
        """How many latents of each picture are optimised together: as many as both bases have."""
        return min(most, len(self.foreground.scores), len(self.background.scores))


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One configuration of a run: where the foreground lies.

    Attributes:
        run: Whose it is.
        placement: Its scale and position.
        box: The same in pixels.
    """

    run: Run
    placement: Placement
    box: Box

    def state(self, runs: Sequence[Run]) -> State:
        """It as plain data, where its run is one of these."""
        place, box = (dataclasses.astuple(own) for own in (self.placement, self.box))
        return {"run": runs.index(self.run), "placement": place, "box": box}

    @classmethod
    def restored(cls, state: State, runs: Sequence[Run]) -> Entry:
        """What was plain data."""
        return cls(runs[state["run"]], Placement(*state["placement"]), Box(*state["box"]))

    def remember(self, score: float, num_steps: int) -> None:
        """Note how far it came."""
        self.run.attempts[self.placement] = Attempt(self.placement, score, num_steps)


def make_run(
    target: Target,
    parts: tuple[Target | None, Target | None],
    foreground: Basis,
    background: Basis,
    generator: torch.Generator,
) -> Run:
    """One run, with children of its generator, so that none moves what another draws."""
    return Run(
        target,
        parts,
        foreground,
        background,
        start=rng.fork(generator),
        judge=rng.fork(generator),
        steps=rng.fork(generator),
    )
