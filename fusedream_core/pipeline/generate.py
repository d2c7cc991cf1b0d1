"""Text to picture in one call."""

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
    """Make a picture from a text.

    Args:
        prompt: What to show; see ``parse_prompt`` for pieces and weights.
        seed: From 0 to 2**64 - 1; the same seed gives the same picture.
        device: Where the demo models run; None means the first accelerator, or else the CPU. Models
            that are given stay where they are.
        gan: The generator.
        clip: The encoder. With neither generator nor encoder, the demo pair is loaded, and kept for
            the next call; see ``free_demo``.
        bank: Candidates that CLIP has seen before; None means none, and so another picture. Where
            this call loads the demo pair, its bank comes along, unless the recipe tells the number
            of candidates or a truncation.
        selector: A second encoder, which chooses among the iterates and gives the score.
        recipe: The settings of all stages.
        start_image: A picture to start from instead of a search, shape ``(1, 3, H, W)``, in
            ``[-1, 1]``: the optimisation begins at the latent that draws it best.
        perceptual: The distance by which that latent is found; None means the demo's.
        invert: How it is found.
        keeper: Where an unfinished run is kept, to go on with by ``resume``.
        callback: Called after each scored batch and each step; it may raise to stop.

    Returns:
        The picture with its score, latent and basis.

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
    """Make a picture of two things from a text: one picture pasted on another.

    Args:
        prompt: What the whole is to show; see ``parse_prompt`` for pieces and weights.
        seed: From 0 to 2**64 - 1; the same seed gives the same picture.
        device: Where the demo models run; see :func:`generate`.
        gan: The generator.
        clip: The encoder. With neither generator nor encoder, the demo models are loaded.
        perceptual: The distance behind consistency; None means the demo's, if any is needed.
        bank: Candidates that CLIP has seen before; see :func:`generate`.
        recipe: The settings of all stages.
        placements: Scales and positions to try; None means the paper's 18.
        foreground_prompt: What the pasted picture is to show. With it, its basis has a search of
            its own; without, foreground and background share the search for ``prompt``.
        background_prompt: The same of the picture that it is pasted on.
        keeper: Where an unfinished run is kept, to go on with by ``resume``.
        callback: Called after each scored batch and each step; it may raise to stop.

    Returns:
        The composite with its score, latents and basis (the foreground's).

    Raises:
        FuseDreamError: If a prompt is empty, the seed out of range, or models do not fit.

    References:
        Liu et al. 2021, section 3.3, where one text serves all; the others are an addition.
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
    """The models that were given, and the demo's where a job needs more.

    Raises:
        ConfigError: If only one of generator and encoder is given, or models are on two devices.
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
