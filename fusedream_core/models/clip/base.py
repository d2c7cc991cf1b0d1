"""What the method asks of an image-text encoder: a class with these few names can be plugged in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class ImageTextEncoder(Protocol):
    """A frozen pair of encoders into one space, f_image and f_text of the paper.

    An encoder may also have ``resizing(height, width)``, which returns the matrices
    ``(H', height)`` and ``(W', width)`` by which ``encode_images`` changes the size of pictures, or
    None. AugCLIP's copies are then made at that size in the first place. And ``kept_numbers``, how
    many numbers it keeps of a picture for its gradient, from which the nodes tell the memory. And
    ``unknown_words(text)``, the words of a text that it cannot know, of which the user is warned.
    """

    @property
    def clip_id(self) -> str:
        """Name of these weights; a target is only valid for the encoder that has its name."""
        ...

    @property
    def device(self) -> torch.device:
        """Where features come out."""
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit-norm features ``(N, D)``, at least float32, of pictures ``(N, 3, H, W)``.

        The pictures are in ``[-1, 1]``, except where an augmentation took them out of it, and of
        any size. Differentiable.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm features ``(N, D)`` of N texts."""
        ...

    def truncates(self, text: str) -> bool:
        """Whether the end of this text is cut off, being longer than the context."""
        ...
