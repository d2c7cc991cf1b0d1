"""FuseDream in pure PyTorch: pictures from text by optimising a GAN's latents under CLIP.

The method of Liu et al. 2021, "FuseDream: Training-Free Text-to-Image Generation with Improved
CLIP+GAN Space Optimization" (arXiv:2112.01573). ``generate("a blue dog")`` runs all of it.
"""

from __future__ import annotations

from .augment import AugmentParams, apply_params, join_params, sample_params
from .bank import Bank, build_bank, load_bank, save_bank
from .clip import ImageTextEncoder, OpenClip, encode_target, load_open_clip, load_open_clip_folder
from .composition import Attempt, ComposeResult, ComposeTrace, compose
from .config import (
    DEFAULT,
    PAPER,
    PAPER_COMPOSITION,
    REFERENCE_CODE,
    Augment,
    AugmentConfig,
    ComposeConfig,
    CompositionRecipe,
    OptimizeConfig,
    Recipe,
    SearchConfig,
)
from .demo import (
    demo_bank_path,
    demo_clip_dir,
    demo_gan_dir,
    demo_lpips_path,
    load_demo,
    load_demo_bank,
    load_demo_lpips,
)
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
from .perceptual import Lpips, Perceptual, load_lpips
from .pipeline import GenerationResult, generate, generate_composition
from .placement import Box, Placement, all_placements, paste
from .poisson import blend
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
    "PAPER_COMPOSITION",
    "REFERENCE_CODE",
    "Attempt",
    "Augment",
    "AugmentConfig",
    "AugmentParams",
    "Bank",
    "Basis",
    "BigGan",
    "Box",
    "CheckpointError",
    "ComposeConfig",
    "ComposeResult",
    "ComposeTrace",
    "CompositionRecipe",
    "ConfigError",
    "FuseDreamError",
    "Gan",
    "GenerationResult",
    "ImageError",
    "ImageTextEncoder",
    "Latent",
    "Lpips",
    "MissingDependencyError",
    "OpenClip",
    "OptimizeConfig",
    "OptimizeResult",
    "Perceptual",
    "Placement",
    "PromptError",
    "PromptPart",
    "Recipe",
    "Score",
    "SearchConfig",
    "ShapeError",
    "StepInfo",
    "Target",
    "all_placements",
    "apply_params",
    "aug_clip_score",
    "blend",
    "build_bank",
    "clip_score",
    "compose",
    "demo_bank_path",
    "demo_clip_dir",
    "demo_gan_dir",
    "demo_lpips_path",
    "encode_target",
    "generate",
    "generate_composition",
    "join_params",
    "load_bank",
    "load_biggan",
    "load_demo",
    "load_demo_bank",
    "load_demo_lpips",
    "load_lpips",
    "load_open_clip",
    "load_open_clip_folder",
    "make_generator",
    "optimize",
    "parse_prompt",
    "paste",
    "rank_images",
    "sample_params",
    "save_bank",
    "search_basis",
    "truncated_normal",
]
