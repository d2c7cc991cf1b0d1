"""Going on from latents that are there: as the basis of another run, for any prompt."""

from __future__ import annotations

from functools import partial

import torch

from ..augclip.augment import sample_params
from ..augclip.score import aug_clip_score_within
from ..checks import check_targets
from ..config import AugmentConfig
from ..memory import Limit
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..types import Basis, Latent, Target

_AT_ONCE = 10  # pictures made together


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
    """A basis of latents of any origin, best first by AugCLIP for a prompt.

    The class of each is the one whose embedding is nearest to its y.

    Args:
        gan: The GAN that the latents belong to.
        clip: The encoder.
        target: The prompt to go on with.
        latent: One or more latents.
        augment: The changes that they are ranked by, the same for all.
        generator: CPU generator, advanced by this call.

    Raises:
        ConfigError: If the target is another CLIP's.
    """
    check_targets([target], clip.clip_id)
    z, y = latent.z.to(gan.device), latent.y.to(gan.device)
    images = Limit(_AT_ONCE).map(partial(gan.decode, truncation=latent.truncation), z, y)
    params = sample_params(
        augment.num_augments, *images.shape[-2:], config=augment, generator=generator
    )
    scores = aug_clip_score_within(Limit(), images, target, clip, params=params).mean
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
