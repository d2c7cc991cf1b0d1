"""The candidates of several problems, optimised as one batch.

One engine serves ``optimize``, ``compose`` and ``invert_image``: they differ in their objective and
in how the gradients become a direction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from .. import rng
from ..config import AdamConfig
from ..errors import CheckpointError
from ..memory import AutoBatchSize
from ..models.gan.base import Gan
from ..state import State, copy_state, restore_generators, stacked
from .adam import LatentOptimizer
from .checkpoints import Checkpoints
from .latent import LatentPair, OverparameterizedLatent


class Candidate(Protocol):
    """One of several that compete for a problem: a start, or a placement."""

    @property
    def problem(self) -> int:
        """The index of its problem."""


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

    def noisy_latent(self) -> LatentPair:
        """The mixed z and y of all rows with this step's noise, as a graph of the parameters.

        Advances the generators where there is noise.
        """
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
        """The gradients of the parameters, given those of the latent; may be called again."""
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
        """Trials of these settings that go on from a state; ``candidate`` makes one of its fields.

        Raises:
            CheckpointError: If the state is of other tensors.
        """
        state = copy_state(state)  # as Adam works in place
        optimizer = self.optimizer.restored(state["optimizer"])
        latent = optimizer.latent.mixed()
        checkpoints = self.checkpoints.restored(state["checkpoints"], latent)
        candidates = [candidate(*own) for own in state["candidates"]]
        trace = [] if state["trace"] is None else list(state["trace"].to(latent[0].device))
        trials = Trials(optimizer, checkpoints, candidates, self.generators, trace)
        trials.check()
        restore_generators(self.generators, state["generators"])
        return trials

    def check(self) -> None:
        """Check that all parts are of as many rows, candidates and steps.

        Raises:
            CheckpointError: If not, as in a damaged file.
        """
        num, known = len(self.candidates), range(len(self.generators))
        rows = {len(own) for own in (*self.optimizer.tensors(), *self.checkpoints.tensors())}
        fits = (
            num > 0
            and {own.problem for own in self.candidates} == {*known}
            and len(rows) == 1
            and rows.pop() % num == 0
            and 0 <= self.num_steps == len(self.trace) <= self.optimizer.config.num_steps
            and all(numbers.shape[-1] == num for numbers in self.trace)
            and self.checkpoints.is_whole
        )
        if not fits:
            raise CheckpointError("The saved run is damaged: its parts do not fit together.")


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
    """Successive halving: the ``count`` best candidates of each problem.

    They are grouped by problem, each problem's in their old order.

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
