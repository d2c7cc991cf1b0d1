"""The presets of text to image: the default, the paper, and the reference code."""

from __future__ import annotations

from .recipe import Augment, AugmentConfig, OptimizeConfig, Recipe, SearchConfig

DEFAULT = Recipe()

PUBLISHED_POLICY = (
    Augment.BRIGHTNESS,
    Augment.SATURATION,
    Augment.CONTRAST,
    Augment.TRANSLATION,
    Augment.RESIZE,
    Augment.CUTOUT,
)

# The paper (arXiv:2112.01573): AugCLIP ranks all candidates, scalar weights start at 1/k. The paper
# specifies neither steps nor learning rate; those are the reference code's.
PAPER = Recipe(
    search=SearchConfig(
        num_candidates=10_000, num_reranked=None, guided_share=0.0, max_per_class=None
    ),
    optimize=OptimizeConfig(
        num_steps=1_000,
        first_augments=1.0,
        mixing="scalar",
        start="uniform",
        num_starts=1,
        units="absolute",
        lr_z=5e-3,
        lr_y=5e-3,
        lr_w=5e-3,
        schedule="constant",
        selection="last",
    ),
    augment=AugmentConfig(num_augments=50, policy=PUBLISHED_POLICY, draws="independent"),
)

# The defaults of the script of gnobitab/FuseDream. Two differences: z is a truncated N(0, 1), not a
# clamped one; and the latent after the last step is returned, not the one before it.
REFERENCE_CODE = Recipe(
    search=SearchConfig(
        num_candidates=10_000, ranking="clip", guided_share=0.0, max_per_class=None
    ),
    optimize=OptimizeConfig(
        num_steps=1_000,
        first_augments=1.0,
        mixing="softmax",
        start="random",
        num_starts=1,
        units="absolute",
        lr_z=5e-3,
        lr_y=5e-3,
        lr_w=5e-3,
        latent_noise_std=0.01,
        schedule="constant",
        selection="last",
    ),
    augment=AugmentConfig(
        num_augments=50, policy=PUBLISHED_POLICY, shared_zoom=True, draws="independent"
    ),
)
