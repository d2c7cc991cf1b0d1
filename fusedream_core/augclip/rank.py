"""AugCLIP scores of pictures of any origin, one after the other, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_images
from ..config import AugmentConfig
from ..errors import ShapeError
from ..memory import Limit
from ..models.clip.base import ImageTextEncoder
from ..types import Callback, Score, StepInfo, Target
from .augment import AugmentParams, sample_params
from .score import aug_clip_score_within

_COPIES_AT_ONCE = 16  # seen by CLIP; without gradients more are hardly quicker
_LARGEST_SIDE = 448  # of the shorter side, in pixels: twice what most CLIP models see


def rank_images(
    images: Tensor | Sequence[Tensor],
    target: Target,
    clip: ImageTextEncoder,
    *,
    config: AugmentConfig,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> Score:
    """Score pictures that need not come from a GAN, all under the same augmentations.

    Pictures far larger than CLIP's input are shrunk first: the augmentations are relative to the
    picture's size, and CLIP would not see the detail.

    Args:
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``, on any device; or several such
            batches, which may differ in size. All have the same augmentations, in proportion.
        target: The encoded prompt.
        clip: Frozen encoder.
        config: Policy, and number of augmented copies of each picture.
        generator: CPU generator, advanced by this call.
        callback: Called after each picture; may raise to stop.

    Returns:
        Mean and standard error, shape ``(B,)`` each, on the CPU; of several batches one behind the
        other.

    Raises:
        ShapeError, ImageError: If there are none, or they cannot be scored.
        ConfigError: If the target was encoded by another CLIP.
    """
    batches = [images] if isinstance(images, Tensor) else images
    if not batches:
        raise ShapeError("There are no pictures to rank; give at least one.")
    for batch in batches:
        check_images(batch)
    pictures = [picture for batch in batches for picture in batch.split(1)]
    means, errors = [], []
    params: dict[torch.Size, AugmentParams] = {}  # by size, of the same random numbers
    limit, start = Limit(_COPIES_AT_ONCE), generator.get_state()
    with torch.no_grad():
        for step, picture in enumerate(pictures, start=1):
            picture = _shrink(picture.to(clip.device))
            size = picture.shape[-2:]
            if size not in params:
                params[size] = sample_params(
                    config.num_augments, *size, config=config, generator=generator.set_state(start)
                ).to(clip.device)
            score = aug_clip_score_within(limit, picture, target, clip, params=params[size])
            score = score.to("cpu")
            means.append(score.mean)
            errors.append(score.stderr)
            if callback is not None:
                callback(StepInfo("score", step, len(pictures), score.mean, picture))
    return Score(torch.cat(means), torch.cat(errors))


def _shrink(images: Tensor) -> Tensor:
    """Pictures no larger than the scores can tell, in their own proportions."""
    height, width = images.shape[-2:]
    scale = _LARGEST_SIDE / min(height, width)
    if scale >= 1.0:
        return images
    size = (round(height * scale), round(width * scale))
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1.0, 1.0)
