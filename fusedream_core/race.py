"""The steps of a batch of runs, each of which tries several starts and goes on with the best.

The paper has one start, and so have ``PAPER`` and ``REFERENCE_CODE``. Trying several is an
addition: which class fits a prompt best is clearer after some steps than from the seeds' scores.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import rng
from .classes import named_classes
from .config import OptimizeConfig, Start
from .descent import Descent
from .mixing import Mixture, join_runs, make_mixture, pick_runs
from .runs import Iterates, LatentPair, Runs, put_rows
from .types import Basis, Callback, Score, StepInfo

logger = logging.getLogger(__name__)

_CLEARLY = 2.0  # standard errors
_STARTS: tuple[Start, ...] = ("alone", "uniform", "random", "preserving")

# Given the iterates of all runs and the runs that have not stopped: those of them that go on.
Review = Callable[[Iterates, list[int]], list[int]]


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How B runs went.

    Attributes:
        iterates: Those worth keeping.
        trace: The score of each step, ``(steps, B)``; NaN where a run had stopped.
        starts: How each run started.
        stopped: After how many steps each run stopped; None for one that took all.
    """

    iterates: Iterates
    trace: Tensor
    starts: tuple[str, ...]
    stopped: tuple[int | None, ...]


class Race:
    """The steps of B runs. For the first of them each run has S starts, of which the best goes on.

    S starts of B runs are one batch of S * B rows: the first starts of all runs, then the second.
    ``generators`` (one for each run) feed the steps, ``start_generators`` starts and choice.
    ``review``, if there is one, says at each snapshot after the race which runs go on.
    """

    _descent: Descent  # of the rows that are on the way
    _starts: tuple[str, ...]

    def __init__(
        self,
        runs: Runs,
        bases: Sequence[Basis],
        config: OptimizeConfig,
        generators: Sequence[torch.Generator],
        start_generators: Sequence[torch.Generator],
        callback: Callback | None,
        review: Review | None = None,
    ) -> None:
        self._runs, self._config, self._callback = runs, config, callback
        self._review = review
        self._generators, self._start_generators = generators, start_generators
        self._num_starts = min(config.num_starts, len(bases[0].scores))
        named = [set(named_classes(runs.gan.class_names, target)) for target in runs.targets]
        leading = [
            _leaders(basis, own, self._num_starts) for basis, own in zip(bases, named, strict=True)
        ]
        self._rivals = [
            [basis.pick(order[rank]) for basis, order in zip(bases, leading, strict=True)]
            for rank in range(self._num_starts)
        ]
        self._named = torch.tensor(  # (S, B)
            [
                [int(basis.class_index[0]) in own for basis, own in zip(row, named, strict=True)]
                for row in self._rivals
            ]
        )
        self._iterates, self._trace = Iterates(config), list[Tensor]()
        self._running = list(range(len(generators)))  # the runs that have not stopped
        self._stopped: list[int | None] = [None for _ in generators]
        self._shown: tuple[Tensor, Tensor] | None = None  # scores and pictures of all runs

    def run(self) -> Course:
        """Take all steps, but for runs that stop."""
        config = self._config
        mixture, self._starts = self._start()
        self._descent = Descent(mixture, self._runs.gan, config, truncation=self._runs.truncation)
        self._iterates.observe(0, mixture.latent())
        if self._num_starts > 1:
            for _ in range(round(config.trial_share * config.num_steps)):
                self._step()
            self._end_trial()
        self._drop_stopped()
        while self._running and self._descent.num_steps_done < config.num_steps:
            self._step()
        trace = torch.stack(self._trace)
        return Course(self._iterates, trace, self._starts, tuple(self._stopped))

    def _start(self) -> tuple[Mixture, tuple[str, ...]]:
        """Each run's first start as the settings have it; in each other another member leads."""
        first, kinds = _choose_start(
            self._runs, self._rivals[0], self._config, self._start_generators, self._callback
        )
        rivals = [
            _make_mixture(self._runs, bases, "alone", self._config, self._start_generators)
            for bases in self._rivals[1:]
        ]
        ranks = range(2, self._num_starts + 1)
        starts = [*kinds, *(f"rival {rank}" for rank in ranks for _ in kinds)]
        return join_runs([first, *rivals]), tuple(starts)

    def _end_trial(self) -> None:
        """Each run goes on with its best start alone."""
        rows = self._best_rows(self._descent.mixture.latent())
        self._descent, self._iterates = self._descent.pick(rows), self._iterates.pick(rows)
        self._trace = [scores[rows] for scores in self._trace]
        self._starts = tuple(self._starts[row] for row in rows.tolist())

    def _step(self) -> None:
        """One step of all rows of the runs that go on; rivals meet the same changes."""
        descent, running = self._descent, self._running
        latent = descent.mixture.latent()
        num_starts = len(latent[0]) // len(running)
        own = [self._generators[run] for run in running]
        twins = [rng.copy(g) for _ in range(num_starts - 1) for g in own]
        generators = [*own, *twins]
        seen = _add_noise(latent, descent, generators)
        num = self._num_augments(descent.num_steps_done)
        scores, images, uphill = self._runs.pick(running * num_starts).ascend(
            seen, self._config.objective, num, generators, num_starts
        )
        moved, downhill = descent.parameters, [-gradient for gradient in uphill]
        descent.step(torch.autograd.grad(seen, moved, downhill, materialize_grads=True))
        self._take_in(scores)
        if num_starts == 1:
            self._drop_stopped()
        self._tell(running, scores, images)

    def _take_in(self, scores: Tensor) -> None:
        """Remember what a step made of the runs that go on."""
        num_runs, rows = len(self._generators), None
        if len(self._running) < num_runs:
            rows = self._running
            of_all = scores.new_full((num_runs,), torch.nan)
            scores = of_all.index_copy(0, torch.tensor(rows, device=scores.device), scores)
        self._trace.append(scores)
        self._iterates.observe(self._descent.num_steps_done, self._descent.mixture.latent(), rows)

    def _drop_stopped(self) -> None:
        """Let those runs stop that the review finds not worth going on with, at a snapshot."""
        done, running = self._descent.num_steps_done, self._running
        if self._review is None or not self._iterates.is_snapshot(done):
            return
        self._running = self._review(self._iterates, running)
        if self._running == running:
            return
        for run in set(running) - set(self._running):
            self._stopped[run] = done
        places = [place for place, run in enumerate(running) if run in self._running]
        self._descent = self._descent.pick(torch.tensor(places, dtype=torch.int64))

    def _num_augments(self, step: int) -> int:
        """Copies of a step, counted from 0: the first have fewer, if so asked."""
        share = self._config.first_augments
        done = step / max(1, self._config.num_steps - 1)
        return max(1, round(self._runs.augment.num_augments * (share + (1.0 - share) * done)))

    def _tell(self, running: list[int], scores: Tensor, images: Tensor) -> None:
        """Tell the callback of a step: for each run, its best start of now, or of its last step."""
        if self._callback is None:
            return
        num_runs = len(running)
        best = scores.view(-1, num_runs).argmax(dim=0)
        rows = best * num_runs + torch.arange(num_runs, device=best.device)
        now = scores[rows], images[rows]
        if self._shown is not None:
            now = put_rows(self._shown, running, now)
        self._shown = now
        step = self._descent.num_steps_done
        total = self._config.num_steps if self._running else step
        self._callback(StepInfo("optimize", step, total, *now))

    def _best_rows(self, latent: LatentPair) -> Tensor:
        """The row of each run's best start, by AugCLIP under the same changes for all."""
        num_runs = len(self._generators)
        z, y = (block.detach() for block in latent)
        rivals = list(zip(z.split(num_runs), y.split(num_runs), strict=True))
        _, scores = self._runs.judge(
            rivals,
            self._runs.augment.num_augments,
            self._start_generators,
            stage="race",
            callback=self._callback,
        )
        return _winners(scores, self._named) * num_runs + torch.arange(num_runs)


