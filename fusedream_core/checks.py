"""Argument checks, each done once in a public function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import ConfigError, ImageError, ShapeError
from .types import Basis, Target


def check_shape(images: Tensor) -> None:
    """Check that ``images`` have the shape ``(B, 3, H, W)``, with no side of 0.

    Raises:
        ShapeError: If not.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ShapeError(
            f"The images have the shape {tuple(images.shape)}, but RGB images of the shape "
            "(B, 3, H, W) are needed; drop an alpha channel, and add missing dimensions."
        )


def check_images(images: Tensor) -> None:
    """Check that ``images`` are finite RGB images.

    Raises:
        ShapeError: If the shape is not ``(B, 3, H, W)``, or a side is 0.
        ImageError: If a value is NaN or infinite.
    """
    check_shape(images)
    if not torch.isfinite(images).all():
        raise ImageError(
            "The images hold NaN or infinite values, so they cannot be scored; "
            "check the node or function that made them."
        )


def check_targets(targets: Sequence[Target], clip_id: str) -> None:
    """Check that there are targets, all encoded by the given CLIP.

    Raises:
        ConfigError: If not.
    """
    if not targets:
        raise ConfigError("No target was given, but at least one encoded prompt is needed.")
    for target in targets:
        if target.clip_id != clip_id:
            raise ConfigError(
                f"The prompt {target.prompt!r} was encoded by the CLIP {target.clip_id!r}, but "
                f"the CLIP in use is {clip_id!r}; encode the prompt again with this one."
            )


def check_bases(bases: Sequence[Basis], gan_id: str) -> None:
    """Check that the bases belong to the given GAN and fit in one batch.

    Raises:
        ConfigError: If a basis is of another GAN, or sizes or truncations differ.
    """
    for basis in bases:
        if basis.gan_id != gan_id:
            raise ConfigError(
                f"The basis was found with the GAN {basis.gan_id!r}, but the GAN in use is "
                f"{gan_id!r}; connect the same GAN to both, or search again."
            )
    kinds = {(b.latent.z.shape, b.latent.y.shape, b.latent.truncation) for b in bases}
    if len(kinds) > 1:
        raise ConfigError(
            "The bases differ in their number of members or in truncation, but runs of one batch "
            "must share both; search with the same settings, or run them one after the other."
        )


def check_runs(**given: Sequence[object] | None) -> None:
    """Check that all sequences have the same length, and none is empty.

    Raises:
        ConfigError: If not.
    """
    counts = {name.replace("_", " "): len(own) for name, own in given.items() if own is not None}
    if 0 in counts.values() or len(set(counts.values())) > 1:
        *most, last = (f"{count} {name}" for name, count in counts.items())
        raise ConfigError(
            f"There are {', '.join(most)} and {last}, but each run needs one of each."
        )
