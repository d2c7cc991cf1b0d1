"""Frozen dataclasses of tensors that the stages pass to each other.

Tensors may be on any device; ``record.to("cpu")`` returns a copy for storage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeVar

import torch
from torch import Tensor

_Self = TypeVar("_Self", bound="Record")


class Record:
    """Base class: a dataclass whose tensors move between devices together."""

    __slots__ = ()

    def to(self: _Self, device: torch.device | str) -> _Self:
        """Return a copy with all tensors, nested ones included, on ``device``."""
        moved = {
            field.name: value.to(device)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, field.name), (Tensor, Record))
        }
        return dataclasses.replace(self, **moved)  # type: ignore[type-var]

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the record, nested ones included."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        lists = [own.tensors() if isinstance(own, Record) else [own] for own in values]
        return [tensor for tensor in chain(*lists) if isinstance(tensor, Tensor)]

    @property
    def nbytes(self) -> int:
        """Total size of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors())


@dataclass(frozen=True, slots=True, eq=False)
class Latent(Record):
    """Points of the GAN's input space, xi = (z, y) of the paper.

    Attributes:
        z: Latent noise, shape ``(B, dim_z)``.
        y: Class embedding, shape ``(B, dim_y)``.
        truncation: tau, which selects the GAN's normalisation statistics; above 0, at most 1.
    """

    z: Tensor
    y: Tensor
    truncation: float


@dataclass(frozen=True, slots=True, eq=False)
class Basis(Record):
    """The k best latents that the seed search found for one prompt, best first.

    Attributes:
        latent: The k latents.
        scores: Scores that ranked the latents, shape ``(k,)``.
        class_index: Class of each ``y``, shape ``(k,)``, int64.
        gan_id: Name of the GAN.
        prompt: Prompt of the search.
        ranking: Kind of the scores: AugCLIP or plain CLIP.
    """

    latent: Latent
    scores: Tensor
    class_index: Tensor
    gan_id: str
    prompt: str
    ranking: Literal["aug_clip", "clip"] = "aug_clip"

    def pick(self, rows: Tensor) -> Basis:
        """Return the members at these indices, in this order."""
        latent = self.latent
        return dataclasses.replace(
            self,
            latent=Latent(latent.z[rows], latent.y[rows], latent.truncation),
            scores=self.scores[rows],
            class_index=self.class_index[rows],
        )


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One part of a prompt: a text and its weight; a negative weight avoids the text."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Target(Record):
    """The CLIP feature of a prompt, of images, or of both.

    Attributes:
        features: Unit-norm feature, shape ``(D,)``.
        parts: Weighted parts of the prompt.
        clip_id: Name of the CLIP that encoded the target.
        prompt: The prompt as typed.
        from_images: Whether images are part of the target.
    """

    features: Tensor
    parts: tuple[PromptPart, ...]
    clip_id: str
    prompt: str
    from_images: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Score(Record):
    """Scores of B images, in cosine units; higher is better.

    Attributes:
        mean: Mean over the augmented views, shape ``(B,)``.
        stderr: Standard error of that mean, shape ``(B,)``; NaN for a single view.
    """

    mean: Tensor
    stderr: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class OptimizeResult(Record):
    """The results of B runs.

    Attributes:
        images: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        latent: Mixed latents; ``gan.decode`` of them returns the images.
        score: Held-out AugCLIP score.
        trace: Objective at each step, shape ``(steps, B)``.
        start: Initial mixing weights of each problem.
        chosen: Returned checkpoint of each problem: "step 25", "average" or "last".
    """

    images: Tensor
    latent: Latent
    score: Score
    trace: Tensor
    start: tuple[str, ...]
    chosen: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class StepInfo:
    """Progress, passed to a callback after each scored batch and each step.

    Attributes:
        stage: Current stage ("score": images of any origin).
        step: Steps done in this stage, from 1.
        total: Steps of this stage.
        score: Current score of each of the B problems, shape ``(B,)``; best so far in the search.
        preview: Images with those scores, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        latent: Latents of those images, B rows; None in stages without one for each.
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
