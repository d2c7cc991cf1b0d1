"""All configurations of some compositions: pre-search, halving, the best composite of each run.

No part of the paper, which optimises all of them to the end. One that stays ends where it would
have ended alone. Configurations compete with those of their own run only, and are batched with all.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..config import AugmentConfig
from ..memory import AutoBatchSize, is_out_of_memory
from ..state import State, copy_state
from ..types import Callback
from .configurations import Configurations, join_configurations, make_configurations
from .entries import Run
from .objective import Compositor
from .pairs import PairSearch, best_members
from .placement import Placement
from .progress import Progress
from .records import Attempt, ComposeResult
from .saved import restore_configurations


class Tournament:
    """All configurations of all runs, from the pre-search to the best composites."""

    _field: Configurations  # those that are still in it, between two rungs
    _progress: Progress

    def __init__(
        self,
        compositor: Compositor,
        augment: AugmentConfig,
        runs: Sequence[Run],
        callback: Callback | None,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        self._compositor, self._config, self._augment = compositor, compositor.config, augment
        self._runs, self._callback, self._on_state = runs, callback, on_state
        self._rung = 0
        self._waiting, self._done = list[Configurations](), list[Configurations]()
        self._room = AutoBatchSize(self._config.batch_size_on(compositor.gan.device))

    def enter(self, placements: Sequence[Placement]) -> None:
        """Pre-search, and the first rung's configurations, each at its best pair of latents."""
        search = PairSearch(self._compositor, self._runs, placements, self._callback)
        entries, foregrounds, backgrounds = [], [], []
        for run in self._runs:
            own, scores = search.rate(run)
            tops = scores.flatten(1).amax(dim=1)  # (P,)
            for entry, top in zip(own, tops.tolist(), strict=True):
                entry.remember(top, 0)
            order = tops.argsort(descending=True, stable=True)[: self._config.rungs[0][0]]
            for row in order.tolist():
                num = run.num_members(self._config.num_basis)
                front, back = best_members(scores[row], num)
                entries.append(own[row])
                foregrounds.append(run.foreground.pick(front))
                backgrounds.append(run.background.pick(back))
        self._field = make_configurations(
            self._compositor, self._augment, entries, foregrounds, backgrounds
        )
        self._waiting = [self._field]
        entered = len(entries) // len(self._runs)  # all have the same placements
        counts = [count for count, _ in self._config.rungs]
        spans = [end - begin for begin, end in itertools.pairwise([0, *self._ends])]
        each = sum(min(n, entered) * span for n, span in zip(counts, spans, strict=True))
        self._progress = Progress("compose", each * len(self._runs), self._callback)

    def restore(self, state: State) -> None:
        """Stand where a saved one stood, instead of ``enter``."""
        self._rung = int(state["rung"])
        self._waiting, self._done = (
            [
                restore_configurations(self._compositor, self._augment, self._runs, own)
                for own in state[name]
            ]
            for name in ("waiting", "done")
        )
        for run, attempts in zip(self._runs, state["attempts"], strict=True):
            run.restore_attempts(attempts)
        self._progress = Progress("compose", state["total"], self._callback)
        self._progress.done = state["reported"]
        self._room.size, self._compositor.limit.size = state["limits"]

    def _note(self, num: int) -> None:
        """Hand out where everything stands, after a step of so many configurations."""
        if self._on_state is not None:
            state = {
                "rung": self._rung,
                "waiting": [some.state_dict(self._runs) for some in self._waiting],
                "done": [some.state_dict(self._runs) for some in self._done],
                "attempts": [run.attempts_state() for run in self._runs],
                "reported": self._progress.done + num,
                "total": self._progress.total,
                "limits": [self._room.size, self._compositor.limit.size],
            }
            self._on_state(copy_state(state))

    @property
    def _ends(self) -> list[int]:
        """The step that each rung ends with."""
        num_steps = self._config.optimize.num_steps
        return [max(1, round(share * num_steps)) for _, share in self._config.rungs]

    def play(self) -> None:
        """Optimise, dropping the worse configurations before each rung but the first."""
        for rung, end in enumerate(self._ends):
            if rung < self._rung:
                continue  # done before the state was taken
            if rung > self._rung:
                self._halve(self._config.rungs[rung][0])
                self._rung, self._waiting = rung, [self._field]
            self._advance(end)
        self._field.finish()

    def _advance(self, end: int) -> None:
        """All configurations to the same step, in as few batches as there is room for."""
        while self._waiting:
            some = self._waiting[0]
            if len(some) > self._size:
                self._waiting[:1] = some.split(self._size)
            elif self._has_room(some, end):  # or else it waits at the step that it came to
                self._done.append(self._waiting.pop(0))
        self._field, self._done = join_configurations(self._done), []

    @property
    def _size(self) -> int:
        """Configurations in a batch; fewer where memory ran out."""
        return self._room.size or sum(len(some) for some in (*self._waiting, *self._done))

    def _has_room(self, some: Configurations, end: int) -> bool:
        """Whether a batch came to its step; if not, memory ran out, and less is to be tried."""

        def observe(scores: Tensor, images: Tensor) -> None:
            self._note(len(scores))
            self._progress.tell(scores, images, num=len(scores))

        try:
            some.advance(end, observe)
        except (RuntimeError, MemoryError) as error:
            copies = self._compositor.limit.size or len(some) * self._augment.num_augments
            if not is_out_of_memory(error) or (len(some) == 1 and copies == 1):
                raise
        else:
            return True
        if len(some) == 1:
            self._compositor.limit.halve(copies)
        else:
            self._room.halve(len(some))
        return False

    def _halve(self, count: int) -> None:
        """Each run keeps its best by their last steps, whose changes were the same for all."""
        field, kept = self._field, list[int]()
        scores = field.recent_scores()
        for entry, score in zip(field.entries, scores, strict=True):
            entry.remember(score, field.descent.num_steps_done)
        for run in self._runs:
            own = [row for row, entry in enumerate(field.entries) if entry.run is run]
            kept += sorted(sorted(own, key=lambda row: -scores[row])[:count])
        self._field = field.pick(kept)

    @torch.no_grad()
    def crown(self) -> list[ComposeResult]:
        """The best iterate of the best configuration of each run, by held-out AugCLIP."""
        batches = self._field.split(self._room.size or len(self._field))
        total = sum(len(some.iterates.candidates()) for some in batches)
        progress = Progress("select", total, self._callback)
        best: dict[Run, tuple[float, ComposeResult]] = {}
        for some in batches:
            tops = [-torch.inf] * len(some)
            for judged in some.judge():
                for row, mean in enumerate(judged.score.mean.tolist()):
                    run, tops[row] = some.entries[row].run, max(tops[row], mean)
                    if run not in best or mean > best[run][0]:
                        best[run] = mean, some.result(row, judged)
                progress.tell(judged.score.mean, judged.pictures.composite)
            for entry, top in zip(some.entries, tops, strict=True):
                entry.remember(top, self._config.optimize.num_steps)
        return [dataclasses.replace(best[run][1], attempts=_ranked(run)) for run in self._runs]


def _ranked(run: Run) -> tuple[Attempt, ...]:
    """How far all configurations of a run came, best first."""
    return tuple(sorted(run.attempts.values(), key=lambda a: (-a.num_steps, -a.score)))
