"""AugCLIP scores of images of any origin, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_images
from ..config import AugmentConfig
from ..determinism import deterministic
from ..errors import ShapeError
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..types import Callback, Score, StepInfo, Target
from .augment import AugmentParams, sample_params
from .score import aug_clip_score_within

_VIEWS_PER_BATCH = 16  # larger batches are hardly faster without gradients
_MAX_SHORT_SIDE_PX = 448  # twice the input size of most CLIP models


@deterministic()
def rank_images(
    images: Tensor | Sequence[Tensor],
    target: Target,
    clip: ImageTextEncoder,
    *,
    config: AugmentConfig,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> Score:
    """Score images of any origin with AugCLIP, all under the same augmentations.

    Images far larger than CLIP's input are downscaled first.

    Args:
        images: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``, on any device; or a sequence of such
            batches, which may differ in size. The augmentations are the same relative to the size.
        target: The encoded prompt.
        clip: Frozen encoder.
        config: Policy, and number of augmented views per image.
        generator: CPU generator, advanced by this call.
        callback: Called after each image; may raise to stop.

    Returns:
        Mean and standard error, shape ``(B,)`` each, on the CPU, batches concatenated.

    Raises:
        ShapeError, ImageError: If there are no images, or they cannot be scored.
        ConfigError: If the target was encoded by another CLIP.
    """
    batches = [images] if isinstance(images, Tensor) else images
    if not batches:
        raise ShapeError("There are no images to rank; give at least one.")
    for batch in batches:
        check_images(batch)
    singles = [image for batch in batches for image in batch.split(1)]
    scores: list[Score] = []
    params: dict[torch.Size, AugmentParams] = {}  # by size, from the same random numbers
    batch_size, start = AutoBatchSize(_VIEWS_PER_BATCH), generator.get_state()
    with torch.no_grad():
        for step, image in enumerate(singles, start=1):
            image = _shrink(image.to(clip.device))
            size = image.shape[-2:]
            if size not in params:
                params[size] = sample_params(
                    config.num_augments, *size, config=config, generator=generator.set_state(start)
                ).to(clip.device)
            score = aug_clip_score_within(batch_size, image, target, clip, params=params[size])
            scores.append(score.to("cpu"))
            if callback is not None:
                callback(StepInfo("score", step, len(singles), scores[-1].mean, image))
    return Score(torch.cat([own.mean for own in scores]), torch.cat([own.stderr for own in scores]))


def _shrink(images: Tensor) -> Tensor:
    """Downscale large images, keeping their aspect ratio."""
    height, width = images.shape[-2:]
    scale = _MAX_SHORT_SIDE_PX / min(height, width)
    if scale >= 1.0:
        return images
    size = (round(height * scale), round(width * scale))
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1.0, 1.0)
