from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core.models.gan.ops import (
    pixelwise,
    plus_pixelwise,
    scale_shift_relu,
    to_rgb,
    upsampled_plus_pixelwise,
    upsampling_kernel,
)


@pytest.fixture
def x(rng: torch.Generator) -> Tensor:
    return torch.randn(2, 3, 6, 4, generator=rng, dtype=torch.float64)


@pytest.fixture
def weight(rng: torch.Generator) -> Tensor:
    return torch.randn(5, 3, generator=rng, dtype=torch.float64)


def test_scale_shift_relu(x: Tensor, rng: torch.Generator) -> None:
    scale, shift = torch.randn(2, 2, 3, generator=rng, dtype=torch.float64)
    plain = F.relu(scale[..., None, None] * x + shift[..., None, None])
    torch.testing.assert_close(scale_shift_relu(x, (scale, shift)), plain, rtol=0, atol=1e-12)


def test_pixelwise(x: Tensor, weight: Tensor) -> None:
    plain = F.conv2d(x, weight[..., None, None])
    torch.testing.assert_close(pixelwise(x, weight), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_plus_pixelwise(
    x: Tensor, weight: Tensor, rng: torch.Generator, grown: bool, channels_last: bool
) -> None:
    plus = torch.randn(2, 5, 6 // (1 + grown), 4 // (1 + grown), generator=rng, dtype=x.dtype)
    if channels_last:
        plus = plus.contiguous(memory_format=torch.channels_last)
    before = plus.clone()
    skip = F.interpolate(plus, scale_factor=2, mode="nearest") if grown else plus
    plain = skip + F.conv2d(x, weight[..., None, None])
    add = upsampled_plus_pixelwise if grown else plus_pixelwise
    torch.testing.assert_close(add(plus, x, weight), plain, rtol=0, atol=1e-12)
    assert torch.equal(plus, before)
    leaves = plus.requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(lambda *pair: add(*pair, weight), leaves)


def test_upsampling(rng: torch.Generator) -> None:
    x = torch.randn(2, 3, 5, 4, generator=rng, dtype=torch.float64)
    weight = torch.randn(6, 3, 3, 3, generator=rng, dtype=torch.float64)
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    ours = F.conv_transpose2d(x, upsampling_kernel(weight), stride=2, padding=1)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


def test_to_rgb(rng: torch.Generator) -> None:
    x = torch.randn(2, 5, 6, 4, generator=rng, dtype=torch.float64)
    weight = torch.randn(3, 5, 3, 3, generator=rng, dtype=torch.float64)
    bias = torch.randn(3, generator=rng, dtype=torch.float64)
    plain = F.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(to_rgb(x, weight, bias), plain, rtol=0, atol=1e-12)
