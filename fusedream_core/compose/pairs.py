"""The pre-search of a composition: pairs of ready pictures, pasted in every way, under CLIP.

No part of the paper, which optimises all of its 18 configurations to the end. It needs no new
pictures, so it is cheap, and it finds for each placement the two latents to start from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ..augclip.score import clip_score
from ..memory import AutoBatchSize
from ..search.class_prior import named_classes
from ..types import Basis, Callback
from .entries import Entry, Run
from .objective import Compositor
from .placement import Box, Placement, place
from .progress import Progress

_BATCH = 32  # composites that CLIP sees at once


class PairSearch:
    """Decodes the bases of each run and scores pairs of their pictures at every place.

    The callback is called after each picture and each batch, and may raise to stop.
    """

    def __init__(
        self,
        compositor: Compositor,
        runs: Sequence[Run],
        placements: Sequence[Placement],
        callback: Callback | None = None,
        *,
        batch_size: int = _BATCH,
    ) -> None:
        """Take what every pair needs; ``batch_size`` sets the memory, not the result."""
        self._compositor, self._placements, self._batch_size = compositor, placements, batch_size
        self._limit = AutoBatchSize()  # its own: without gradients there is room for more
        self._wanted = {run: _wanted(compositor, run) for run in runs}
        self._progress = Progress("pair", self._num_told(len(placements)), callback)

    def _num_told(self, num_places: int) -> int:
        """How often the callback is called in all."""
        pictures = sum(len(basis.scores) for run in self._wanted for basis in _bases(run))
        batches = sum(math.ceil(int(w.sum()) / self._batch_size) for w in self._wanted.values())
        return pictures + num_places * batches

    @torch.no_grad()
    def rate(self, run: Run) -> tuple[list[Entry], Tensor]:
        """Every place of a run, and what its pairs are worth there as in the first step.

        Returns:
            P configurations, and CLIP scores ``(P, K_f, K_b)`` of all pairs of a foreground and a
            background, on the CPU; minus infinity for pairs that are not to be looked at.
        """
        pictures = [self._decode(basis) for basis in _bases(run)]
        fronts, backs = pictures[0], pictures[-1]
        perceptual = self._compositor.perceptual
        if perceptual is not None:  # what it cannot look at is to be told before the work
            perceptual.distance_map(fronts[:1], backs[:1])
        places: dict[Box, Placement] = {}
        for placement in self._placements:  # at scale 1, for one, all positions are the same
            places.setdefault(placement.box(*backs.shape[-2:]), placement)
        self._progress.total = self._num_told(len(places))
        wanted = self._wanted[run]
        pairs = wanted.flatten().nonzero()[:, 0]
        scores = torch.full((len(places), wanted.numel()), -torch.inf, dtype=fronts.dtype)
        for own, box in zip(scores, places, strict=True):
            own[pairs] = self._score_place(run, fronts, backs, box, pairs)
        entries = [Entry(run, placement, box) for box, placement in places.items()]
        return entries, scores.view(len(places), *wanted.shape)

    def _decode(self, basis: Basis) -> Tensor:
        """The pictures of a basis, one by one, so that their number sets no memory."""
        gan = self._compositor.gan
        latent = basis.latent.to(gan.device)
        images = []
        for row, (z, y) in enumerate(zip(latent.z, latent.y, strict=True)):
            images.append(gan.decode(z[None], y[None], truncation=latent.truncation))
            self._progress.tell(basis.scores[row : row + 1], images[-1])
        return torch.cat(images)

    def _score_place(
        self, run: Run, fronts: Tensor, backs: Tensor, box: Box, pairs: Tensor
    ) -> Tensor:
        """Scores of some pairs at one place, on the CPU; ``f * K_b + b`` is f on b."""
        layers = place(fronts, [box] * len(fronts), *backs.shape[-2:])
        score = partial(clip_score, targets=run.target, clip=self._compositor.clip)
        scores = []
        for some in pairs.to(backs.device).split(self._batch_size):
            over, below = layers[some // len(backs)], backs[some % len(backs)]
            images = self._compositor.join(over, below, box, num_steps_done=0)
            scores.append(self._limit.map(score, images).cpu())
            self._progress.tell(scores[-1], images)
        return torch.cat(scores)


def _bases(run: Run) -> list[Basis]:
    """The bases of a run, each once: foreground first, background last."""
    return (
        [run.foreground] if run.background is run.foreground else [run.foreground, run.background]
    )


def _wanted(compositor: Compositor, run: Run) -> Tensor:
    """Which pairs to look at, shape ``(K_f, K_b)``: those of two named classes, or else all."""
    named: Sequence[int] = ()
    if compositor.config.prefer_named:
        named = named_classes(compositor.gan.class_names, run.target)
    front, back = (basis.class_index.tolist() for basis in (run.foreground, run.background))
    both = torch.tensor([[f != b and f in named and b in named for b in back] for f in front])
    return both if both.any() else torch.ones_like(both)


def best_members(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Which latents to optimise at one place: the best pair, and what goes with each of it.

    Args:
        scores: Shape ``(K_f, K_b)``.
        num: How many of each.

    Returns:
        Indices of foregrounds, best first: those that score highest on the best pair's
        background; and of backgrounds likewise.
    """
    front, back = divmod(int(scores.argmax()), scores.shape[1])
    return (
        scores[:, back].argsort(descending=True, stable=True)[:num],
        scores[front].argsort(descending=True, stable=True)[:num],
    )
