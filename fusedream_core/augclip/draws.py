"""One draw of augmentations for each of several problems."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import AugmentConfig
from .augment import AugmentParams, join_params, sample_params


class Draws:
    """The augmentations of one step or comparison; all images of a problem share its draw.

    They are drawn at the first use, when the size of the images is known.
    """

    def __init__(
        self, config: AugmentConfig, num: int, generators: Sequence[torch.Generator]
    ) -> None:
        """``num`` views of each image; one CPU generator for each problem, advanced once."""
        self._config, self._num, self._generators = config, num, generators
        self._drawn: list[AugmentParams] = []

    def of(self, problems: Sequence[int], images: Tensor) -> AugmentParams:
        """The draws for images ``(R, 3, H, W)``, given the problem of each."""
        if not self._drawn:
            height, width = images.shape[-2:]
            self._drawn = [
                sample_params(self._num, height, width, config=self._config, generator=own)
                for own in self._generators
            ]
        return join_params([self._drawn[problem] for problem in problems])
