"""A pool of scored latents, from which the best are kept while candidates stream by."""

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
        y: Shape ``(n, dim_y)``, beside z.
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
        """Some of the latents, in the order of ``rows`` (indices on the CPU)."""
        there = rows.to(self.z.device)
        return Pool(self.z[there], self.y[there], self.class_index[rows], self.scores[rows])

    def join(self, *others: Pool) -> Pool:
        """These latents and after them the others."""
        pools = (self, *others)
        return Pool(
            torch.cat([pool.z for pool in pools]),
            torch.cat([pool.y for pool in pools]),
            torch.cat([pool.class_index for pool in pools]),
            torch.cat([pool.scores for pool in pools]),
        )

    def best(self, num: int, max_per_class: int | None = None) -> Pool:
        """The ``num`` best, in order; of equals the earlier.

        Of one class there are at most ``max_per_class``, as far as other classes fill the rest.
        """
        return self.pick(self._best_rows(num, max_per_class))

    def shortlist(self, num: int, max_per_class: int | None, named: Sequence[int]) -> Pool:
        """What ``best`` takes, and the best of each named class; in the order they are in here.

        Any choice by ``best`` of so many, or of a named class, is the same from this as from all.
        """
        rows = [self._best_rows(num, max_per_class)]
        for index in named:
            own = (self.class_index == index).nonzero()[:, 0]
            rows.append(own[self.pick(own)._best_rows(1)])
        return self.pick(torch.cat(rows).unique())

    def _best_rows(self, num: int, max_per_class: int | None = None) -> Tensor:
        """Indices of what ``best`` takes."""
        order = self.scores.sort(descending=True, stable=True).indices
        if max_per_class is not None:
            late = _rank_in_class(self.class_index[order]) >= max_per_class
            chosen = late.long().sort(stable=True).indices[:num]
            return order[chosen.sort().values]
        return order[:num]


class Shortlist:
    """The best of latents that stream by; neither memory nor time for each grows with their number.

    New ones wait until they are as many as are kept, and then all are sorted once.
    """

    def __init__(self, num: int, max_per_class: int | None, named: Sequence[int]) -> None:
        """Keep what ``Pool.shortlist`` keeps."""
        self._num, self._max_per_class, self._named = num, max_per_class, named
        self._kept: list[Pool] = []
        self._num_waiting = 0

    def add(self, pool: Pool) -> None:
        """Take in some latents, later than all before."""
        self._kept.append(pool)
        self._num_waiting += len(pool)
        if self._num_waiting >= self._num:
            self._kept, self._num_waiting = [self.pool()], 0

    def pool(self) -> Pool:
        """The shortlist of all latents so far; there must be one at least."""
        first, *others = self._kept
        joined = first.join(*others)
        return joined.shortlist(self._num, self._max_per_class, self._named)


def _rank_in_class(classes: Tensor) -> Tensor:
    """For each entry, how many earlier ones share its class: ``[7, 3, 7, 7]`` -> 0, 0, 1, 2."""
    grouped = classes.sort(stable=True)
    first = torch.searchsorted(grouped.values, grouped.values)
    rank = torch.empty_like(classes)
    rank[grouped.indices] = torch.arange(len(classes)) - first
    return rank


def lead(
    leaders: tuple[Tensor, Tensor] | None, images: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """The best score ``(T,)`` and picture ``(T, 3, H, W)`` so far of each target, for the preview.

    Args:
        leaders: Those before this batch.
        images: The pictures of this batch, shape ``(N, 3, H, W)``.
        scores: Their scores for each target, shape ``(T, N)``.
    """
    best = scores.max(dim=1)
    contenders = images[best.indices.to(images.device)]
    if leaders is None:
        return best.values, contenders
    better = best.values > leaders[0]
    there = better.to(images.device)[:, None, None, None]
    return (
        torch.where(better, best.values, leaders[0]),
        torch.where(there, contenders, leaders[1]),
    )


def with_named(best: Pool, pool: Pool, named: Sequence[int]) -> Pool:
    """The best of a pool, the last of which give way to classes that the prompt names.

    Each such class has a member at least, as far as the pool has one and the first member
    stays: so that what CLIP thinks little of can be tried all the same.
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
    """How many candidates a first pass keeps, and how many of one class at most.

    Both are the same multiple of what the basis needs. A pool so limited always holds a basis
    within the limit, if the candidates do.
    """
    num_ranked = num_candidates if config.num_reranked is None else config.num_reranked
    num_ranked = min(num_ranked, num_candidates) if config.ranking == "aug_clip" else 0
    factor = max(1, math.ceil(num_ranked / config.num_basis))
    cap = None if config.max_per_class is None else factor * config.max_per_class
    return factor * config.num_basis, cap
