from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import BigGan, OpenClip, load_demo_lpips, make_generator
from fusedream_core.models.clip.ensemble import EnsembleClip
from fusedream_core.models.precision import MixedPrecision


class Model(MixedPrecision):
    half_prefixes = ("bulk.",)

    def __init__(self) -> None:
        super().__init__()
        self.bulk, self.rest = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        nn.init.constant_(self.rest.weight, 0.1)


def dtypes(module: nn.Module) -> set[torch.dtype]:
    return {value.dtype for value in module.state_dict().values() if value.is_floating_point()}


class TestMixedPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half(self, dtype: torch.dtype) -> None:
        model = Model()
        weights = model.rest.weight.clone()
        assert nn.Sequential(model).to(dtype)[0] is model
        assert dtypes(model.bulk) == {dtype}
        assert torch.equal(model.rest.weight, weights)  # in float32, and not rounded
        model.to("meta")
        assert dtypes(model.bulk) == {dtype}
        assert dtypes(model.rest) == {torch.float32}

    def test_shorthands(self) -> None:
        assert dtypes(Model().half().rest) == dtypes(Model().bfloat16().rest) == {torch.float32}

    def test_other_casts(self) -> None:
        model = Model().half().double()
        assert dtypes(model) == {torch.float64}


class TestForward:
    def test_gan(self, gan: BigGan) -> None:
        z = gan.sample_z(2, truncation=0.6, generator=make_generator(0))
        y = gan.embed(torch.tensor([0, 1]))
        assert torch.equal(gan(z, y), gan.decode(z, y, truncation=gan.truncation))
        assert torch.equal(gan(z, y, truncation=0.3), gan.decode(z, y, truncation=0.3))

    def test_clip(self, clip: OpenClip, images: Tensor) -> None:
        assert torch.equal(clip(images), clip.encode_images(images))
        both = EnsembleClip([clip, clip], [1.0, 2.0])
        assert torch.equal(both(images), both.encode_images(images))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_lpips(self, dtype: torch.dtype) -> None:
        lpips = load_demo_lpips()
        images = torch.rand(2, 3, 32, 32, generator=make_generator(0)).mul(2).sub(1).split(1)
        expected = lpips.distance_map(*images)
        assert torch.equal(lpips(*images), expected)
        cast = lpips.to(dtype)(*images)
        assert cast.dtype == torch.float32
        torch.testing.assert_close(cast, expected, rtol=0.1, atol=0.05)
