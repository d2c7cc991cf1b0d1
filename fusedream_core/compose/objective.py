"""The objectives of a composition: s_Fuse, which comes first, and l_Fuse.

Paper: Liu et al. 2021, section 3.3. C candidates have 2C latents: those of the foregrounds, then
those of the backgrounds. The candidates may be of several problems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from .. import rng
from ..augclip.augment import AugmentParams
from ..augclip.draws import Draws
from ..augclip.score import aug_clip_score, aug_clip_score_within
from ..config import AugmentConfig, ComposeConfig
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..optimize.latent import LatentPair
from ..optimize.trials import Trials, in_micro_batches
from ..types import Score, Target
from .candidates import PlacementCandidate, Problem
from .placement import Box, box_masks, place
from .poisson import PoissonSolver, blend, make_solver

SEAM_WIDTH = 0.12  # as a fraction of the pasted image's shorter side

Report = Callable[[Tensor, Tensor], None]  # scores and composites of some candidates


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The images of C candidates; all ``(C, 3, H, W)`` in [-1, 1].

    Attributes:
        foreground: Before it is scaled.
        background: Before anything is pasted on it.
        layer: The scaled foreground in its box, zero elsewhere.
        composite: The result, blended or not.
    """

    foreground: Tensor
    background: Tensor
    layer: Tensor
    composite: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class FuseObjective:
    """From latents and placements to composites and their objectives.

    Attributes:
        gan: The generator of both images.
        clip: The encoder.
        perceptual: The distance behind consistency, or None for no consistency.
        truncation: tau of all images.
        config: How two images become one.
        augment: The augmentations of AugCLIP.
        problems: The prompts.
        limit: Most augmented views that CLIP encodes at once.
        solvers: Of the boxes that were blended so far.
    """

    gan: Gan
    clip: ImageTextEncoder
    perceptual: Perceptual | None
    truncation: float
    config: ComposeConfig
    augment: AugmentConfig
    problems: Sequence[Problem]
    limit: AutoBatchSize = field(default_factory=AutoBatchSize)
    solvers: dict[Box, PoissonSolver] = field(default_factory=dict)

    def draw(self, z: Tensor, y: Tensor, boxes: Sequence[Box], *, num_steps: int) -> Images:
        """The images of latents ``(2C, ...)`` with C boxes, after so many steps."""
        images = self.gan.decode(z, y, truncation=self.truncation)
        foreground, background = images.chunk(2)
        layer = place(foreground, boxes, *background.shape[-2:])
        rows = [
            self.join(layer[i : i + 1], background[i : i + 1], box, num_steps=num_steps)
            for i, box in enumerate(boxes)
        ]
        return Images(foreground, background, layer, torch.cat(rows))

    def join(self, layer: Tensor, background: Tensor, box: Box, *, num_steps: int) -> Tensor:
        """The composites: pasted, and from ``blend_from`` of the steps on blended.

        The solver of each box is made once.
        """
        config = self.config
        blended = num_steps >= config.blend_from * config.optimize.num_steps
        mode = config.blend if blended else "none"
        if mode in ("poisson", "mixed") and box not in self.solvers:
            self.solvers[box] = make_solver(box, background)
        solver = self.solvers.get(box)
        return blend(
            layer, background, box, mode=mode, strength=config.blend_strength, solver=solver
        )

    def evaluate_with_grad(
        self, trials: Trials[PlacementCandidate], latent: LatentPair, report: Report
    ) -> tuple[Tensor, Tensor, LatentPair, LatentPair]:
        """Both objectives of all candidates under fresh augmentations, and their gradients.

        Args:
            trials: The candidates, and the generators that the augmentations are drawn from.
            latent: z and y of the candidates, ``(2C, ...)``.
            report: Given the scores and composites of each micro-batch.

        Returns:
            s_Fuse ``(C,)``, l_Fuse ``(C,)``, and the gradients of l_Fuse and of s_Fuse with
            respect to z and y, as ``latent``; all without graph.
        """
        draws = Draws(self.augment, self.augment.num_augments, trials.generators)

        def evaluate(some: list[int], views: int) -> tuple[Tensor, ...]:
            rows, candidates = trials.rows(some), [trials.candidates[one] for one in some]
            z, y = (block.detach()[rows].requires_grad_() for block in latent)
            boxes = [candidate.box for candidate in candidates]
            images = self.draw(z, y, boxes, num_steps=trials.num_steps)
            score = self._score(
                images,
                candidates,
                draws.of([own.problem for own in candidates], images.composite),
                views,
            )
            loss = self.inconsistency(images, boxes)
            of_loss = _gradients(loss, (z, y), keep_graph=True)  # it shares the generator's
            of_score = _gradients(score, (z, y), keep_graph=False)
            found = (_by_candidate(block) for block in (*of_loss, *of_score))
            return score.detach(), loss.detach(), images.composite.detach(), *found

        score, loss, _, *blocks = in_micro_batches(
            self.limit,
            self.groups(len(trials.candidates)),
            self.augment.num_augments,
            evaluate,
            lambda found: report(found[0], found[2]),
        )
        z_loss, y_loss, z_score, y_score = (_by_layer(block) for block in blocks)
        return score, loss, (z_loss, y_loss), (z_score, y_score)

    @torch.no_grad()
    def evaluate_held_out(
        self, trials: Trials[PlacementCandidate], latents: Sequence[LatentPair], report: Report
    ) -> Score:
        """Held-out AugCLIP scores of the composites of N latents of all candidates, ``(N, C)``.

        Args:
            trials: The candidates.
            latents: N pairs of z and y, ``(2C, ...)``.
            report: Given the scores and composites of each micro-batch.
        """
        config = self.config.optimize
        generators = [rng.copy(problem.held_out) for problem in self.problems]
        draws = Draws(self.augment, config.eval_augments, generators)

        def evaluate(some: list[int], _: int, latent: LatentPair) -> tuple[Tensor, ...]:
            rows, candidates = trials.rows(some), [trials.candidates[one] for one in some]
            boxes = [candidate.box for candidate in candidates]
            z, y = latent
            images = self.draw(z[rows], y[rows], boxes, num_steps=config.num_steps)
            targets = [self.problems[candidate.problem].target for candidate in candidates]
            params = draws.of([own.problem for own in candidates], images.composite)
            score = aug_clip_score_within(
                self.limit, images.composite, targets, self.clip, params=params
            )
            return score.mean, score.stderr, images.composite

        def report_found(found: tuple[Tensor, ...]) -> None:
            report(found[0], found[2])

        groups, limit = self.groups(len(trials.candidates)), AutoBatchSize()
        scores = list[tuple[Tensor, ...]]()
        for latent in latents:
            work = partial(evaluate, latent=latent)
            found = in_micro_batches(limit, groups, 1, work, report_found)
            scores.append(found[:2])
        means, errors = (torch.stack(some) for some in zip(*scores, strict=True))
        return Score(means, errors)

    def groups(self, num: int) -> list[list[int]]:
        """The candidates in micro-batches."""
        size = self.config.batch_size_on(self.gan.device)
        return [list(range(first, min(first + size, num))) for first in range(0, num, size)]

    def _score(
        self,
        images: Images,
        candidates: Sequence[PlacementCandidate],
        params: AugmentParams,
        views: int,
    ) -> Tensor:
        """s_Fuse: AugCLIP of the composites, and of the parts that have prompts, ``(C,)``."""

        def score(part: Tensor, targets: list[Target], params: AugmentParams) -> Tensor:
            return aug_clip_score(part, targets, self.clip, params=params, clip_batch=views).mean

        problems = [self.problems[candidate.problem] for candidate in candidates]
        total = score(images.composite, [problem.target for problem in problems], params)
        if self.config.part_weight == 0:
            return total
        for which, part in enumerate((images.foreground, images.background)):
            asked = {
                row: target
                for row, problem in enumerate(problems)
                if (target := problem.parts[which]) is not None
            }
            if asked:  # those of some problems only, maybe
                rows = list(asked)
                own = score(part[rows], list(asked.values()), params.part(rows))
                index = torch.tensor(rows, device=total.device)
                total = total.index_add(0, index, self.config.part_weight * own)
        return total

    def inconsistency(self, images: Images, boxes: Sequence[Box]) -> Tensor:
        """l_Fuse: the distance of the two images where they should agree, ``(C,)``.

        References:
            Liu et al. 2021, section 3.3: LPIPS between foreground and background. In which region
            is not said; the readings are those of ``ComposeConfig.consistency``. "patch" and
            "seam" compare the plain paste with the background, which differ in the box alone.
        """
        background = images.background
        if self.perceptual is None:
            return background.new_zeros(len(boxes))
        if self.config.consistency == "whole":
            distance = self.perceptual.distance_map(images.foreground, background)
            return distance.mean(dim=(1, 2, 3))
        height, width = background.shape[-2:]
        region = inside = box_masks(boxes, height, width).to(background)
        if self.config.consistency == "seam":
            cores = [_core(box, height, width, SEAM_WIDTH) for box in boxes]
            region = inside - box_masks(cores, height, width).to(background)
        pasted = images.layer + (1.0 - inside) * background
        distance = self.perceptual.distance_map(pasted, background)
        return (distance * region).sum(dim=(1, 2, 3)) / region.sum(dim=(1, 2, 3)).clamp_min(1.0)


