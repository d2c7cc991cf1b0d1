"""The records of a composition, and how its progress is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..types import Callback, Latent, Record, Score, StepInfo
from .placement import Placement


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far one placement was optimised.

    Attributes:
        placement: Its scale and position.
        score: The last score that it was compared by: CLIP's in the pre-search, the mean of the
            objective in its last steps (prompts of the parts included), or the composite's held-out
            AugCLIP if it was among the last. These three do not compare with each other.
        num_steps: The steps that it was optimised for.
    """

    placement: Placement
    score: float
    num_steps: int


@dataclass(frozen=True, slots=True, eq=False)
class ComposeTrace(Record):
    """The numbers of each step of the returned placement; all shaped ``(steps,)``.

    Attributes:
        score: s_Fuse, which comes first.
        loss: l_Fuse, the inconsistency of the two images.
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
        foreground: The image that was scaled and pasted, like ``images``.
        background: The image that it was pasted on, like ``images``.
        latent: The latents of foreground and background, B = 2.
        score: Held-out AugCLIP score of the composite, shape ``(1,)``.
        placement: Where the foreground lies.
        trace: The numbers of each step.
        attempts: All placements: the last ones best first, then those that were dropped, later ones
            first.
        chosen: The name of the checkpoint that was returned.
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


class Progress:
    """Reports one stage of all problems, with the best of what was just done as preview."""

    def __init__(
        self, stage: Literal["pair", "compose", "select"], total: int, callback: Callback | None
    ) -> None:
        """Start with nothing done; ``total`` may still be corrected."""
        self.total, self.done = total, 0
        self._stage, self._callback = stage, callback

    def report(self, score: Tensor, images: Tensor, *, num: int = 1) -> None:
        """Count ``num`` more steps, which made some images of these scores."""
        self.done += num
        if self._callback is not None:
            top = int(score.argmax())
            best = slice(top, top + 1)
            self._callback(StepInfo(self._stage, self.done, self.total, score[best], images[best]))
