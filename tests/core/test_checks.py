from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedream_core import ConfigError, ImageError, ShapeError
from fusedream_core.checks import check_images, check_runs


class TestCheckImages:
    def test_smoke(self, images: Tensor) -> None:
        check_images(images)
        check_images(torch.zeros(1, 3, 1, 1))

    @pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 8, 8, 3), (0, 3, 8, 8)])
    def test_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match=r"RGB images of the shape \(B, 3, H, W\)"):
            check_images(torch.zeros(shape))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_value(self, images: Tensor, value: float) -> None:
        images[1, 2, 3, 4] = value
        with pytest.raises(ImageError, match="NaN or infinite"):
            check_images(images)


class TestCheckRuns:
    def test_smoke(self) -> None:
        check_runs(targets=[1, 2], part_targets=None, bases=(3, 4))

    def test_exception(self) -> None:
        message = "There are 2 targets, 1 bases and 0 part targets, but each run needs one of each"
        with pytest.raises(ConfigError, match=message):
            check_runs(targets=[1, 2], bases=[3], part_targets=[])
        with pytest.raises(ConfigError, match="There are 0 targets and 0 bases"):
            check_runs(targets=[], bases=[])
