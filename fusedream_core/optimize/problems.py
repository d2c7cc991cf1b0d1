"""A batch of problems: models and prompts, and how latents become scored images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..augclip.draws import Draws
from ..augclip.score import aug_clip_score, aug_clip_score_within, clip_score
from ..augclip.target import encode_target
from ..config import AugmentConfig, Objective
from ..errors import ConfigError
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..types import Callback, Latent, Score, StepInfo, Target
from .latent import LatentPair
from .trials import in_micro_batches


@dataclass(frozen=True, slots=True, eq=False)
class Problems:
    """All that stays fixed while the latents of B problems (prompts or seeds) are optimised.

    Attributes:
        gan: The generator.
        clip: The encoder.
        targets: The prompt of each problem.
        truncation: tau of all images.
        augment: The augmentations of AugCLIP.
        limit: Most augmented views that CLIP encodes at once, and thereby most rows.
        decode_limit: Most images that are decoded at once without gradients.
    """

    gan: Gan
    clip: ImageTextEncoder
    targets: Sequence[Target]
    truncation: float
    augment: AugmentConfig
    limit: AutoBatchSize = field(default_factory=AutoBatchSize)
    decode_limit: AutoBatchSize = field(default_factory=AutoBatchSize)

    def __len__(self) -> int:
        """B."""
        return len(self.targets)

    def scored_by(self, clip: ImageTextEncoder) -> Problems:
        """The same problems, scored by another CLIP, which encodes the prompts anew.

        Raises:
            ConfigError: If a target was made of images.
        """
        if any(target.from_images for target in self.targets):
            raise ConfigError(
                "A target of images cannot be encoded anew by a second CLIP; leave the selector "
                "out, or use a prompt of text."
            )
        targets = [encode_target(clip, target.prompt) for target in self.targets]
        return dataclasses.replace(self, clip=clip, targets=targets)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Images ``(R, 3, H, W)`` of latents."""
        return self.gan.decode(z, y, truncation=self.truncation)

    def decode_each(self, z: Tensor, y: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` of one latent for each problem."""
        groups = self._groups(range(len(self)))
        return in_micro_batches(
            self.decode_limit, groups, 1, lambda rows, _: (self.decode(z[rows], y[rows]),)
        )[0]

    def score_and_grad(
        self,
        latent: LatentPair,
        problems: Sequence[int],
        kind: Objective,
        num_augments: int,
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor, LatentPair]:
        """The score that is optimised, under fresh augmentations, and its gradient.

        Rows go through the networks together as far as ``_groups`` and the limit allow. Only the
        gradient of each is kept, so that the memory does not grow with their number.

        Args:
            latent: z and y of R rows.
            problems: The problem of each row.
            kind: The score: AugCLIP, or plain CLIP.
            num_augments: Augmented views of each image.
            generators: One for each problem, whose rows share their augmentations.

        Returns:
            Scores ``(R,)``, images ``(R, 3, H, W)``, and the gradients of each row's score with
            respect to its z and y; all without graph.
        """
        z, y = (block.detach() for block in latent)
        draws = Draws(self.augment, num_augments, generators)

        def score(rows: list[int], copies: int) -> tuple[Tensor, ...]:
            leaves = tuple(block[rows].detach().requires_grad_() for block in (z, y))
            targets = [self.targets[problems[row]] for row in rows]
            images = self.decode(*leaves)
            if kind == "clip":
                scores = clip_score(images, targets, self.clip)
            else:
                params = draws.of([problems[row] for row in rows], images)
                scores = aug_clip_score(
                    images, targets, self.clip, params=params, clip_batch=copies
                ).mean
            # A sum, so that no row's gradient depends on R; zeros for what a GAN does not use.
            gradients = torch.autograd.grad(scores.sum(), leaves, materialize_grads=True)
            return scores.detach(), images.detach(), *gradients

        scores, images, of_z, of_y = in_micro_batches(
            self.limit, self._groups(problems), num_augments if kind == "aug_clip" else 1, score
        )
        return scores, images, (of_z, of_y)

    @torch.no_grad()
    def evaluate(
        self,
        latents: Sequence[LatentPair],
        num_augments: int,
        generators: Sequence[torch.Generator],
        *,
        stage: Literal["start", "race", "select"],
        callback: Callback | None,
    ) -> Score:
        """AugCLIP scores of S latents of each problem, all under the same augmentations.

        Args:
            latents: S pairs of z and y, B rows each.
            num_augments: Augmented views of each image.
            generators: One for each problem; drawn from once.
            stage: The stage that is reported to the callback.
            callback: Called after each of the S; it may raise to stop.

        Returns:
            Scores ``(S, B)``.
        """
        draws = Draws(self.augment, num_augments, generators)

        def score(rows: list[int], images: Tensor) -> Score:
            targets = [self.targets[row] for row in rows]
            params = draws.of(rows, images)
            return aug_clip_score_within(
                self.limit, images[rows], targets, self.clip, params=params
            )

        scores = list[Score]()
        for step, (z, y) in enumerate(latents, start=1):
            images = self.decode_each(z, y)
            parts = [score(rows, images) for rows in self._groups(range(len(self)))]
            scores.append(
                Score(
                    torch.cat([part.mean for part in parts]),
                    torch.cat([part.stderr for part in parts]),
                )
            )
            if callback is not None:
                latent = Latent(z.detach(), y.detach(), self.truncation)
                callback(StepInfo(stage, step, len(latents), scores[-1].mean, images, latent))
        return Score(
            torch.stack([score.mean for score in scores]),
            torch.stack([score.stderr for score in scores]),
        )

    def _groups(self, problems: Sequence[int]) -> list[list[int]]:
        """The rows that may go through the networks together, given the problem of each row.

        On a CPU those of one problem, which then round as they do without the others, so that its
        results are the same to the last bit; a batch of all would save there a fifth of the time at
        best. Elsewhere, where it saves most of it, all rows.
        """
        rows = list(range(len(problems)))
        if self.gan.device.type != "cpu":
            return [rows]
        return [[row for row in rows if problems[row] == one] for one in range(len(self))]
