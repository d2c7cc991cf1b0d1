"""The pre-search of a composition: pairs of ready images, pasted at every placement, under CLIP.

No part of the paper, which optimises all of its 18 placements to the end. It needs no new images,
so it is cheap, and it finds for each placement the two latents to start from.
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
from ..types import Basis, Callback, Target
from .candidates import PlacementCandidate, Problem
from .objective import FuseObjective
from .placement import Box, Placement, place
from .result import Progress

_BATCH = 32  # composites that CLIP sees at once


class PairSearch:
    """Decodes the bases of each problem and scores pairs of their images at every placement.

    The callback is called after each image and each batch, and may raise to stop.
    """

    def __init__(
        self,
        objective: FuseObjective,
        placements: Sequence[Placement],
        callback: Callback | None = None,
        *,
        batch_size: int = _BATCH,
    ) -> None:
        """Take what every pair needs; ``batch_size`` sets the memory, not the result."""
        self._objective, self._placements, self._batch_size = objective, placements, batch_size
        self._limit = AutoBatchSize()  # its own: without gradients there is room for more
        self._wanted = [_wanted(objective, problem) for problem in objective.problems]
        self._progress = Progress("pair", self._num_reports(len(placements)), callback)

    def _num_reports(self, num_places: int) -> int:
        """How often the callback is called in all."""
        problems = self._objective.problems
        images = sum(len(basis.scores) for own in problems for basis in _bases(own))
        batches = sum(math.ceil(int(w.sum()) / self._batch_size) for w in self._wanted)
        return images + num_places * batches

    @torch.no_grad()
    def score(self, index: int) -> tuple[list[PlacementCandidate], Tensor]:
        """The scores of all pairs of a problem at every placement, as in the first step.

        Returns:
            P candidates, and CLIP scores ``(P, K_f, K_b)`` of all pairs of a foreground and a
            background, on the CPU; minus infinity for pairs that are left out.
        """
        problem, wanted = self._objective.problems[index], self._wanted[index]
        images = [self._decode(basis) for basis in _bases(problem)]
        fronts, backs = images[0], images[-1]
        perceptual = self._objective.perceptual
        if perceptual is not None:  # an error is to come before the work
            perceptual.distance_map(fronts[:1], backs[:1])
        places: dict[Box, Placement] = {}
        for placement in self._placements:  # at scale 1, for one, all positions are the same
            places.setdefault(placement.box(*backs.shape[-2:]), placement)
        self._progress.total = self._num_reports(len(places))
        pairs = wanted.flatten().nonzero()[:, 0]
        scores = torch.full((len(places), wanted.numel()), -torch.inf, dtype=fronts.dtype)
        for own, box in zip(scores, places, strict=True):
            own[pairs] = self._score_place(problem.target, fronts, backs, box, pairs)
        candidates = [
            PlacementCandidate(index, placement, box) for box, placement in places.items()
        ]
        return candidates, scores.view(len(places), *wanted.shape)

    def _decode(self, basis: Basis) -> Tensor:
        """The images of a basis, one by one, so that their number sets no memory."""
        gan = self._objective.gan
        latent = basis.latent.to(gan.device)
        images = []
        for row, (z, y) in enumerate(zip(latent.z, latent.y, strict=True)):
            images.append(gan.decode(z[None], y[None], truncation=latent.truncation))
            self._progress.report(basis.scores[row : row + 1], images[-1])
        return torch.cat(images)

    def _score_place(
        self, target: Target, fronts: Tensor, backs: Tensor, box: Box, pairs: Tensor
    ) -> Tensor:
        """Scores of some pairs at one placement, on the CPU; ``f * K_b + b`` is f on b."""
        layers = place(fronts, [box] * len(fronts), *backs.shape[-2:])
        score = partial(clip_score, targets=target, clip=self._objective.clip)
        scores = []
        for some in pairs.to(backs.device).split(self._batch_size):
            over, below = layers[some // len(backs)], backs[some % len(backs)]
            images = self._objective.join(over, below, box, num_steps=0)
            scores.append(self._limit.map(score, images).cpu())
            self._progress.report(scores[-1], images)
        return torch.cat(scores)


def _bases(problem: Problem) -> list[Basis]:
    """The bases of a problem, each once: foreground first, background last."""
    both = [problem.foreground, problem.background]
    return both[:1] if problem.background is problem.foreground else both


def _wanted(objective: FuseObjective, problem: Problem) -> Tensor:
    """The pairs to score, shape ``(K_f, K_b)``: those of two named classes, or else all."""
    named: Sequence[int] = ()
    if objective.config.prefer_named:
        named = named_classes(objective.gan.class_names, problem.target)
    front, back = (basis.class_index.tolist() for basis in (problem.foreground, problem.background))
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
