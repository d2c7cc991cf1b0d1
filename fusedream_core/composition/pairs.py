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

from ..memory import Limit
from ..placement import Box, place
from ..score import clip_score
from ..types import Basis, Callback, StepInfo
from .compositor import Compositor

_BATCH = 32  # composites that CLIP sees at once


class PairSearch:
    """Decodes two bases and scores every pair of their pictures at every place.

    The callback is called after each picture and each batch, and may raise to stop.
    """

    def __init__(
        self,
        compositor: Compositor,
        callback: Callback | None = None,
        *,
        batch_size: int = _BATCH,
    ) -> None:
        """Take what every pair needs; ``batch_size`` sets the memory, not the result."""
        self._gan, self._clip = compositor.gan, compositor.clip
        self._compositor, self._target = compositor, compositor.target
        self._callback, self._batch_size = callback, batch_size
        self._limit = Limit()  # its own: without gradients there is room for more
        self._done = self._total = 0

    @torch.no_grad()
    def decode(
        self, foreground: Basis, background: Basis, *, num_places: int, num_pairs: int
    ) -> tuple[Tensor, Tensor]:
        """The pictures of two bases, ``(K_f, 3, H, W)`` and ``(K_b, 3, H, W)``.

        Args:
            foreground: K_f latents.
            background: K_b latents; if it is the same basis, it is decoded once.
            num_places: How many places will be scored, for the progress.
            num_pairs: How many pairs at each of them.
        """
        bases = [foreground] if background is foreground else [foreground, background]
        self._total = sum(len(basis.scores) for basis in bases)
        self._total += num_places * math.ceil(num_pairs / self._batch_size)
        pictures = [self._decode(basis) for basis in bases]
        return pictures[0], pictures[-1]

    def _decode(self, basis: Basis) -> Tensor:
        """The pictures of a basis, one by one, so that their number sets no memory."""
        latent = basis.latent.to(self._gan.device)
        images = []
        for row, (z, y) in enumerate(zip(latent.z, latent.y, strict=True)):
            images.append(self._gan.decode(z[None], y[None], truncation=latent.truncation))
            self._tell(basis.scores[row : row + 1], images[-1])
        return torch.cat(images)

    @torch.no_grad()
    def score(self, fronts: Tensor, backs: Tensor, boxes: Sequence[Box], wanted: Tensor) -> Tensor:
        """CLIP scores of foregrounds pasted into every box of backgrounds, as in the first step.

        Args:
            fronts: K_f pictures.
            backs: K_b pictures.
            boxes: P places.
            wanted: Which pairs to look at, shape ``(K_f, K_b)``, bool.

        Returns:
            Shape ``(P, K_f, K_b)``, on the CPU; minus infinity for pairs that are not wanted.
        """
        pairs = wanted.flatten().nonzero()[:, 0]
        self._total = self._done + len(boxes) * math.ceil(len(pairs) / self._batch_size)
        scores = torch.full((len(boxes), wanted.numel()), -torch.inf, dtype=fronts.dtype)
        for own, box in zip(scores, boxes, strict=True):
            own[pairs] = self._score_place(fronts, backs, box, pairs)
        return scores.view(len(boxes), *wanted.shape)

    def _score_place(self, fronts: Tensor, backs: Tensor, box: Box, pairs: Tensor) -> Tensor:
        """Scores of some pairs at one place, on the CPU; ``f * K_b + b`` is f on b."""
        layers = place(fronts, [box] * len(fronts), *backs.shape[-2:])
        score = partial(clip_score, targets=self._target, clip=self._clip)
        scores = []
        for some in pairs.to(backs.device).split(self._batch_size):
            over, below = layers[some // len(backs)], backs[some % len(backs)]
            images = self._compositor.join(over, below, box, num_steps_done=0)
            scores.append(self._limit.map(score, images).cpu())
            best = int(scores[-1].argmax())
            self._tell(scores[-1][best : best + 1], images[best : best + 1])
        return torch.cat(scores)

    def _tell(self, score: Tensor, preview: Tensor) -> None:
        """Tell the callback of one more picture or batch."""
        self._done += 1
        if self._callback is not None:
            self._callback(StepInfo("pair", self._done, self._total, score, preview))


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
