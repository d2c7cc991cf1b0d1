"""What a composition hands back, as plain records."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..types import Latent, Record, Score
from .placement import Placement


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far one configuration came.

    Attributes:
        placement: Its scale and position.
        score: The last score that it was compared by: CLIP's in the pre-search, the mean of what
            was optimised in its last steps, or its held-out AugCLIP if it went all the way.
        num_steps: The steps that it was optimised for.
    """

    placement: Placement
    score: float
    num_steps: int


@dataclass(frozen=True, slots=True, eq=False)
class ComposeTrace(Record):
    """What each step of the returned configuration saw; all shaped ``(steps,)``.

    Attributes:
        score: s_Fuse, which comes first.
        loss: l_Fuse, the inconsistency of the two pictures.
        weight: lambda of the barrier.
        cosine: Of the angle between the gradients of s_Fuse and l_Fuse.
    """

    score: Tensor
    loss: Tensor
    weight: Tensor
    cosine: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ComposeResult(Record):
    """A composite and how it came about.

    Attributes:
        images: The composite, shape ``(1, 3, H, W)``, in ``[-1, 1]``.
        mask: 1 where the foreground was pasted, else 0, shape ``(1, 1, H, W)``.
        foreground: The picture that was scaled and pasted, like ``images``.
        background: The picture that it was pasted on, like ``images``.
        latent: The latents of foreground and background, B = 2.
        score: Held-out AugCLIP score of the composite, shape ``(1,)``.
        placement: Where the foreground lies.
        trace: What each step saw.
        attempts: All configurations, best first.
        chosen: Which iterate was returned.
    """

    images: Tensor
    mask: Tensor
    foreground: Tensor
    background: Tensor
    latent: Latent
    score: Score
    placement: Placement
    trace: ComposeTrace
    attempts: tuple[Attempt, ...]
    chosen: str
