"""Settings of the composition of two images, and the paper's preset."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch

from .presets import DEFAULT, PAPER
from .recipe import AdamConfig, AugmentConfig, SearchConfig, adam_only
from .require import require, require_choice, require_count, require_range

Consistency = Literal["none", "whole", "patch", "seam"]
BlendMode = Literal["none", "feather", "poisson", "mixed"]

ALL = 1_000_000  # more than the number of placements
_OPTIMIZE = AdamConfig(num_steps=60, lr_y=0.02)
_AUGMENT = AugmentConfig(num_augments=8)
_SEARCH = dataclasses.replace(DEFAULT.search, num_basis=16, max_per_class=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeConfig:
    """Settings of Algorithm 2, which composes two images.

    Attributes:
        optimize: Steps, learning rates and selection, as for one image.
        num_basis: Basis latents of each image that are optimised.
        prefer_named: Whether the pre-search is limited to pairs of classes that the prompt names,
            where it names two classes of the bases.
        rungs: Successive halving: placements that are kept, and the share of the steps at
            which the rung ends, one pair per rung. ``((ALL, 1.0),)`` is the paper's brute force.
        batch_size: Placements per micro-batch; changes memory, and results only by rounding, which
            many steps may amplify. None means 1 on a CPU and 6 elsewhere.
        consistency: Region of the consistency loss: "seam", just inside the border of the
            foreground; "patch", the area under it; "whole", both images, unscaled; or "none".
        beta: Required rate of increase of the score; see ``dynamic_barrier``.
        metric: Inner product of the barrier: "adam", preconditioned by Adam's second moments, or
            "euclidean" as in the paper.
        blend: Blending of the foreground; see ``poisson.blend``.
        blend_strength: From 0 (plain paste) to 1.
        blend_from: Share of the steps after which the blended image is scored. 0 means always, so
            that the pre-search and the halving rank blended images, as returned.
        part_weight: Weight of the scores of foreground and background for their own prompts,
            relative to the composite's, at every step and in the halving. The pre-search and the
            selection of the checkpoint use the composite's score alone.
    """

    optimize: AdamConfig = _OPTIMIZE
    num_basis: int = 5
    prefer_named: bool = True
    rungs: tuple[tuple[int, float], ...] = ((18, 0.05), (6, 0.2), (3, 0.5), (2, 1.0))
    batch_size: int | None = None
    consistency: Consistency = "seam"
    beta: float = 1.0
    metric: Literal["adam", "euclidean"] = "adam"
    blend: BlendMode = "poisson"
    blend_strength: float = 1.0
    blend_from: float = 0.0
    part_weight: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimize", adam_only(self.optimize))
        require(self.optimize.start != "best", "start", "best", "a start of its own")
        require_count("num_basis", self.num_basis, 1)
        if self.batch_size is not None:
            require_count("batch_size", self.batch_size, 1)
        require_choice("consistency", self.consistency, ("none", "whole", "patch", "seam"))
        require_choice("metric", self.metric, ("adam", "euclidean"))
        require_choice("blend", self.blend, ("none", "feather", "poisson", "mixed"))
        for name in ("blend_strength", "blend_from"):
            require_range(name, getattr(self, name), 0.0, 1.0)
        for name in ("beta", "part_weight"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, name, value, "a number of at least 0")
        idle = self.beta == 0 and self.consistency == "none"
        require(not idle, "beta", self.beta, "above 0 where consistency is 'none'")
        self._require_rungs()

    def batch_size_on(self, device: torch.device) -> int:
        """Return the number of configurations per batch on a device."""
        if self.batch_size is not None:
            return self.batch_size
        return 1 if device.type == "cpu" else 6

    def _require_rungs(self) -> None:
        """Check that counts fall and shares rise to 1."""
        counts, shares = zip(*self.rungs, strict=True) if self.rungs else ((), (0.0,))
        for count in counts:
            require_count("rungs", count, 1)
        falling = list(counts) == sorted(counts, reverse=True)
        rising = all(a < b for a, b in zip((0.0, *shares), shares, strict=False))
        require(
            falling and rising and shares[-1] == 1.0,
            "rungs",
            self.rungs,
            "pairs of a falling count and a rising share of the steps, the last of them 1",
        )


# Section 3.3 of the paper: all configurations to the end, the Euclidean barrier, blending as the
# last step. The paper does not specify the region of the consistency loss; "patch" is the most
# likely reading. It has no pre-search: its bases are the k best of the search.
PAPER_COMPOSITION = ComposeConfig(
    optimize=PAPER.optimize.adam(),
    prefer_named=False,
    rungs=((ALL, 1.0),),
    consistency="patch",
    metric="euclidean",
    blend_from=1.0,
    part_weight=0.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositionRecipe:
    """Settings of all stages of a composition.

    The default search keeps a larger basis, with more classes, than that of a single image.
    """

    search: SearchConfig = _SEARCH
    compose: ComposeConfig = ComposeConfig()
    augment: AugmentConfig = _AUGMENT
