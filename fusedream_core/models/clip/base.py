"""The protocol of image-text encoders; any class with these members can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class ImageTextEncoder(Protocol):
    """A frozen pair of encoders into one space, f_image and f_text of the paper.

    Optional members:
        ``resizing(height, width)``: the matrices ``(H', height)`` and ``(W', width)`` of the resize
            in ``encode_images``, or None. AugCLIP then makes its views at that size.
        ``activation_floats``: floats saved per image for the backward pass, to estimate memory.
        ``unknown_words(text)``: words that the encoder was not trained on, for a warning.
    """

    @property
    def clip_id(self) -> str:
        """Name of the weights; a target is valid only for the encoder with its name."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the features."""
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Return unit-norm features ``(N, D)``, at least float32, of images ``(N, 3, H, W)``.

        Images have any size and are in ``[-1, 1]``, or outside after colour augmentations.
        Differentiable.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return unit-norm features ``(N, D)`` of N texts."""
        ...

    def truncates(self, text: str) -> bool:
        """Return whether a text is longer than the context, so that its end is cut off."""
        ...
