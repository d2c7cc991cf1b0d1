"""Settings of the inversion of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .recipe import AdamConfig, SearchConfig, adam_only
from .require import require, require_range

_SEARCH = SearchConfig(ranking="clip", num_basis=4, max_per_class=2)
_OPTIMIZE = AdamConfig(num_steps=200, lr_z=0.1, lr_y=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertConfig:
    """How a latent is found for a picture.

    Attributes:
        search: Finds the starts, by plain CLIP of the image.
        optimize: Steps and learning rates; the last latent is returned.
        trial_share: After which share of the steps only the best start goes on.
        clip_weight: How much one minus the cosine of CLIP's features counts beside LPIPS.
        color_weight: How much the mean absolute difference of the pixels counts.
    """

    search: SearchConfig = _SEARCH
    optimize: AdamConfig = _OPTIMIZE
    trial_share: float = 0.25
    clip_weight: float = 0.3
    color_weight: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimize", adam_only(self.optimize))
        require_range("trial_share", self.trial_share, 0.0, 1.0)
        for name in ("clip_weight", "color_weight"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, name, value, "a number of at least 0")
