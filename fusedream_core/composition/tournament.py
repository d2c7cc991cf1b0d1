"""All configurations of a composition against each other: pre-search, halving, the best composite.

No part of the paper, which optimises all of them to the end. One that stays ends where it would
have ended alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import rng
from ..classes import named_classes
from ..config import AugmentConfig
from ..memory import is_out_of_memory
from ..placement import Box, Placement, box_masks
from ..types import Basis, Callback, Latent, Score, StepInfo
from .compositor import Compositor, Pictures
from .configurations import Configurations, make_configurations
from .pairs import PairSearch, best_members
from .records import Attempt, ComposeResult, ComposeTrace

logger = logging.getLogger(__name__)


class Tournament:
    """All configurations, from the pre-search to the best composite."""

    def __init__(
        self,
        compositor: Compositor,
        augment: AugmentConfig,
        generator: torch.Generator,
        callback: Callback | None,
    ) -> None:
        self._compositor, self._config, self._augment = compositor, compositor.config, augment
        self._callback = callback
        # Children, so that none moves what another draws.
        self._start, self._judge, self._steps = (rng.fork(generator) for _ in range(3))
        self._attempts: dict[Placement, Attempt] = {}
        self._batches: list[Configurations] = []

    def enter(self, foreground: Basis, background: Basis, placements: Sequence[Placement]) -> None:
        """Pre-search, and the first rung's configurations, each at its best pair of latents."""
        compositor, config = self._compositor, self._config
        search = PairSearch(compositor, self._callback)
        wanted = self._wanted(foreground, background)
        fronts, backs = search.decode(
            foreground, background, num_places=len(placements), num_pairs=int(wanted.sum())
        )
        if compositor.perceptual is not None:
            with torch.no_grad():  # what it cannot look at is to be told before the work
                compositor.perceptual.distance_map(fronts[:1], backs[:1])
        places: dict[Box, Placement] = {}
        for placement in placements:  # at scale 1, for one, all positions are the same
            places.setdefault(placement.box(*backs.shape[-2:]), placement)
        boxes = list(places)
        scores = search.score(fronts, backs, boxes, wanted)
        tops = scores.flatten(1).amax(dim=1)  # (P,)
        for box, score in zip(boxes, tops.tolist(), strict=True):
            self._attempts[places[box]] = Attempt(places[box], score, 0)
        order = tops.argsort(descending=True, stable=True)[: config.rungs[0][0]]
        num = min(config.num_basis, len(foreground.scores), len(background.scores))
        for rows in order.split(config.batch_size_on(compositor.gan.device)):
            members = [best_members(scores[row], num) for row in rows]
            self._batches.append(
                make_configurations(
                    compositor,
                    self._augment,
                    [(places[boxes[row]], boxes[row]) for row in rows],
                    [foreground.pick(front) for front, _ in members],
                    [background.pick(back) for _, back in members],
                    self._start,
                )
            )

    def _wanted(self, foreground: Basis, background: Basis) -> Tensor:
        """Which pairs to look at, shape ``(K_f, K_b)``: those of two named classes, or else all."""
        named: Sequence[int] = ()
        if self._config.prefer_named:
            named = named_classes(self._compositor.gan.class_names, self._compositor.target)
        front, back = (b.class_index.tolist() for b in (foreground, background))
        both = torch.tensor([[f != b and f in named and b in named for b in back] for f in front])
        return both if both.any() else torch.ones_like(both)

    def play(self) -> None:
        """Optimise, dropping the worse configurations before each rung but the first."""
        counts = [count for count, _ in self._config.rungs]
        num_steps = self._config.optimize.num_steps
        ends = [max(1, round(share * num_steps)) for _, share in self._config.rungs]
        spans = [end - begin for begin, end in itertools.pairwise([0, *ends])]
        entered = sum(map(len, self._batches))
        total = sum(min(n, entered) * span for n, span in zip(counts, spans, strict=True))
        progress = _Progress(total, self._callback)
        for rung, end in enumerate(ends):
            if rung > 0:
                self._halve(counts[rung])
            self._advance(end, progress)
        for some in self._batches:
            some.finish()

    def _advance(self, end: int, progress: _Progress) -> None:
        """All configurations to the same step; a batch that memory is too small for goes in two."""
        waiting = [(some, rng.copy(self._steps)) for some in self._batches]
        self._batches = []
        while waiting:
            some, own = waiting.pop(0)  # own: the same changes for all configurations
            if self._has_room(some, end, own, progress):
                self._batches.append(some)
                if not waiting:
                    self._steps = own
                continue
            rows = list(range(len(some)))
            halves = [rows[: len(some) // 2], rows[len(some) // 2 :]]
            waiting[:0] = [(some.pick(half), rng.copy(own)) for half in halves if half]

    def _has_room(
        self, some: Configurations, end: int, own: torch.Generator, progress: _Progress
    ) -> bool:
        """Whether a batch came to its step; if not, memory ran out, and less is to be tried."""
        try:
            some.advance(end, own, progress.observe)
        except (RuntimeError, MemoryError) as error:
            copies = self._compositor.limit.size or len(some) * self._augment.num_augments
            if not is_out_of_memory(error) or (len(some) == 1 and copies == 1):
                raise
        else:
            return True
        if len(some) == 1:
            self._compositor.limit.halve(copies)
        else:
            logger.warning("Out of memory with %d configurations at once; halving.", len(some))
        return False

    def _halve(self, count: int) -> None:
        """Keep the best configurations by their last steps, whose changes were the same for all."""
        ranked = []
        for index, some in enumerate(self._batches):
            for row, score in enumerate(some.recent_score().tolist()):
                self._remember(some, row, score)
                ranked.append((-score, index, row))
        kept = sorted(ranked)[:count]
        rows = [sorted(r for _, i, r in kept if i == index) for index in range(len(self._batches))]
        self._batches = [f.pick(own) for f, own in zip(self._batches, rows, strict=True) if own]

    def _remember(self, some: Configurations, row: int, score: float) -> None:
        """Note how far a configuration came."""
        placement = some.placements[row]
        self._attempts[placement] = Attempt(placement, score, some.descent.num_steps_done)

    @torch.no_grad()
    def crown(self) -> ComposeResult:
        """The best iterate of the best configuration, by held-out AugCLIP."""
        total = sum(len(some.iterates.candidates()) for some in self._batches)
        best: ComposeResult | None = None
        step = 0
        for some in self._batches:
            tops = torch.full((len(some),), -torch.inf)
            for name, latent, pictures, score in some.judge(self._judge):
                means = score.mean.cpu()
                tops = torch.maximum(tops, means)
                one = self._result(some, int(means.argmax()), name, latent, pictures, score)
                if best is None or float(one.score.mean) > float(best.score.mean):
                    best = one
                step += 1
                if self._callback is not None:
                    self._callback(StepInfo("select", step, total, one.score.mean, one.images))
            for row, value in enumerate(tops.tolist()):
                self._remember(some, row, value)
        assert best is not None  # noqa: S101 - there is a batch, and each has an iterate
        order = sorted(self._attempts.values(), key=lambda a: (-a.num_steps, -a.score))
        return dataclasses.replace(best, attempts=tuple(order))

    def _result(
        self,
        some: Configurations,
        row: int,
        name: str,
        latent: tuple[Tensor, Tensor],
        pictures: Pictures,
        score: Score,
    ) -> ComposeResult:
        """One configuration's iterate as the record that callers get."""
        both, one = torch.tensor([row, len(some) + row]), slice(row, row + 1)
        return ComposeResult(
            images=pictures.composite[one].clone(),  # or the batch would live on
            mask=box_masks(
                [some.boxes[row]],
                *pictures.composite.shape[-2:],
                device=pictures.composite.device,
            ),
            foreground=pictures.foreground[one].clone(),
            background=pictures.background[one].clone(),
            latent=Latent(latent[0][both], latent[1][both], self._compositor.truncation),
            score=Score(score.mean[one], score.stderr[one]),
            placement=some.placements[row],
            trace=ComposeTrace(*torch.stack(some.trace)[:, :, row].unbind(dim=1)),
            attempts=(),
            chosen=name,
        )


class _Progress:
    """Tells a callback of steps, with the best configuration of late as the preview."""

    def __init__(self, total: int, callback: Callback | None) -> None:
        self._done, self._total, self._callback = 0, total, callback

    def observe(self, score: Tensor, composites: Tensor) -> None:
        """Count the step of B configurations."""
        self._done += len(score)
        if self._callback is not None:
            top = int(score.argmax())
            best = slice(top, top + 1)
            self._callback(
                StepInfo("compose", self._done, self._total, score[best], composites[best])
            )
