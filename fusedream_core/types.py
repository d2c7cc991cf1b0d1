"""What the stages hand to each other: plain frozen records of tensors.

Tensors may live on any device; ``record.to("cpu")`` gives a copy that can be stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

_Self = TypeVar("_Self", bound="Record")


class Record:
    """Base of the records below: a dataclass whose tensors can be moved together."""

    __slots__ = ()

    def to(self: _Self, device: torch.device | str) -> _Self:
        """A copy whose tensors, nested ones included, are on ``device``."""
        moved = {
            field.name: value.to(device)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, field.name), (Tensor, Record))
        }
        return dataclasses.replace(self, **moved)  # type: ignore[type-var]

    def tensors(self) -> list[Tensor]:
        """All tensors of the record, nested ones included."""
        found: list[Tensor] = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                found.append(value)
            elif isinstance(value, Record):
                found.extend(value.tensors())
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.nbytes for tensor in self.tensors())


@dataclass(frozen=True, slots=True, eq=False)
class Latent(Record):
    """Points of the GAN's input space, xi = (z, y) of the paper.

    Attributes:
        z: Latent noise, shape ``(B, dim_z)``.
        y: Class embedding, shape ``(B, dim_y)``.
        truncation: tau, which picks the GAN's normalisation statistics; above 0, at most 1.
    """

    z: Tensor
    y: Tensor
    truncation: float


@dataclass(frozen=True, slots=True, eq=False)
class Basis(Record):
    """The k best latents that the seed search found for one prompt, best first.

    Attributes:
        latent: The k latents.
        scores: Their scores by which they were ranked, shape ``(k,)``.
        class_index: The class whose embedding each ``y`` is, shape ``(k,)``, int64.
        gan_id: The GAN they belong to.
        prompt: The prompt they were found for.
        ranking: What the scores are: AugCLIP's or plain CLIP's.
    """

    latent: Latent
    scores: Tensor
    class_index: Tensor
    gan_id: str
    prompt: str
    ranking: Literal["aug_clip", "clip"] = "aug_clip"

    def pick(self, rows: Tensor) -> Basis:
        """Some of the members, in the order of these indices."""
        latent = self.latent
        return dataclasses.replace(
            self,
            latent=Latent(latent.z[rows], latent.y[rows], latent.truncation),
            scores=self.scores[rows],
            class_index=self.class_index[rows],
        )


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One piece of a prompt: a text and how much it counts (negative: to be avoided)."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Target(Record):
    """A prompt as CLIP sees it.

    Attributes:
        features: Unit-norm feature, shape ``(D,)``.
        parts: The pieces that the prompt was made of.
        clip_id: The CLIP model that encoded it.
        prompt: The prompt as it was typed.
        from_images: Whether it was made of pictures, too, which the prompt does not tell.
    """

    features: Tensor
    parts: tuple[PromptPart, ...]
    clip_id: str
    prompt: str
    from_images: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Score(Record):
    """Scores of B pictures, in cosine units; higher is better.

    Attributes:
        mean: Mean over the changed copies, shape ``(B,)``.
        stderr: Standard error of that mean, shape ``(B,)``; NaN where there is one copy only.
    """

    mean: Tensor
    stderr: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class OptimizeResult(Record):
    """The outcome of B runs.

    Attributes:
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        latent: Their latents, mixed: ``gan.decode`` gives the pictures again.
        score: Held-out AugCLIP score.
        trace: The score that each step optimised, shape ``(steps, B)``.
        start: For each run, which mix it started from.
        chosen: For each run, which iterate was returned: "step 25", "average" or "last".
    """

    images: Tensor
    latent: Latent
    score: Score
    trace: Tensor
    start: tuple[str, ...]
    chosen: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class StepInfo:
    """Progress, handed to a callback after each scored batch and each step.

    Attributes:
        stage: The stage under way ("score": images of any origin).
        step: Steps done in this stage, from 1.
        total: Steps of this stage.
        score: Current score of each of the B runs, shape ``(B,)``; best so far in the search.
        preview: The pictures with those scores, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        latent: Their latents, B rows; None in stages that do not have one for each.
    """

    stage: Literal[
        "bank",
        "search",
        "rerank",
        "start",
        "optimize",
        "race",
        "pair",
        "compose",
        "select",
        "score",
        "invert",
    ]
    step: int
    total: int
    score: Tensor
    preview: Tensor
    latent: Latent | None = None


Callback = Callable[[StepInfo], None]
