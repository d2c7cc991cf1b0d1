"""Settings of the composition of two pictures, and the paper's."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch

from .recipe import DEFAULT, PAPER, AdamConfig, AugmentConfig, SearchConfig, adam_only
from .require import require, require_choice, require_count, require_range

Consistency = Literal["none", "whole", "patch", "seam"]
BlendMode = Literal["none", "feather", "poisson", "mixed"]

ALL = 1_000_000  # more configurations than anyone tries
_OPTIMIZE = AdamConfig(num_steps=60, lr_y=0.02)
_AUGMENT = AugmentConfig(num_augments=8)
_SEARCH = dataclasses.replace(DEFAULT.search, num_basis=16, max_per_class=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeConfig:
    """How two pictures become one.

    Attributes:
        optimize: Steps, learning rates and what is returned, as for one image.
        num_basis: Latents of each picture that are optimised together, taken from its basis.
        prefer_named: Whether the pre-search looks only at pairs of two classes that the prompt
            names, where it names two of the bases' classes.
        rungs: Successive halving: how many configurations go on, and up to which share of the
            steps, one pair for each rung. ``((ALL, 1.0),)`` is the paper's brute force.
        batch_size: Configurations optimised at once; sets the memory, not the result, but for the
            rounding of the models, which many steps may amplify. None means one on a CPU, where
            more are no quicker, and 6 elsewhere.
        consistency: Where the two pictures should agree: "seam", just inside the border of the
            pasted picture; "patch", all under it; "whole", everywhere and unscaled; or "none".
        seam_width: Width of that seam, as a fraction of the pasted picture's shorter side.
        beta: How fast the score must rise before consistency may; see ``dynamic_barrier``.
        metric: Inner products of the barrier: "adam", in the metric of Adam's steps, or
            "euclidean" as in the paper.
        blend: How the pasted picture is blended in; see ``poisson.blend``.
        blend_strength: From 0 (the plain paste) to 1.
        blend_from: Share of the steps after which the blended picture is what is scored. 0 means
            always: what blending makes of a place is then known from the pre-search on, and the
            halving ranks what will be returned.
        part_weight: How much the scores of foreground and background by prompts of their own
            count beside the composite's, where such prompts are given: in every step and in the
            halving. The pre-search and the choice of the iterate look at the composite alone.
    """

    optimize: AdamConfig = _OPTIMIZE
    num_basis: int = 5
    prefer_named: bool = True
    rungs: tuple[tuple[int, float], ...] = ((18, 0.05), (6, 0.2), (3, 0.5), (2, 1.0))
    batch_size: int | None = None
    consistency: Consistency = "seam"
    seam_width: float = 0.12
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
        require_range("seam_width", self.seam_width, 0.0, 0.5)
        for name in ("blend_strength", "blend_from"):
            require_range(name, getattr(self, name), 0.0, 1.0)
        for name in ("beta", "part_weight"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, name, value, "a number of at least 0")
        idle = self.beta == 0 and self.consistency == "none"
        require(not idle, "beta", self.beta, "above 0 where consistency is 'none'")
        self._require_rungs()

    def batch_size_on(self, device: torch.device) -> int:
        """Configurations optimised at once on this device."""
        if self.batch_size is not None:
            return self.batch_size
        return 1 if device.type == "cpu" else 6

    def _require_rungs(self) -> None:
        """Check that ever fewer configurations go ever further, to the end."""
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


# The paper's section 3.3, as far as it is told: all configurations to the end, the Euclidean
# barrier, blending as the last step. Which region its consistency compares is not told; this is
# the likeliest reading. The paper has no pre-search: its bases are the search's own k best.
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
    """The settings of all stages of a run that composes two pictures.

    The search is wide and varied, since foreground and background are different things.
    """

    search: SearchConfig = _SEARCH
    compose: ComposeConfig = ComposeConfig()
    augment: AugmentConfig = _AUGMENT
