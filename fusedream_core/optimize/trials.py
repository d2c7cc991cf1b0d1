"""The candidates of several problems, optimised as one batch.

One engine serves ``optimize``, ``compose`` and ``invert_image``: they differ in their objective and
in how the gradients become a direction.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from .. import rng
from ..config import AdamConfig
from ..errors import CheckpointError
from ..memory import AutoBatchSize
from ..models.gan.base import Gan
from ..state import State, copy_state, like, restore_generators, stacked
from .adam import LatentOptimizer
from .latent import LatentPair, OverparameterizedLatent


class Candidate(Protocol):
    """One of several that compete for a problem: a start, or a placement."""

    @property
    def problem(self) -> int:
        """The index of its problem."""


EMA_DECAY = 0.95  # of the running average of the latent

CandidateT = TypeVar("CandidateT", bound=Candidate)


@dataclass(eq=False)
class Trials(Generic[CandidateT]):
    """C candidates, whose over-parameterised latents are optimised as one batch.

    Each has L latents: one, or those of foreground and background. Latent l of candidate c is row
    ``l * C + c``. No term couples candidates, so that some go on without the others to the same
    bits. Candidates of one problem share their random numbers.

    Attributes:
        optimizer: The latents, and Adam.
        checkpoints: The latents on the way that may be returned.
        candidates: What each candidate is.
        generators: A CPU generator for each problem, for the noise and augmentations of the steps.
        trace: The numbers of each step, ``(N, C)`` each.
    """

    optimizer: LatentOptimizer
    checkpoints: Checkpoints
    candidates: list[CandidateT]
    generators: Sequence[torch.Generator]
    trace: list[Tensor]

    @property
    def num_steps(self) -> int:
        """Steps taken so far."""
        return self.optimizer.num_steps

    @property
    def problems(self) -> list[int]:
        """The problem of each candidate."""
        return [candidate.problem for candidate in self.candidates]

    def latent(self) -> LatentPair:
        """The mixed z and y of all rows, with this step's noise, as a graph of the parameters."""
        z, y = self.optimizer.latent.mixed()
        std = self.optimizer.config.latent_noise_std * self.optimizer.decay
        if std == 0.0:
            return z, y
        z_unit, y_unit = self.optimizer.units
        return z + self._noise(z) * (std * z_unit), y + self._noise(y) * (std * y_unit)

    def _noise(self, block: Tensor) -> Tensor:
        """Normal numbers for all rows; each problem draws once for all of its candidates."""
        shape = (len(block) // len(self.candidates), block.shape[1])  # (L, dim)
        drawn = {
            problem: rng.normal(shape, generator=self.generators[problem])
            for problem in dict.fromkeys(self.problems)
        }
        rows = torch.stack([drawn[problem] for problem in self.problems], dim=1)  # (L, C, dim)
        return rows.flatten(0, 1).to(block)

    def backward(self, latent: LatentPair, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the parameters, given those of ``latent()``; may be called again."""
        found = torch.autograd.grad(
            latent, self.optimizer.parameters, gradients, retain_graph=True, materialize_grads=True
        )
        return list(found)

    def step(self, gradients: Sequence[Tensor], numbers: Tensor) -> None:
        """Take one step of Adam against gradients, and keep the step's numbers ``(N, C)``."""
        self.optimizer.step(gradients)
        self.trace.append(numbers.detach())
        self.checkpoints.add(self.num_steps, self.optimizer.latent.mixed())

    def rows(self, candidates: Sequence[int]) -> list[int]:
        """The rows of some candidates: their first latents, then their second."""
        num = len(self.candidates)
        num_latents = len(self.optimizer.latent.z_basis) // num
        return [layer * num + one for layer in range(num_latents) for one in candidates]

    def pick(self, candidates: Sequence[int]) -> Trials[CandidateT]:
        """Some of the candidates, which go on just as they would have among all."""
        rows = torch.tensor(self.rows(candidates))
        return dataclasses.replace(
            self,
            optimizer=self.optimizer.pick(rows),
            checkpoints=self.checkpoints.pick(rows),
            candidates=[self.candidates[one] for one in candidates],
            trace=[numbers[:, list(candidates)] for numbers in self.trace],
        )

    def state_dict(self) -> State:
        """All that the next steps depend on, as plain data and tensors."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "checkpoints": self.checkpoints.state_dict(),
            "candidates": [dataclasses.astuple(own) for own in self.candidates],  # type: ignore[call-overload]
            "generators": [own.get_state() for own in self.generators],
            "trace": stacked(self.trace),
        }

    def restored(self, state: State, candidate: Callable[..., CandidateT]) -> Trials[CandidateT]:
        """Trials of these settings that go on from a saved state.

        Args:
            state: As ``state_dict`` gave it.
            candidate: Makes a candidate of its saved fields.

        Raises:
            CheckpointError: If the state is of other tensors.
        """
        state = copy_state(state)  # as Adam works in place
        optimizer = self.optimizer.restored(state["optimizer"])
        latent = optimizer.latent.mixed()
        checkpoints = self.checkpoints.restored(state["checkpoints"], latent)
        candidates = [candidate(*own) for own in state["candidates"]]
        known = range(len(self.generators))
        strange = any(own.problem not in known for own in candidates)
        if strange or not candidates or len(latent[0]) % len(candidates):
            raise CheckpointError("The saved run is damaged: its candidates do not fit.")
        restore_generators(self.generators, state["generators"])
        trace = [] if state["trace"] is None else list(state["trace"].to(latent[0].device))
        return Trials(optimizer, checkpoints, candidates, self.generators, trace)


def start_trials(
    latent: OverparameterizedLatent,
    candidates: list[CandidateT],
    gan: Gan,
    config: AdamConfig,
    *,
    truncation: float,
    generators: Sequence[torch.Generator],
) -> Trials[CandidateT]:
    """Trials before their first step."""
    checkpoints = Checkpoints(config)
    checkpoints.add(0, latent.mixed())
    optimizer = LatentOptimizer(latent, gan, config, truncation=truncation)
    return Trials(optimizer, checkpoints, candidates, generators, [])


def keep_best(
    trials: Trials[CandidateT],
    count: int,
    score: Callable[[Trials[CandidateT]], Sequence[float]],
) -> Trials[CandidateT]:
    """Successive halving: the ``count`` best candidates of each problem, in their old order.

    ``score`` gives one number for each candidate; it is not called where none is to go.
    """
    problems = trials.problems
    if all(problems.count(problem) <= count for problem in {*problems}):
        return trials
    scores, kept = score(trials), list[int]()
    for problem in sorted({*problems}):
        own = [one for one, of in enumerate(problems) if of == problem]
        kept += sorted(sorted(own, key=lambda one: -scores[one])[:count])
    return trials.pick(kept)


def in_micro_batches(
    limit: AutoBatchSize,
    groups: Sequence[list[int]],
    copies_each: int,
    work: Callable[[list[int], int], tuple[Tensor, ...]],
    report: Callable[[tuple[Tensor, ...]], None] | None = None,
) -> tuple[Tensor, ...]:
    """The results of work on groups of candidates, in the order of the candidates.

    Args:
        limit: Most augmented views that CLIP encodes at once; halved where memory runs out.
        groups: The candidates, each in one group; a group is split where the limit asks for it.
        copies_each: Augmented views of each candidate.
        work: Given some candidates and the limit, returns tensors with a row for each. It may be
            called again after it failed.
        report: Given the results of each group once it is done.
    """
    order, found = list[int](), list[tuple[Tensor, ...]]()
    for group in groups:

        def attempt(copies: int, group: list[int] = group) -> tuple[Tensor, ...]:
            size = max(1, copies // copies_each)
            parts = [work(group[i : i + size], copies) for i in range(0, len(group), size)]
            return tuple(torch.cat(some) for some in zip(*parts, strict=True))

        found.append(limit.run(attempt, most=copies_each * len(group)))
        order += group
        if report is not None:
            report(found[-1])
    place = torch.tensor(order).argsort()
    return tuple(torch.cat(some)[place.to(some[0].device)] for some in zip(*found, strict=True))


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
