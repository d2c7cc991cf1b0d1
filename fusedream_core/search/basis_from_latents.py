"""Bases from existing latents, for any prompt."""

from __future__ import annotations

from functools import partial

import torch

from ..augclip.augment import sample_params
from ..augclip.score import aug_clip_score_within
from ..checks import check_targets
from ..config import AugmentConfig
from ..determinism import deterministic
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..types import Basis, Latent, Target

_DECODE_BATCH = 10


@deterministic()
@torch.no_grad()
def basis_from(
    gan: Gan,
    clip: ImageTextEncoder,
    target: Target,
    latent: Latent,
    *,
    augment: AugmentConfig,
    generator: torch.Generator,
) -> Basis:
    """Return a basis of the given latents, sorted by AugCLIP for a target.

    The class of each latent is that of the embedding nearest to its y.

    Args:
        gan: The GAN of the latents.
        clip: The encoder.
        target: The encoded prompt.
        latent: One or more latents.
        augment: Augmentations of the ranking, shared by all latents.
        generator: CPU generator, advanced by this call.

    Raises:
        ConfigError: If the target is of another CLIP.
    """
    check_targets([target], clip.clip_id)
    z, y = latent.z.to(gan.device), latent.y.to(gan.device)
    images = AutoBatchSize(_DECODE_BATCH).map(
        partial(gan.decode, truncation=latent.truncation), z, y
    )
    params = sample_params(
        augment.num_augments, *images.shape[-2:], config=augment, generator=generator
    )
    scores = aug_clip_score_within(AutoBatchSize(), images, target, clip, params=params).mean
    classes = gan.embed(torch.arange(len(gan.class_names)))
    nearest = torch.cdist(y.float(), classes.float()).argmin(dim=1)
    order = scores.argsort(descending=True, stable=True)
    return Basis(
        Latent(z[order], y[order], latent.truncation),
        scores[order].cpu(),
        nearest[order].cpu(),
        gan.gan_id,
        target.prompt,
    )
