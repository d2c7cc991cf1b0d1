"""What the method asks of a generator: a class with these few names can be plugged in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Gan(Protocol):
    """A frozen, deterministic, differentiable class-conditional generator, g of the paper."""

    @property
    def gan_id(self) -> str:
        """Name of these weights; a basis is only valid for the GAN that has its name."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of their indices."""
        ...

    @property
    def truncation(self) -> float:
        """The tau that the weights look best at, used where none is asked for."""
        ...

    @property
    def z_std(self) -> float:
        """Spread of one coordinate of z at truncation 1, the unit of its learning rate."""
        ...

    @property
    def y_std(self) -> float:
        """Spread of one coordinate of y, the unit of its learning rate."""
        ...

    @property
    def device(self) -> torch.device:
        """Where latents must be and pictures come out."""
        ...

    def sample_z(self, num: int, *, truncation: float, generator: torch.Generator) -> Tensor:
        """Draw latent noise, shape ``(num, dim_z)``, on the GAN's device.

        Must draw row after row, so that the search does not depend on its batch size: 3 rows and
        then 5 are the same numbers as 8 rows. ``rng.truncated_normal`` does this.
        """
        ...

    def embed(self, class_index: Tensor) -> Tensor:
        """Class embeddings ``y``, shape ``(N, dim_y)``, of class indices ``(N,)``."""
        ...

    def decode(self, z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
        """Pictures ``(N, 3, H, W)`` in ``[-1, 1]``, differentiable with respect to z and y."""
        ...
