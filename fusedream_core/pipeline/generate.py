"""Text-to-image generation in one call."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ..compose.placement import Placement
from ..config import DEFAULT, CompositionRecipe, InvertConfig, Recipe, SearchConfig
from ..devices import describe_device, find_device
from ..errors import ConfigError
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..search.bank import Bank
from ..types import Callback
from .job import Job, Models, check_start_image, hash_image, same_device
from .kept_demo import kept_demo, kept_demo_bank, kept_demo_lpips
from .result import GenerationResult
from .run_file import RunKeeper
from .work import OPTIMIZE_STREAM, SEARCH_STREAM, resume, run_job

__all__ = [
    "OPTIMIZE_STREAM",
    "SEARCH_STREAM",
    "GenerationResult",
    "choose_models",
    "generate",
    "generate_composition",
    "resume",
    "run_job",
]

logger = logging.getLogger(__name__)


def generate(
    prompt: str,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    gan: Gan | None = None,
    clip: ImageTextEncoder | None = None,
    bank: Bank | None = None,
    selector: ImageTextEncoder | None = None,
    recipe: Recipe = DEFAULT,
    start_image: Tensor | None = None,
    perceptual: Perceptual | None = None,
    invert: InvertConfig = InvertConfig(),  # noqa: B008 - frozen
    keeper: RunKeeper | None = None,
    callback: Callback | None = None,
) -> GenerationResult:
    """Generate an image from a prompt.

    Args:
        prompt: Text of the image; see ``parse_prompt`` for parts and weights.
        seed: From 0 to 2**64 - 1; the same seed gives the same image.
        device: Device of the demo models; None means the first accelerator, or the CPU. Models that
            are given are not moved.
        gan: The generator.
        clip: The encoder. Without generator and encoder, the demo pair is loaded and kept for the
            next call; see ``free_demo``.
        bank: Precomputed candidates, which change the image; None means none. The demo pair has its
            own bank, used unless the recipe sets ``num_candidates`` or ``truncation``.
        selector: A second encoder, which selects the checkpoint and computes the final score.
        recipe: Settings of all stages.
        start_image: Initial image instead of a search, shape ``(1, 3, H, W)``, in ``[-1, 1]``; the
            optimisation starts at its inverted latent.
        perceptual: Perceptual distance of the inversion; None means the demo's.
        invert: Settings of the inversion.
        keeper: Saves an unfinished run for ``resume``.
        callback: Called after each scored batch and each step; it may raise to stop.

    Returns:
        The image with its score, latent and basis.

    Raises:
        FuseDreamError: If the prompt is empty, the seed out of range, or models do not fit.
    """
    if start_image is not None:
        check_start_image(start_image)
    job = Job(
        prompt=prompt,
        seed=seed,
        recipe=recipe,
        start_image=None if start_image is None else hash_image(start_image),
        invert=None if start_image is None else invert,
    )
    models = choose_models(
        job, device=device, gan=gan, clip=clip, bank=bank, selector=selector, perceptual=perceptual
    )
    return run_job(job, models, start_image=start_image, keeper=keeper, callback=callback)


def generate_composition(
    prompt: str,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    gan: Gan | None = None,
    clip: ImageTextEncoder | None = None,
    perceptual: Perceptual | None = None,
    bank: Bank | None = None,
    recipe: CompositionRecipe = CompositionRecipe(),  # noqa: B008 - frozen
    placements: Sequence[Placement] | None = None,
    foreground_prompt: str | None = None,
    background_prompt: str | None = None,
    keeper: RunKeeper | None = None,
    callback: Callback | None = None,
) -> GenerationResult:
    """Generate a composition from a prompt: a foreground image pasted on a background image.

    Args:
        prompt: Text of the composite; see ``parse_prompt`` for parts and weights.
        seed: From 0 to 2**64 - 1; the same seed gives the same image.
        device: Device of the demo models; see :func:`generate`.
        gan: The generator.
        clip: The encoder. Without generator and encoder, the demo models are loaded.
        perceptual: Perceptual distance of the consistency loss; None means the demo's, if needed.
        bank: Precomputed candidates; see :func:`generate`.
        recipe: Settings of all stages.
        placements: Scales and positions; None means the paper's 18.
        foreground_prompt: Text of the foreground, with a separate search. Without it, foreground
            and background share the search for ``prompt``.
        background_prompt: Text of the background, likewise.
        keeper: Saves an unfinished run for ``resume``.
        callback: Called after each scored batch and each step; it may raise to stop.

    Returns:
        The composite with its score, latents and basis (the foreground's).

    Raises:
        FuseDreamError: If a prompt is empty, the seed out of range, or models do not fit.

    References:
        Liu et al. 2021, section 3.3, with one prompt only.
    """
    job = Job(
        prompt=prompt,
        seed=seed,
        recipe=recipe,
        placements=None if placements is None else tuple(placements),
        foreground_prompt=foreground_prompt,
        background_prompt=background_prompt,
    )
    models = choose_models(job, device=device, gan=gan, clip=clip, bank=bank, perceptual=perceptual)
    return run_job(job, models, keeper=keeper, callback=callback)


def choose_models(
    job: Job,
    *,
    device: torch.device | str | None = None,
    gan: Gan | None = None,
    clip: ImageTextEncoder | None = None,
    bank: Bank | None = None,
    selector: ImageTextEncoder | None = None,
    perceptual: Perceptual | None = None,
) -> Models:
    """Return the given models, completed by the demo's where the job needs more.

    Raises:
        ConfigError: If only one of generator and encoder is given, or devices differ.
    """
    if gan is None and clip is None:
        where = find_device(device)
        logger.info("FuseDream runs on %s.", describe_device(where))
        gan, clip = kept_demo(where)
        search: SearchConfig = job.recipe.search
        if bank is None and search.num_candidates is None and search.truncation is None:
            bank = kept_demo_bank()
    elif gan is None or clip is None:
        raise ConfigError(
            "Only one of gan and clip was given; give both, or neither for the demo pair."
        )
    elif device is not None and not same_device(find_device(device), gan.device):
        raise ConfigError(
            f"The GAN is on {gan.device}, but the device asked for is {str(device)!r}; move the "
            "models there first, or leave the device out."
        )
    if not job.needs_perceptual:
        perceptual = None
    elif perceptual is None:
        perceptual = kept_demo_lpips(gan.device)
    return Models(gan, clip, None if job.start_image else bank, selector, perceptual)
