"""The steps of a batch of runs, each of which tries several starts and goes on with the best.

The paper has one start, and so have ``PAPER`` and ``REFERENCE_CODE``. Trying several is an
addition: which class fits a prompt best is clearer after some steps than from the seeds' scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import rng
from .classes import named_classes
from .config import OptimizeConfig
from .descent import Descent
from .mixing import Mixture, join_runs
from .runs import Iterates, LatentPair, Runs, put_rows
from .starts import choose_start, make_start
from .state import State, restore_generators, stacked
from .types import Basis, Callback, Score, StepInfo

_CLEARLY = 2.0  # standard errors

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
    _restored = False

    def __init__(
        self,
        runs: Runs,
        bases: Sequence[Basis],
        config: OptimizeConfig,
        generators: Sequence[torch.Generator],
        start_generators: Sequence[torch.Generator],
        callback: Callback | None,
        review: Review | None = None,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        self._runs, self._config, self._callback = runs, config, callback
        self._review, self._on_state = review, on_state
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
        """Take all steps, but for runs that stop; after ``restore``, those that are left."""
        config = self._config
        if not self._restored:
            mixture, self._starts = self._start()
            self._descent = self._make_descent(mixture)
            self._iterates.observe(0, mixture.latent())
        if self._in_trial:
            while self._descent.num_steps_done < round(config.trial_share * config.num_steps):
                self._step()
            self._end_trial()
            self._drop_stopped()
        elif not self._restored:
            self._drop_stopped()
        while self._running and self._descent.num_steps_done < config.num_steps:
            self._step()
        trace = torch.stack(self._trace)
        return Course(self._iterates, trace, self._starts, tuple(self._stopped))

    @property
    def _in_trial(self) -> bool:
        """Whether several starts of each run are on the way."""
        return len(self._starts) > len(self._generators)

    def _make_descent(self, mixture: Mixture) -> Descent:
        return Descent(mixture, self._runs.gan, self._config, truncation=self._runs.truncation)

    def _state_dict(self) -> State:
        """Where the runs stand, after a step; all that the next ones depend on."""
        return {
            "descent": self._descent.state_dict(),
            "iterates": self._iterates.state_dict(),
            "trace": stacked(self._trace),
            "starts": self._starts,
            "running": self._running,
            "stopped": self._stopped,
            "shown": self._shown,
            "generators": [own.get_state() for own in self._generators],
            "start_generators": [own.get_state() for own in self._start_generators],
        }

    def restore(self, state: State) -> None:
        """Stand where the runs stood when the state was taken, before ``run``."""
        form = make_start(
            self._runs, self._rivals[0], "alone", self._config, self._start_generators
        )
        self._descent = self._make_descent(form).restored(state["descent"])
        latent = self._descent.mixture.latent()
        self._iterates = self._iterates.restored(state["iterates"], latent)
        self._trace = [own.to(latent[0].device) for own in state["trace"]]
        self._starts = tuple(state["starts"])
        everyone = range(len(self._generators))
        self._running = [everyone[run] for run in state["running"]]
        self._stopped = list(state["stopped"])
        shown = state["shown"]
        self._shown = shown and (shown[0].to(latent[0].device), shown[1].to(latent[0].device))
        restore_generators(self._generators, state["generators"])
        restore_generators(self._start_generators, state["start_generators"])
        self._restored = True

    def _start(self) -> tuple[Mixture, tuple[str, ...]]:
        """Each run's first start as the settings have it; in each other another member leads."""
        first, kinds = choose_start(
            self._runs, self._rivals[0], self._config, self._start_generators, self._callback
        )
        rivals = [
            make_start(self._runs, bases, "alone", self._config, self._start_generators)
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
        descent, running, config = self._descent, self._running, self._config
        latent = descent.mixture.latent()
        num_starts = len(latent[0]) // len(running)
        own = [self._generators[run] for run in running]
        twins = [rng.copy(g) for _ in range(num_starts - 1) for g in own]
        generators = [*own, *twins]
        seen = _add_noise(latent, descent, generators)
        num = self._num_augments(descent.num_steps_done)
        scores, images, uphill = self._runs.pick(running * num_starts).ascend(
            seen, config.objective, num, generators, num_starts
        )
        moved, downhill = descent.parameters, [-gradient for gradient in uphill]
        descent.step(torch.autograd.grad(seen, moved, downhill, materialize_grads=True))
        self._take_in(scores)
        if num_starts == 1:
            self._drop_stopped()
        self._show(running, scores, images)
        if self._on_state is not None:
            self._on_state(self._state_dict())
        if self._callback is not None and self._shown is not None:
            total = config.num_steps if self._running else descent.num_steps_done
            self._callback(StepInfo("optimize", descent.num_steps_done, total, *self._shown))

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

    def _show(self, running: list[int], scores: Tensor, images: Tensor) -> None:
        """Keep score and image of each run's best start, of this step or of its last one."""
        num_runs = len(running)
        best = scores.view(-1, num_runs).argmax(dim=0)
        rows = best * num_runs + torch.arange(num_runs, device=best.device)
        now = scores[rows], images[rows]
        self._shown = now if self._shown is None else put_rows(self._shown, running, now)

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
