"""FuseDream in pure PyTorch: text-to-image generation by optimising GAN latents with CLIP.

The method of Liu et al. 2021, "FuseDream: Training-Free Text-to-Image Generation with Improved
CLIP+GAN Space Optimization" (arXiv:2112.01573). ``generate("a blue dog")`` runs all of it.
"""

from __future__ import annotations

from . import starting as _starting  # noqa: F401 - first, as the rest takes seconds
from .augclip.augment import AugmentParams, apply_params, join_params, sample_params
from .augclip.prompt import parse_prompt
from .augclip.rank import rank_images
from .augclip.score import aug_clip_score, clip_score
from .augclip.target import encode_target, image_target
from .compose import Attempt, ComposeResult, ComposeTrace, compose
from .compose.placement import Box, Placement, all_placements, paste
from .compose.poisson import blend
from .config import (
    DEFAULT,
    PAPER,
    PAPER_COMPOSITION,
    REFERENCE_CODE,
    AdamConfig,
    Augment,
    AugmentConfig,
    ComposeConfig,
    CompositionRecipe,
    InvertConfig,
    OptimizeConfig,
    Recipe,
    SearchConfig,
)
from .devices import find_device
from .errors import (
    CheckpointError,
    ConfigError,
    DownloadError,
    FuseDreamError,
    ImageError,
    MissingDependencyError,
    NonFiniteError,
    PromptError,
    SaveError,
    ShapeError,
)
from .models.catalogue import CatalogueModel, catalogue, find_model
from .models.clip import (
    EnsembleClip,
    ImageTextEncoder,
    OpenClip,
    load_open_clip,
    load_open_clip_file,
    load_open_clip_folder,
    merge_clips,
)
from .models.demo import (
    demo_bank_path,
    demo_clip_dir,
    demo_gan_dir,
    demo_lpips_path,
    load_demo,
    load_demo_lpips,
)
from .models.download import download_model
from .models.gan import BigGan, Gan, load_biggan
from .models.lpips import Lpips, Perceptual, load_lpips
from .optimize.invert import InvertResult, invert_image
from .optimize.latent_file import GanLatent, interpolate, load_latent, save_latent
from .optimize.optimize import optimize
from .pipeline.generate import GenerationResult, generate, generate_composition, resume
from .pipeline.kept_demo import free_demo
from .pipeline.provenance import Provenance
from .pipeline.run_file import RunKeeper, SavedRun, load_run
from .rng import make_generator, truncated_normal
from .search.bank import Bank, build_bank, load_bank, load_demo_bank, save_bank
from .search.basis_from_latents import basis_from
from .search.search import search_basis
from .types import Basis, Latent, OptimizeResult, PromptPart, Score, StepInfo, Target

__all__ = [
    "DEFAULT",
    "PAPER",
    "PAPER_COMPOSITION",
    "REFERENCE_CODE",
    "AdamConfig",
    "Attempt",
    "Augment",
    "AugmentConfig",
    "AugmentParams",
    "Bank",
    "Basis",
    "BigGan",
    "Box",
    "CatalogueModel",
    "CheckpointError",
    "ComposeConfig",
    "ComposeResult",
    "ComposeTrace",
    "CompositionRecipe",
    "ConfigError",
    "DownloadError",
    "EnsembleClip",
    "FuseDreamError",
    "Gan",
    "GanLatent",
    "GenerationResult",
    "ImageError",
    "ImageTextEncoder",
    "InvertConfig",
    "InvertResult",
    "Latent",
    "Lpips",
    "MissingDependencyError",
    "NonFiniteError",
    "OpenClip",
    "OptimizeConfig",
    "OptimizeResult",
    "Perceptual",
    "Placement",
    "PromptError",
    "PromptPart",
    "Provenance",
    "Recipe",
    "RunKeeper",
    "SaveError",
    "SavedRun",
    "Score",
    "SearchConfig",
    "ShapeError",
    "StepInfo",
    "Target",
    "all_placements",
    "apply_params",
    "aug_clip_score",
    "basis_from",
    "blend",
    "build_bank",
    "catalogue",
    "clip_score",
    "compose",
    "demo_bank_path",
    "demo_clip_dir",
    "demo_gan_dir",
    "demo_lpips_path",
    "download_model",
    "encode_target",
    "find_device",
    "find_model",
    "free_demo",
    "generate",
    "generate_composition",
    "image_target",
    "interpolate",
    "invert_image",
    "join_params",
    "load_bank",
    "load_biggan",
    "load_demo",
    "load_demo_bank",
    "load_demo_lpips",
    "load_latent",
    "load_lpips",
    "load_open_clip",
    "load_open_clip_file",
    "load_open_clip_folder",
    "load_run",
    "make_generator",
    "merge_clips",
    "optimize",
    "parse_prompt",
    "paste",
    "rank_images",
    "resume",
    "sample_params",
    "save_bank",
    "save_latent",
    "search_basis",
    "truncated_normal",
]
