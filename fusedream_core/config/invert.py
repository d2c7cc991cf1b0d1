"""Settings of GAN inversion."""

from __future__ import annotations

from dataclasses import dataclass

from .recipe import AdamConfig, SearchConfig, adam_only
from .require import require_range

_SEARCH = SearchConfig(ranking="clip", num_basis=4, max_per_class=2)
_OPTIMIZE = AdamConfig(num_steps=200, lr_z=0.1, lr_y=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertConfig:
    """Settings of the search and optimisation that find the latent of an image.

    Attributes:
        search: Finds the starts, by the CLIP similarity to the image.
        optimize: Steps and learning rates; the last latent is returned.
        trial_share: Share of the steps after which only the best start is kept.
    """

    search: SearchConfig = _SEARCH
    optimize: AdamConfig = _OPTIMIZE
    trial_share: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimize", adam_only(self.optimize))
        require_range("trial_share", self.trial_share, 0.0, 1.0)
