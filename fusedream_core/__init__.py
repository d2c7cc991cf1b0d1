"""FuseDream in pure PyTorch: pictures from text by optimising a GAN's latents under CLIP.

The method of Liu et al. 2021, "FuseDream: Training-Free Text-to-Image Generation with Improved
CLIP+GAN Space Optimization" (arXiv:2112.01573). ``generate("a blue dog")`` runs all of it.
"""

from __future__ import annotations

from .augment import AugmentParams, apply_params, join_params, sample_params
from .clip import ImageTextEncoder, OpenClip, encode_target, load_open_clip, load_open_clip_folder
from .config import (
    DEFAULT,
    PAPER,
    REFERENCE_CODE,
    Augment,
    AugmentConfig,
    OptimizeConfig,
    Recipe,
    SearchConfig,
)
from .demo import demo_clip_dir, demo_gan_dir, load_demo
from .errors import (
    CheckpointError,
    ConfigError,
    FuseDreamError,
    ImageError,
    MissingDependencyError,
    PromptError,
    ShapeError,
)
from .gan import BigGan, Gan, load_biggan
from .optimize import optimize
from .pipeline import GenerationResult, generate
from .prompt import parse_prompt
from .rank import rank_images
from .rng import make_generator, truncated_normal
from .score import aug_clip_score, clip_score
from .search import search_basis
from .types import (
    Basis,
    Latent,
    OptimizeResult,
    PromptPart,
    Score,
    StepInfo,
    Target,
)

__all__ = [
    "DEFAULT",
    "PAPER",
    "REFERENCE_CODE",
    "Augment",
    "AugmentConfig",
    "AugmentParams",
    "Basis",
    "BigGan",
    "CheckpointError",
    "ConfigError",
    "FuseDreamError",
    "Gan",
    "GenerationResult",
    "ImageError",
    "ImageTextEncoder",
    "Latent",
    "MissingDependencyError",
    "OpenClip",
    "OptimizeConfig",
    "OptimizeResult",
    "PromptError",
    "PromptPart",
    "Recipe",
    "Score",
    "SearchConfig",
    "ShapeError",
    "StepInfo",
    "Target",
    "apply_params",
    "aug_clip_score",
    "clip_score",
    "demo_clip_dir",
    "demo_gan_dir",
    "encode_target",
    "generate",
    "join_params",
    "load_biggan",
    "load_demo",
    "load_open_clip",
    "load_open_clip_folder",
    "make_generator",
    "optimize",
    "parse_prompt",
    "rank_images",
    "sample_params",
    "search_basis",
    "truncated_normal",
]
