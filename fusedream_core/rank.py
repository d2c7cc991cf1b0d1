"""AugCLIP scores of pictures of any origin, one after the other, in bounded memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import sample_params
from .checks import check_images
from .clip.base import ImageTextEncoder
from .config import AugmentConfig
from .memory import Limit
from .score import aug_clip_score_within
from .types import Callback, Score, StepInfo, Target

_COPIES_AT_ONCE = 16  # seen by CLIP; without gradients more are hardly quicker
_LARGEST_SIDE = 448  # of the shorter side, in pixels: twice what most CLIP models see


def rank_images(
    images: Tensor,
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
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``, on any device.
        target: The encoded prompt.
        clip: Frozen encoder.
        config: Policy, and number of augmented copies of each picture.
        generator: CPU generator, advanced by this call.
        callback: Called after each picture; may raise to stop.

    Returns:
        Mean and standard error, shape ``(B,)`` each, on the CPU.

    Raises:
        ShapeError, ImageError: If the pictures cannot be scored.
        ConfigError: If the target was encoded by another CLIP.
    """
    check_images(images)
    means, errors = [], []
    params, limit = None, Limit(_COPIES_AT_ONCE)
    with torch.no_grad():
        for step, picture in enumerate(images.split(1), start=1):
            picture = _shrink(picture.to(clip.device))
            if params is None:
                params = sample_params(
                    config.num_augments, *picture.shape[-2:], config=config, generator=generator
                ).to(clip.device)
            score = aug_clip_score_within(limit, picture, target, clip, params=params).to("cpu")
            means.append(score.mean)
            errors.append(score.stderr)
            if callback is not None:
                callback(StepInfo("score", step, len(images), score.mean, picture))
    return Score(torch.cat(means), torch.cat(errors))


def _shrink(images: Tensor) -> Tensor:
    """Pictures no larger than the scores can tell, in their own proportions."""
    height, width = images.shape[-2:]
    scale = _LARGEST_SIDE / min(height, width)
    if scale >= 1.0:
        return images
    size = (round(height * scale), round(width * scale))
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1.0, 1.0)
