from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core import (
    Augment,
    AugmentConfig,
    AugmentParams,
    ConfigError,
    ShapeError,
    apply_params,
    join_params,
    make_generator,
    sample_params,
)

ALL = AugmentConfig()
SIZES = [(16, 16), (17, 23), (32, 20)]


def slow_apply(image: Tensor, params: AugmentParams, copy: int) -> Tensor:
    """One copy of one image ``(3, H, W)``, step by step as gnobitab/FuseDream does it."""
    drawn = {name: values[0, copy] for name, values in params.drawn().items()}
    height, width = image.shape[1:]
    if "brightness" in drawn:
        image = image + drawn["brightness"]
    if "saturation" in drawn:
        grey = image.mean(0, keepdim=True)
        image = (image - grey) * drawn["saturation"] + grey
    if "contrast" in drawn:
        image = (image - image.mean()) * drawn["contrast"] + image.mean()
    if "shift" in drawn:
        down, right = drawn["shift"].tolist()
        padded = F.pad(image, (width, width, height, height))
        image = padded[:, height + down :, width + right :][:, :height, :width]
    if "size" in drawn:
        image = slow_resize(image, *drawn["size"].tolist())
    if "box" in drawn:
        image = image.clone()
        (top, left), (box_height, box_width) = drawn["box"].tolist(), params.box_size
        for row in range(max(0, top), min(height, top + box_height)):
            for column in range(max(0, left), min(width, left + box_width)):
                image[:, row, column] = 0.0
    return image


def slow_resize(image: Tensor, new_height: int, new_width: int) -> Tensor:
    """Bilinear, without antialias, then padded or cropped about the centre on each axis."""
    height, width = image.shape[1:]
    image = F.interpolate(
        image[None], (new_height, new_width), mode="bilinear", align_corners=False
    )[0]
    if new_height < height:
        top = int((height - new_height) / 2)
        image = F.pad(image, (0, 0, top, height - top - new_height))
    else:
        top = int((new_height - height) / 2)
        image = image[:, top : top + height]
    if new_width < width:
        left = int((width - new_width) / 2)
        return F.pad(image, (left, width - left - new_width))
    left = int((new_width - width) / 2)
    return image[:, :, left : left + width]


class TestSampleParams:
    def test_determinism(self) -> None:
        draws = [sample_params(5, 16, 16, config=ALL, generator=make_generator(1)) for _ in "ab"]
        for name, values in draws[0].drawn().items():
            assert torch.equal(values, draws[1].drawn()[name])

    def test_distribution(self, rng: torch.Generator) -> None:
        params = sample_params(20_000, 64, 48, config=ALL, generator=rng)
        ranges = {"brightness": (-0.5, 0.5), "saturation": (0.0, 2.0), "contrast": (0.5, 1.5)}
        for name, (low, high) in ranges.items():
            values = params.drawn()[name]
            assert low <= values.min() < low + 0.01
            assert high - 0.01 < values.max() <= high
            assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.02)
            assert float(values.std()) == pytest.approx((high - low) / 12**0.5, abs=0.01)
        assert params.shift is not None
        assert params.shift[..., 0].unique().tolist() == list(range(-8, 9))  # int(64 / 8 + 0.5)
        assert params.shift[..., 1].unique().tolist() == list(range(-6, 7))
        assert params.size is not None
        assert params.size[..., 0].unique().tolist() == list(range(51, 77))  # int(0.8 .. 1.2 * 64)
        assert params.box is not None
        centres = params.box + torch.tensor([16, 12])
        assert centres[..., 0].unique().tolist() == list(range(65))  # even box: 0 to H
        assert params.box_size == (32, 24)

    def test_odd_box_stays_inside(self, rng: torch.Generator) -> None:
        params = sample_params(2_000, 18, 18, config=ALL, generator=rng)
        assert params.box_size == (9, 9)
        assert params.box is not None
        assert (params.box + 4).unique().tolist() == list(range(18))  # odd box: 0 to H - 1

    def test_cutout_removes_a_fifth(self, rng: torch.Generator) -> None:
        config = AugmentConfig(policy=(Augment.CUTOUT,))
        params = sample_params(4_000, 32, 32, config=config, generator=rng)
        left = apply_params(torch.ones(1, 3, 32, 32), params)
        shares = 1.0 - left.mean(dim=(0, 2, 3, 4))
        assert float(shares.mean()) == pytest.approx(0.191, abs=0.005)
        assert float(shares.min()) == 0.0625
        assert float(shares.max()) == 0.25

    def test_zoom_is_per_copy_or_shared(self, rng: torch.Generator) -> None:
        own = sample_params(50, 64, 64, config=ALL, generator=rng)
        shared = dataclasses.replace(ALL, shared_zoom=True)
        one = sample_params(50, 64, 64, config=shared, generator=rng)
        assert own.size is not None
        assert one.size is not None
        assert len(own.size[0, :, 0].unique()) > 10
        assert len(one.size[0, :, 0].unique()) == 1

    def test_one_pixel(self, rng: torch.Generator) -> None:
        params = sample_params(8, 1, 1, config=ALL, generator=rng)
        assert apply_params(torch.ones(2, 3, 1, 1), params).shape == (2, 8, 3, 1, 1)


