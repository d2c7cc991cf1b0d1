"""The protocol of generators; any class with these members can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Gan(Protocol):
    """A frozen, deterministic, differentiable class-conditional generator, g of the paper."""

    @property
    def gan_id(self) -> str:
        """Name of the weights; a basis is valid only for the GAN with its name."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Class names by index."""
        ...

    @property
    def truncation(self) -> float:
        """Recommended truncation, the default of the settings."""
        ...

    @property
    def z_std(self) -> float:
        """Standard deviation of a coordinate of z at truncation 1, the unit of ``lr_z``."""
        ...

    @property
    def y_std(self) -> float:
        """Standard deviation of a coordinate of y, the unit of ``lr_y``."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of latents and images."""
        ...

    def sample_z(self, num: int, *, truncation: float, generator: torch.Generator) -> Tensor:
        """Draw latent noise, shape ``(num, dim_z)``, on the GAN's device.

        Must draw row by row, so that the search does not depend on its batch size: drawing 3 rows
        and then 5 must equal drawing 8 rows, as with ``rng.truncated_normal``.
        """
        ...

    def embed(self, class_index: Tensor) -> Tensor:
        """Return class embeddings ``y``, shape ``(N, dim_y)``, of class indices ``(N,)``."""
        ...

    def decode(self, z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
        """Return images ``(N, 3, H, W)`` in ``[-1, 1]``, differentiable in z and y."""
        ...
