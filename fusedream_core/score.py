"""The two scores of the paper: CLIP's cosine, and AugCLIP, its mean over augmented copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .augment import AugmentParams, apply_params
from .checks import check_shape, check_targets
from .clip.base import ImageTextEncoder
from .errors import ConfigError
from .types import Score, Target


def text_features(targets: Sequence[Target], clip: ImageTextEncoder) -> Tensor:
    """Features of targets as one matrix ``(T, D)`` on the encoder's device.

    Raises:
        ConfigError: If there is none, or one was encoded by another CLIP.
    """
    check_targets(targets, clip.clip_id)
    return torch.stack([target.features.to(clip.device) for target in targets])


def _text_of_each(
    images: Tensor, targets: Target | Sequence[Target], clip: ImageTextEncoder
) -> Tensor:
    """The text feature of each picture, shape ``(B, D)``."""
    several = [targets] if isinstance(targets, Target) else targets
    if len(several) not in (1, len(images)):
        raise ConfigError(
            f"There are {len(several)} targets for {len(images)} pictures; "
            "give one for all of them, or one for each."
        )
    return text_features(several, clip).expand(len(images), -1)


def clip_score(
    images: Tensor, targets: Target | Sequence[Target], clip: ImageTextEncoder
) -> Tensor:
    """CLIP similarity of each picture and its text, s_CLIP of the paper.

    Args:
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        targets: One for all pictures, or one for each.
        clip: Frozen encoder; its input size sets the resize.

    Returns:
        Cosines, shape ``(B,)``; CLIP's logit scale is not applied. Differentiable.

    Raises:
        ShapeError: If the pictures are not ``(B, 3, H, W)``.
        ConfigError: If the targets are another CLIP's, or neither one nor B.
    """
    check_shape(images)
    return (clip.encode_images(images) * _text_of_each(images, targets, clip)).sum(dim=-1)


def aug_clip_score(
    images: Tensor,
    targets: Target | Sequence[Target],
    clip: ImageTextEncoder,
    *,
    params: AugmentParams,
    batch_size: int | None = None,
) -> Score:
    """Mean CLIP similarity between a text and augmented copies of each picture, s_AugCLIP.

    Averaging over augmentations removes the adversarial maxima of the plain score: noise that
    fools CLIP on the picture itself does not survive its changes.

    Args:
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        targets: One for all pictures, or one for each.
        clip: Frozen encoder.
        params: The changes, from ``sample_params``: the same for each picture (common random
            numbers, for a fair comparison), or joined from a draw for each.
        batch_size: Pictures scored at once; None means all. Sets the memory, not the result.

    Returns:
        Mean and standard error, shape ``(B,)`` each. The mean is differentiable.

    Raises:
        ShapeError: If the pictures are not ``(B, 3, H, W)``, or the changes were drawn for
            another size.
        ConfigError: If the changes were drawn for another number of pictures, or the targets
            are another CLIP's, or neither one nor B.

    References:
        Liu et al. 2021, section 3.1. Code: gnobitab/FuseDream, ``AugmentLoss``. Differs: draws
        are handed in; the text is encoded once; the resize to CLIP's size is antialiased.
    """
    check_shape(images)
    texts = _text_of_each(images, targets, clip)
    size = batch_size or len(images)
    parts = [slice(first, first + size) for first in range(0, len(images), size)]
    cosines = torch.cat(
        [_copy_scores(images[rows], texts[rows], clip, params.part(rows)) for rows in parts]
    )
    return Score(cosines.mean(dim=1), cosines.std(dim=1) / cosines.shape[1] ** 0.5)


def _copy_scores(
    images: Tensor, texts: Tensor, clip: ImageTextEncoder, params: AugmentParams
) -> Tensor:
    """Cosine of every copy with its picture's text, shape ``(B, n)``.

    An encoder that says how it resizes gets copies of its own size.
    """
    resizing = getattr(clip, "resizing", None)
    resize = None if resizing is None else resizing(*images.shape[-2:])
    copies = apply_params(images, params, resize=resize)  # (B, n, 3, H', W')
    features = clip.encode_images(copies.flatten(0, 1))  # (B * n, D)
    features = features.reshape(*copies.shape[:2], -1)  # (B, n, D)
    return (features * texts[:, None]).sum(dim=-1)
