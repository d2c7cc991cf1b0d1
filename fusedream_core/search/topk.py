"""Top-k selection from a stream of scored latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import SearchConfig


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Latents with their scores.

    Attributes:
        z: Shape ``(n, dim_z)``.
        y: Shape ``(n, dim_y)``, on the device of z.
        class_index: Shape ``(n,)``, on the CPU.
        scores: Shape ``(n,)``, on the CPU.
    """

    z: Tensor
    y: Tensor
    class_index: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def pick(self, rows: Tensor) -> Pool:
        """Return the latents at ``rows`` (CPU indices), in this order."""
        there = rows.to(self.z.device)
        return Pool(self.z[there], self.y[there], self.class_index[rows], self.scores[rows])

    def join(self, *others: Pool) -> Pool:
        """Concatenate pools."""
        pools = (self, *others)
        return Pool(
            torch.cat([pool.z for pool in pools]),
            torch.cat([pool.y for pool in pools]),
            torch.cat([pool.class_index for pool in pools]),
            torch.cat([pool.scores for pool in pools]),
        )

    def best(self, num: int, max_per_class: int | None = None) -> Pool:
        """Return the ``num`` best, sorted; ties by position.

        A class has at most ``max_per_class`` members if other classes can fill the rest.
        """
        return self.pick(self._best_rows(num, max_per_class))

    def shortlist(self, num: int, max_per_class: int | None, named: Sequence[int]) -> Pool:
        """Return the result of ``best`` and the best of each named class, in original order.

        ``best`` with the same arguments, also of a named class, has the same result on a shortlist
        as on the whole pool.
        """
        classes = [(self.class_index == index).nonzero()[:, 0] for index in named]
        rows = [own[self.pick(own)._best_rows(1)] for own in classes]
        return self.pick(torch.cat([self._best_rows(num, max_per_class), *rows]).unique())

    def _best_rows(self, num: int, max_per_class: int | None = None) -> Tensor:
        """Return the indices of ``best``."""
        order = self.scores.sort(descending=True, stable=True).indices
        if max_per_class is not None:
            late = _rank_in_class(self.class_index[order]) >= max_per_class
            chosen = late.long().sort(stable=True).indices[:num]
            return order[chosen.sort().values]
        return order[:num]


class Shortlist:
    """Streaming top-k with bounded memory and constant amortised time per latent.

    New latents are buffered until they are as many as are kept; then all are sorted once.
    """

    def __init__(self, num: int, max_per_class: int | None, named: Sequence[int]) -> None:
        """Take the arguments of ``Pool.shortlist``."""
        self._num, self._max_per_class, self._named = num, max_per_class, named
        self._kept: list[Pool] = []
        self._num_waiting = 0

    def add(self, pool: Pool) -> None:
        """Add latents at the end of the stream."""
        self._kept.append(pool)
        self._num_waiting += len(pool)
        if self._num_waiting >= self._num:
            self._kept, self._num_waiting = [self.pool()], 0

    def pool(self) -> Pool:
        """Return the shortlist of all latents so far; there must be at least one."""
        first, *others = self._kept
        joined = first.join(*others)
        return joined.shortlist(self._num, self._max_per_class, self._named)


def _rank_in_class(classes: Tensor) -> Tensor:
    """Count the earlier entries of the same class: ``[7, 3, 7, 7]`` -> 0, 0, 1, 2."""
    grouped = classes.sort(stable=True)
    first = torch.searchsorted(grouped.values, grouped.values)
    rank = torch.empty_like(classes)
    rank[grouped.indices] = torch.arange(len(classes)) - first
    return rank


def update_best(
    best_so_far: tuple[Tensor, Tensor] | None, images: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the best score ``(T,)`` and image ``(T, 3, H, W)`` so far, for the preview.

    Args:
        best_so_far: The same before this batch; None at the first.
        images: Images of this batch, shape ``(N, 3, H, W)``.
        scores: Scores for each target, shape ``(T, N)``.
    """
    best = scores.max(dim=1)
    candidates = images[best.indices.to(images.device)]
    if best_so_far is None:
        return best.values, candidates
    better = best.values > best_so_far[0]
    there = better.to(images.device)[:, None, None, None]
    return (
        torch.where(better, best.values, best_so_far[0]),
        torch.where(there, candidates, best_so_far[1]),
    )


def with_named(best: Pool, pool: Pool, named: Sequence[int]) -> Pool:
    """Replace the last members of ``best`` so that each named class of the pool has one.

    The first member is always kept. Named classes with low CLIP scores thus stay in the basis.
    """
    classes = best.class_index.tolist()
    missing = set(named) & set(pool.class_index.tolist()) - set(classes)
    others = [row for row, own in enumerate(classes) if row and own not in named]
    added = sorted(missing)[: len(others)]
    if not added:
        return best
    gone = others[-len(added) :]
    kept = best.pick(torch.tensor([row for row in range(len(best)) if row not in gone]))
    for index in added:
        own = pool.pick((pool.class_index == index).nonzero()[:, 0])
        kept = kept.join(own.best(1))
    return kept.best(len(kept))


def shortlist_size(num_candidates: int, config: SearchConfig) -> tuple[int, int | None]:
    """Return the size of the first stage's shortlist, and its cap per class.

    Both are the same multiple of the basis size and of ``max_per_class``. The shortlist then has a
    basis within the cap whenever the candidates have one.
    """
    num_ranked = num_candidates if config.num_reranked is None else config.num_reranked
    num_ranked = min(num_ranked, num_candidates) if config.ranking == "aug_clip" else 0
    factor = max(1, math.ceil(num_ranked / config.num_basis))
    cap = None if config.max_per_class is None else factor * config.max_per_class
    return factor * config.num_basis, cap