def _winners(scores: Score, named: Tensor) -> Tensor:
    """The best of S starts of each run, ``(B,)`` on the CPU.

    The best start whose leader is of a class that the prompt names goes on unless another is
    clearly better, by two of its standard errors: what is less tells little at this stage, and the
    name is a better guess than chance.

    Args:
        scores: Of all starts, ``(S, B)``.
        named: Which of them have such a leader, ``(S, B)``.
    """
    means, errors, named = scores.mean.cpu(), scores.stderr.cpu().nan_to_num(0.0), named.cpu()
    top, first = means.max(dim=0)
    best, own = means.masked_fill(~named, -torch.inf).max(dim=0)
    margin = _CLEARLY * errors.gather(0, own[None])[0]
    return torch.where(best + margin >= top, own, first)


def _leaders(basis: Basis, named: set[int], num: int) -> list[Tensor]:
    """Orders of a basis's members, each with another leader.

    The best of all leads first; then the first of each other class in turn, those of the ``named``
    classes before the rest; then the others. Who does not lead keeps the order.
    """
    classes = basis.class_index.tolist()
    everyone = range(len(classes))
    first = [index for index in everyone if index and classes[index] not in classes[:index]]
    first = [0, *sorted(first, key=lambda index: classes[index] not in named)]
    others = [index for index in everyone if index not in first]
    return [
        torch.tensor([lead, *(index for index in everyone if index != lead)])
        for lead in [*first, *others][:num]
    ]


def _choose_start(
    runs: Runs,
    bases: Sequence[Basis],
    config: OptimizeConfig,
    generators: Sequence[torch.Generator],
    callback: Callback | None,
) -> tuple[Mixture, tuple[Start, ...]]:
    """The mixture that each run starts from; for "best", the best of all kinds by AugCLIP."""
    kinds = _STARTS if config.start == "best" else (config.start,)
    mixtures = [_make_mixture(runs, bases, kind, config, generators) for kind in kinds]
    if len(kinds) == 1:
        return mixtures[0], kinds * len(bases)
    latents = [mixture.latent() for mixture in mixtures]
    _, scores = runs.judge(
        latents, runs.augment.num_augments, generators, stage="start", callback=callback
    )
    choice = scores.mean.argmax(dim=0)  # (S, B) -> (B,)
    starts = tuple(kinds[index] for index in choice.tolist())
    logger.debug("starts chosen by score: %s", starts)
    return pick_runs(mixtures, choice), starts


def _make_mixture(
    runs: Runs,
    bases: Sequence[Basis],
    kind: Start,
    config: OptimizeConfig,
    generators: Sequence[torch.Generator],
) -> Mixture:
    """The mixtures of some bases at one kind of start."""
    return make_mixture(
        bases,
        kind,
        mixing=config.mixing,
        z_clamp=config.z_clamp,
        device=runs.gan.device,
        generators=generators,
    )


def _add_noise(
    latent: LatentPair, descent: Descent, generators: Sequence[torch.Generator]
) -> LatentPair:
    """Latents with each run's own noise; drawn only if there is any."""
    std = descent.config.latent_noise_std * descent.decay
    if std == 0.0:
        return latent

    def noisy(block: Tensor, unit: float) -> Tensor:
        rows = [rng.normal((block.shape[1],), generator=generator) for generator in generators]
        return block + torch.stack(rows).to(block) * (std * unit)

    return noisy(latent[0], descent.units[0]), noisy(latent[1], descent.units[1])
