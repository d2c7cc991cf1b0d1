"""Two latents and a place become one picture, and what that picture is worth.

Paper: Liu et al. 2021, section 3.3. B configurations are one batch of 2B runs, the foregrounds
first, then the backgrounds. The configurations may be of several runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..augclip.augment import AugmentParams
from ..augclip.score import aug_clip_score, aug_clip_score_within
from ..config import ComposeConfig
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..types import Score, Target
from .entries import Run
from .placement import Box, box_masks, place
from .poisson import PoissonSolver, blend, make_solver


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What B configurations look like; all ``(B, 3, H, W)`` in [-1, 1].

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
class Compositor:
    """What stays fixed while configurations are optimised.

    Attributes:
        gan: The generator of both pictures.
        clip: The encoder.
        perceptual: The distance behind consistency, or None for no consistency.
        truncation: tau of all pictures.
        config: How two pictures become one.
        limit: Most copies that CLIP sees at once.
        solvers: Of the boxes that were blended so far.
    """

    gan: Gan
    clip: ImageTextEncoder
    perceptual: Perceptual | None
    truncation: float
    config: ComposeConfig
    limit: AutoBatchSize = field(default_factory=AutoBatchSize)
    solvers: dict[Box, PoissonSolver] = field(default_factory=dict)

    def draw(self, z: Tensor, y: Tensor, boxes: Sequence[Box], *, num_steps_done: int) -> Pictures:
        """The pictures of latents ``(2B, ...)`` at B places, after so many steps."""
        images = self.gan.decode(z, y, truncation=self.truncation)
        foreground, background = images.chunk(2)
        layer = place(foreground, boxes, *background.shape[-2:])
        rows = [
            self.join(layer[i : i + 1], background[i : i + 1], box, num_steps_done=num_steps_done)
            for i, box in enumerate(boxes)
        ]
        return Pictures(foreground, background, layer, torch.cat(rows))

    def join(self, layer: Tensor, background: Tensor, box: Box, *, num_steps_done: int) -> Tensor:
        """Layers over backgrounds, in the last part of the steps blended.

        A box's solver is made once.
        """
        config = self.config
        blended = num_steps_done >= config.blend_from * config.optimize.num_steps
        mode = config.blend if blended else "none"
        if mode in ("poisson", "mixed") and box not in self.solvers:
            self.solvers[box] = make_solver(box, background)
        solver = self.solvers.get(box)
        return blend(
            layer, background, box, mode=mode, strength=config.blend_strength, solver=solver
        )

    def objective(self, pictures: Pictures, runs: Sequence[Run], params: AugmentParams) -> Tensor:
        """s_Fuse: AugCLIP of the composites, and of the parts that have prompts, ``(B,)``."""
        total = self._score(pictures.composite, [run.target for run in runs], params)
        if self.config.part_weight == 0:
            return total
        for which, images in enumerate((pictures.foreground, pictures.background)):
            asked = {
                row: part for row, run in enumerate(runs) if (part := run.parts[which]) is not None
            }
            if asked:  # those of some runs only, maybe
                rows = list(asked)
                score = self._score(images[rows], list(asked.values()), params.part(rows))
                index = torch.tensor(rows, device=total.device)
                total = total.index_add(0, index, self.config.part_weight * score)
        return total

    def _score(self, images: Tensor, targets: list[Target], params: AugmentParams) -> Tensor:
        """AugCLIP of some pictures, ``(B,)``."""
        size = self.limit.size
        return aug_clip_score(images, targets, self.clip, params=params, clip_batch=size).mean

    def judge(self, pictures: Pictures, runs: Sequence[Run], params: AugmentParams) -> Score:
        """AugCLIP of the composites alone, ``(B,)``, without gradients."""
        targets = [run.target for run in runs]
        return aug_clip_score_within(
            self.limit, pictures.composite, targets, self.clip, params=params
        )

    def inconsistency(self, pictures: Pictures, boxes: Sequence[Box]) -> Tensor:
        """l_Fuse: how differently the two pictures look where they should agree, ``(B,)``.

        References:
            Liu et al. 2021, section 3.3: LPIPS between foreground and background. In which region
            is not told; the readings are those of ``ComposeConfig.consistency``. "patch" and
            "seam" compare the plain paste with the background, which differ in the box alone.
        """
        background = pictures.background
        if self.perceptual is None:
            return background.new_zeros(len(boxes))
        if self.config.consistency == "whole":
            distance = self.perceptual.distance_map(pictures.foreground, background)
            return distance.mean(dim=(1, 2, 3))
        height, width = background.shape[-2:]
        region = inside = box_masks(boxes, height, width).to(background)
        if self.config.consistency == "seam":
            cores = [_core(box, height, width, self.config.seam_width) for box in boxes]
            region = inside - box_masks(cores, height, width).to(background)
        pasted = pictures.layer + (1.0 - inside) * background
        distance = self.perceptual.distance_map(pasted, background)
        return (distance * region).sum(dim=(1, 2, 3)) / region.sum(dim=(1, 2, 3)).clamp_min(1.0)


def _core(box: Box, height: int, width: int, share: float) -> Box:
    """The box less its seam: a band along the sides that lie inside the picture."""
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
