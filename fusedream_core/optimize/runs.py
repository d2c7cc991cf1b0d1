"""B runs in one batch: their models and prompts, and how their latents become scored pictures."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..augclip.augment import AugmentParams, join_params, sample_params
from ..augclip.score import aug_clip_score, aug_clip_score_within, clip_score
from ..config import AugmentConfig, Objective, OptimizeConfig
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..state import State, like
from ..types import Callback, Score, StepInfo, Target

LatentPair = tuple[Tensor, Tensor]  # z (B, dim_z) and y (B, dim_y)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """What stays fixed while B runs are optimised.

    Attributes:
        gan: The generator.
        clip: The encoder.
        targets: The prompt of each run.
        truncation: tau of all runs.
        augment: The changes of AugCLIP.
        limit: Most copies that CLIP sees at once, and thereby most rows.
    """

    gan: Gan
    clip: ImageTextEncoder
    targets: Sequence[Target]
    truncation: float
    augment: AugmentConfig
    limit: AutoBatchSize = field(default_factory=AutoBatchSize)

    def pick(self, rows: Sequence[int]) -> Runs:
        """Some of the runs."""
        return dataclasses.replace(self, targets=[self.targets[row] for row in rows])

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` of the runs' latents."""
        return self.gan.decode(z, y, truncation=self.truncation)

    def sample(
        self, num: int, images: Tensor, generators: Sequence[torch.Generator]
    ) -> AugmentParams:
        """Draw ``num`` changes for each run's picture, each run from its own generator."""
        size = images.shape[-2:]
        draws = [
            sample_params(num, size[0], size[1], config=self.augment, generator=generator)
            for generator in generators
        ]
        return join_params(draws)

    def ascend(
        self,
        latent: LatentPair,
        kind: Objective,
        num_augments: int,
        generators: Sequence[torch.Generator],
        num_starts: int,
    ) -> tuple[Tensor, Tensor, LatentPair]:
        """The score that is optimised, with fresh changes for AugCLIP, and where it rises.

        Rows are looked at together as far as ``_turns`` has it and CLIP may see all of their
        copies at once; the others wait. What is kept of each is its gradient, so that the memory
        does not grow with their number.

        Args:
            latent: z and y, a row of each for each target.
            kind: The score.
            num_augments: Changed copies of each picture.
            generators: One for each row.
            num_starts: S, where the rows are S starts of each of some runs: the first starts of
                all runs, then the second.

        Returns:
            Scores ``(B,)``, pictures ``(B, 3, H, W)``, and the gradients of each row's score with
            respect to its z and y; all without graph.
        """
        z, y = (block.detach() for block in latent)
        num = num_augments if kind == "aug_clip" else 1
        turns = self._turns(len(z) // num_starts, num_starts)
        drawn: list[AugmentParams] = []  # once, when the size of the pictures is known

        def look(rows: list[int], copies: int) -> tuple[Tensor, ...]:
            leaves = tuple(block[rows].detach().requires_grad_() for block in (z, y))
            targets = [self.targets[row] for row in rows]
            images = self.decode(*leaves)
            if kind == "clip":
                scores = clip_score(images, targets, self.clip)
            else:
                if not drawn:
                    drawn.append(self.sample(num, images, generators))
                scores = aug_clip_score(
                    images,
                    targets,
                    self.clip,
                    params=drawn[0].part(rows),
                    clip_batch=copies,
                ).mean
            # A sum, so that no row's gradient depends on B; zeros for what a GAN does not look at.
            risen = torch.autograd.grad(scores.sum(), leaves, materialize_grads=True)
            return scores.detach(), images.detach(), *risen

        def look_at_all(copies: int) -> tuple[Tensor, ...]:
            tall = max(1, copies // num)
            chunks = [
                turn[first : first + tall] for turn in turns for first in range(0, len(turn), tall)
            ]
            return _in_order(chunks, [look(rows, copies) for rows in chunks])

        scores, images, of_z, of_y = self.limit.run(look_at_all, most=num * len(turns[0]))
        return scores, images, (of_z, of_y)

    def _turns(self, num_runs: int, num_starts: int) -> list[list[int]]:
        """Which rows may go through the networks together, of S starts of some runs.

        On a CPU those of one run, which then round as they do without the others, so that its
        results are the same to the last bit; a batch of all would save there a fifth of the time at
        best. Elsewhere, where it saves most of it, all rows.
        """
        rows = list(range(num_runs * num_starts))
        if self.gan.device.type == "cpu":
            return [rows[run::num_runs] for run in range(num_runs)]
        return [rows]

    @torch.no_grad()
    def judge(
        self,
        latents: Sequence[LatentPair],
        num_augments: int,
        generators: Sequence[torch.Generator],
        *,
        stage: Literal["start", "race", "review", "select"],
        callback: Callback | None,
    ) -> tuple[Tensor, Score]:
        """Compare S latents of each run by AugCLIP, all under the same changes.

        Args:
            latents: S pairs of z and y.
            num_augments: Changed copies of each picture.
            generators: One for each run; drawn from once.
            stage: What the comparison is for, told to the callback.
            callback: Called after each of the S; it may raise to stop.

        Returns:
            Pictures ``(S, B, 3, H, W)`` and their scores ``(S, B)``.
        """
        turns = self._turns(len(generators), 1)
        images = [
            _in_order(turns, [(self.decode(z[rows], y[rows]),) for rows in turns])[0]
            for z, y in latents
        ]
        params = self.sample(num_augments, images[0], generators)
        scores = []
        for step, batch in enumerate(images, start=1):
            parts = [self._judge(batch[rows], rows, params.part(rows)) for rows in turns]
            score = Score(*_in_order(turns, [(part.mean, part.stderr) for part in parts]))
            scores.append(score)
            if callback is not None:
                callback(StepInfo(stage, step, len(images), score.mean, batch))
        mean = torch.stack([score.mean for score in scores])
        stderr = torch.stack([score.stderr for score in scores])
        return torch.stack(images), Score(mean, stderr)

    def _judge(self, images: Tensor, rows: list[int], params: AugmentParams) -> Score:
        """The scores of some runs' pictures."""
        targets = [self.targets[row] for row in rows]
        return aug_clip_score_within(self.limit, images, targets, self.clip, params=params)


def _in_order(turns: list[list[int]], parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What was made of some rows in each turn, in the order of the rows."""
    if len(turns) == 1:
        return parts[0]
    place = torch.tensor([row for rows in turns for row in rows]).argsort()
    return tuple(torch.cat(some)[place.to(some[0].device)] for some in zip(*parts, strict=True))


class Iterates:
    """The latents on the way that may be returned: snapshots, running average, and the last."""

    def __init__(self, config: OptimizeConfig) -> None:
        """Plan which to keep; ``config`` says how many snapshots and which are asked for."""
        self._only_last = config.selection == "last"
        self._decay = config.ema_decay
        num = config.num_snapshots
        self._snapshot_steps = {config.num_steps * index // num for index in range(num)}
        self._kept: dict[str, LatentPair] = {}
        self._ends: dict[str, LatentPair] = {}  # "average" and "last", as of now

    def observe(self, step: int, latent: LatentPair, rows: list[int] | None = None) -> None:
        """Take in the latents after ``step`` steps; 0 is the start.

        ``rows`` are the runs that they belong to, all if None. The others stay as they are, and
        what they have under the name of this step is to be ignored.
        """
        z, y = latent[0].detach(), latent[1].detach()
        old_z, old_y = self._ends.get("average", (z, y))
        if rows is not None:
            old_z, old_y = old_z[rows], old_y[rows]
        average = torch.lerp(z, old_z, self._decay), torch.lerp(y, old_y, self._decay)
        ends = {"average": average, "last": (z, y)}
        if rows is not None:
            ends = {name: put_rows(self._ends[name], rows, part) for name, part in ends.items()}
        self._ends = ends
        if self.is_snapshot(step):
            self._kept[f"step {step}"] = ends["last"]

    def is_snapshot(self, step: int) -> bool:
        """Whether the latents after ``step`` steps are kept."""
        return step in self._snapshot_steps

    def pick(self, rows: Tensor) -> Iterates:
        """The same, of some of the runs."""
        other = copy.copy(self)
        other._kept, other._ends = (
            {name: (z[rows], y[rows]) for name, (z, y) in latents.items()}
            for latents in (self._kept, self._ends)
        )
        return other

    def state_dict(self) -> State:
        """All latents by name."""
        return {"kept": self._kept, "ends": self._ends}

    def restored(self, state: State, latent: LatentPair) -> Iterates:
        """Iterates as they were saved, of rows like those of a latent.

        Raises:
            CheckpointError: If they are of another kind.
        """
        other = copy.copy(self)
        other._kept, other._ends = (
            {name: (like(z, latent[0]), like(y, latent[1])) for name, (z, y) in own.items()}
            for own in (state["kept"], state["ends"])
        )
        return other

    def snapshots(self) -> dict[str, LatentPair]:
        """The latents kept so far, by name."""
        return dict(self._kept)

    def candidates(self) -> dict[str, LatentPair]:
        """The latents to choose from, by name."""
        if self._only_last:
            return {"last": self._ends["last"]}
        return self._kept | self._ends


def put_rows(
    whole: tuple[Tensor, Tensor], rows: list[int], part: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Two tensors of all runs with those of some runs replaced; the old ones stay as they are."""
    place = torch.tensor(rows, device=part[0].device)
    first, second = (old.index_copy(0, place, new) for old, new in zip(whole, part, strict=True))
    return first, second


def join_iterates(several: Sequence[Iterates]) -> Iterates:
    """The iterates of several batches that are equally far, as those of one."""
    joined = copy.copy(several[0])
    joined._kept = _join_latents([own._kept for own in several])
    joined._ends = _join_latents([own._ends for own in several])
    return joined


def _join_latents(several: Sequence[dict[str, LatentPair]]) -> dict[str, LatentPair]:
    """The rows of latents that have the same names."""
    return {
        name: (
            torch.cat([own[name][0] for own in several]),
            torch.cat([own[name][1] for own in several]),
        )
        for name in several[0]
    }
