"""The pre-search of a composition: every pair of ready pictures, pasted in every way, under CLIP.

No part of the paper, which optimises all of its 18 configurations to the end. It needs no new
pictures, so it is cheap, and it finds for each placement the two latents to start from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .clip.base import ImageTextEncoder
from .gan.base import Gan
from .placement import Box, box_masks, place
from .score import clip_score
from .types import Basis, Callback, Latent, StepInfo, Target


def score_pairs(
    gan: Gan,
    clip: ImageTextEncoder,
    target: Target,
    foreground: Basis,
    background: Basis,
    boxes: Sequence[Box],
    *,
    batch_size: int,
    callback: Callback | None = None,
) -> Tensor:
    """CLIP scores of every foreground pasted into every box of every background.

    Args:
        gan: The generator that both bases belong to.
        clip: The encoder.
        target: What the composite is to show.
        foreground: K_f latents.
        background: K_b latents.
        boxes: P places.
        batch_size: Composites scored at once; sets the memory, not the result.
        callback: Called after each place; it may raise to stop.

    Returns:
        Shape ``(P, K_f, K_b)``, on the CPU.
    """
    with torch.no_grad():
        fronts, backs = (_decode(gan, basis.latent) for basis in (foreground, background))
        scores = []
        leader = (torch.tensor([-torch.inf]), backs[:1])
        for step, box in enumerate(boxes, start=1):
            pasted = _Pasted(fronts, backs, box)
            found, best = pasted.score(target, clip, batch_size)
            scores.append(found)
            if found.max() > leader[0]:
                leader = found.max()[None], best
            if callback is not None:
                callback(StepInfo("pair", step, len(boxes), *leader))
    return torch.stack(scores)


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


@dataclass(frozen=True, slots=True, eq=False)
class _Pasted:
    """All pairs of some pictures at one place; composites are made when they are looked at."""

    fronts: Tensor
    backs: Tensor
    box: Box

    def score(
        self, target: Target, clip: ImageTextEncoder, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """Scores ``(K_f, K_b)`` on the CPU, and the best composite ``(1, 3, H, W)``."""
        height, width = self.backs.shape[-2:]
        layers = place(self.fronts, [self.box] * len(self.fronts), height, width)
        outside = 1.0 - box_masks([self.box], height, width).to(layers)
        num = len(self.backs)
        pairs = torch.arange(len(layers) * num, device=layers.device)

        def paste(some: Tensor) -> Tensor:
            return layers[some // num] + outside * self.backs[some % num]

        scores = torch.cat(
            [clip_score(paste(some), target, clip) for some in pairs.split(batch_size)]
        )
        return scores.view(-1, num).cpu(), paste(scores.argmax()[None])


def _decode(gan: Gan, latent: Latent) -> Tensor:
    """The pictures of a basis, one by one as the search made them at the latest."""
    latent = latent.to(gan.device)
    rows = [
        gan.decode(z[None], y[None], truncation=latent.truncation)
        for z, y in zip(latent.z, latent.y, strict=True)
    ]
    return torch.cat(rows)
