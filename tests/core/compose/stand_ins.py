"""Models that the tests of composition put in the place of real ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusedream_core import BigGan


class Squares:
    """Squared difference of each pixel, for want of a perceptual model."""

    device = torch.device("cpu")

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=1, keepdim=True)


class Watched:
    """A GAN that notes how many pictures each step decodes, and whose memory may become small.

    After ``num_ample`` steps' batches there is memory for ``room`` pictures only.
    """

    def __init__(self, gan: BigGan, num_ample: int = 1_000_000, room: int = 0) -> None:
        self._gan, self._num_ample, self._room = gan, num_ample, room
        self.decoded: list[int] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._gan, name)

    def decode(self, z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
        if z.requires_grad:
            if len(self.decoded) >= self._num_ample and len(z) > self._room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            self.decoded.append(len(z))
        return self._gan.decode(z, y, truncation=truncation)
