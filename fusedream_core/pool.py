"""A pool of scored latents, from which the best are kept while candidates stream by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def join(self, other: Pool) -> Pool:
        """These latents and after them the others."""
        return Pool(
            torch.cat((self.z, other.z)),
            torch.cat((self.y, other.y)),
            torch.cat((self.class_index, other.class_index)),
            torch.cat((self.scores, other.scores)),
        )

    def best(self, num: int, max_per_class: int | None = None) -> Pool:
        """The ``num`` best, in order; of equals the earlier.

        Of one class there are at most ``max_per_class``, as far as other classes fill the rest.
        """
        order = self.scores.sort(descending=True, stable=True).indices
        if max_per_class is not None:
            late = _rank_in_class(self.class_index[order]) >= max_per_class
            chosen = late.long().sort(stable=True).indices[:num]
            return self.pick(order[chosen.sort().values])
        return self.pick(order[:num])


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