class TestApplyParams:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("policy", [tuple(Augment), *[(member,) for member in Augment]])
    def test_value(
        self, rng: torch.Generator, size: tuple[int, int], policy: tuple[Augment, ...]
    ) -> None:
        images = torch.rand(2, 3, *size, generator=rng, dtype=torch.float64) * 2 - 1
        config = AugmentConfig(policy=policy, resize=0.5)
        params = sample_params(20, *size, config=config, generator=rng)
        copies = apply_params(images, params)
        for b, image in enumerate(images):
            for n in range(20):
                torch.testing.assert_close(copies[b, n], slow_apply(image, params, n))

    def test_own_draw_for_each_image(self, images: Tensor, rng: torch.Generator) -> None:
        draws = [sample_params(3, 16, 16, config=ALL, generator=rng) for _ in images]
        copies = apply_params(images, join_params(draws))
        for image, draw, own in zip(images, draws, copies, strict=True):
            torch.testing.assert_close(apply_params(image[None], draw)[0], own)

    def test_part(self, images: Tensor, rng: torch.Generator) -> None:
        draws = [sample_params(3, 16, 16, config=ALL, generator=rng) for _ in images]
        params = join_params(draws)
        torch.testing.assert_close(
            apply_params(images[1:3], params.part(slice(1, 3))), apply_params(images, params)[1:3]
        )
        torch.testing.assert_close(
            apply_params(images[[3, 0]], params.part([3, 0])), apply_params(images, params)[[3, 0]]
        )

    def test_identity(self, images: Tensor, rng: torch.Generator) -> None:
        config = AugmentConfig(policy=())
        params = sample_params(3, 16, 16, config=config, generator=rng)
        assert torch.equal(apply_params(images, params), images[:, None].expand(-1, 3, -1, -1, -1))

    def test_gradcheck(self, rng: torch.Generator) -> None:
        image = torch.rand(1, 3, 6, 5, generator=rng, dtype=torch.float64, requires_grad=True)
        params = sample_params(2, 6, 5, config=ALL, generator=rng)
        assert torch.autograd.gradcheck(lambda x: apply_params(x, params), (image,))

    def test_exception(self, images: Tensor, rng: torch.Generator) -> None:
        params = sample_params(2, 16, 15, config=ALL, generator=rng)
        with pytest.raises(ShapeError, match=r"drawn for \(16, 15\) pixels, but .* \(16, 16\)"):
            apply_params(images, params)
        params = join_params([sample_params(2, 16, 16, config=ALL, generator=rng)] * 3)
        with pytest.raises(ConfigError, match="drawn for 3 images, but there are 4"):
            apply_params(images, params)