def _gradients(of: Tensor, leaves: Sequence[Tensor], *, keep_graph: bool) -> Sequence[Tensor]:
    """The gradients of C numbers, each with respect to its own latents."""
    if not of.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    # A sum, so that no candidate's gradient depends on C.
    return torch.autograd.grad(of.sum(), leaves, retain_graph=keep_graph, materialize_grads=True)


def _by_candidate(block: Tensor) -> Tensor:
    """Rows ``(2C, dim)`` of foregrounds, then backgrounds, as ``(C, 2, dim)``."""
    return block.view(2, -1, *block.shape[1:]).transpose(0, 1)


def _by_layer(block: Tensor) -> Tensor:
    """``(C, 2, dim)`` as rows ``(2C, dim)`` of foregrounds, then backgrounds."""
    return block.transpose(0, 1).flatten(0, 1)


def _core(box: Box, height: int, width: int, share: float) -> Box:
    """The box less its seam: a band along the sides that lie inside the image."""
    band = max(1, round(share * min(box.height, box.width)))
    top, core_height = _inner(box.top, box.height, height, band)
    left, core_width = _inner(box.left, box.width, width, band)
    return Box(top, left, core_height, core_width)


def _inner(start: int, length: int, side: int, band: int) -> tuple[int, int]:
    """Start and length of an axis less the band at its open ends; at least a pixel is left."""
    first = start + band * (start > 0)
    last = start + length - band * (start + length < side)
    middle = start + length // 2
    return min(first, middle), max(1, last - min(first, middle))
