from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core import ConfigError, ShapeError
from fusedream_core.compose.placement import (
    POSITIONS,
    SCALES,
    Box,
    Placement,
    all_placements,
    box_masks,
    paste,
    place,
)

NAN = float("nan")
BOXES = [Box(0, 0, 5, 7), Box(2, 3, 10, 1), Box(11, 9, 1, 4), Box(0, 0, 12, 13)]


def random_images(*shape: int, rng: torch.Generator) -> Tensor:
    return torch.rand(*shape, generator=rng, dtype=torch.float64) * 2 - 1


def slow_paste(foreground: Tensor, background: Tensor, box: Box) -> Tensor:
    """One foreground ``(3, h0, w0)`` laid over one background ``(3, H, W)``."""
    fused = background.clone()
    fused[:, box.top : box.top + box.height, box.left : box.left + box.width] = F.interpolate(
        foreground[None], (box.height, box.width), mode="bilinear", antialias=True
    )[0]
    return fused


class TestBox:
    def test_crop(self) -> None:
        image = torch.arange(20).view(4, 5)
        assert Box(1, 2, 2, 3).crop(image).tolist() == [[7, 8, 9], [12, 13, 14]]

    @pytest.mark.parametrize(
        "box", [Box(-1, 0, 2, 2), Box(0, 3, 2, 3), Box(3, 0, 2, 2), Box(0, 0, 0, 2)]
    )
    def test_exception(self, box: Box) -> None:
        message = r"The box of \d x \d pixels at row .* into an image of 4 x 5; make it with"
        with pytest.raises(ConfigError, match=message):
            box.check_inside(4, 5)


class TestPlacement:
    @pytest.mark.parametrize(
        ("side", "scale", "length", "offsets"),
        [
            (256, 0.65, 166, (0, 45, 90)),
            (256, 0.5, 128, (0, 64, 128)),
            (512, 0.65, 333, (0, 89, 179)),
            (512, 0.5, 256, (0, 128, 256)),
        ],
    )
    def test_boxes_of_the_paper(
        self, side: int, scale: float, length: int, offsets: tuple[int, int, int]
    ) -> None:
        for position, (x, y) in POSITIONS.items():
            box = Placement.named(position, scale).box(side, side)
            assert box == Box(offsets[int(2 * y)], offsets[int(2 * x)], length, length)

    def test_each_side_has_its_own_scale(self) -> None:
        assert Placement(0.5, 1.0, 0.0).box(20, 30) == Box(0, 15, 10, 15)
        assert Placement(0.01, 1.0, 1.0).box(20, 30) == Box(19, 29, 1, 1)

    @pytest.mark.parametrize(
        ("aspect", "expected"),
        [
            (1.0, Box(10, 20, 10, 10)),
            (2.0, Box(12, 15, 8, 15)),
            (0.5, Box(10, 25, 10, 5)),
            (1.5, Box(10, 15, 10, 15)),
            (1000.0, Box(19, 15, 1, 15)),
            (0.001, Box(10, 29, 10, 1)),
        ],
    )
    def test_aspect(self, aspect: float, expected: Box) -> None:
        assert Placement(0.5, 1.0, 1.0).box(20, 30, aspect) == expected

    def test_any_box_fits(self) -> None:
        for share in (0.0, 0.1, 1 / 3, 0.5, 0.99, 1.0):
            for scale in (0.001, 0.3, 0.65, 0.999, 1.0):
                for aspect in (None, 0.3, 1.0, 2.7):
                    Placement(scale, share, 1.0 - share).box(7, 11, aspect).check_inside(7, 11)

    def test_name(self) -> None:
        assert Placement.named("top left", 0.65).name == "top left 0.65"
        assert Placement.named("center", 0.5).name == "center 0.5"
        assert Placement(0.65, 0.3, 0.8).name == "x 0.30 y 0.80 0.65"

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ((0.0, 0.5, 0.5), "scale is 0.0, but it must be above 0 and at most 1"),
            ((1.1, 0.5, 0.5), "scale is 1.1"),
            ((NAN, 0.5, 0.5), "scale is nan"),
            ((0.5, -0.1, 0.5), "x is -0.1, but it must be a number from 0 to 1"),
            ((0.5, 0.5, 1.5), "y is 1.5"),
            ((0.5, NAN, 0.5), "x is nan"),
        ],
    )
    def test_exception(self, values: tuple[float, float, float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Placement(*values)

    def test_exception_of_name_and_aspect(self) -> None:
        with pytest.raises(ConfigError, match="position is 'middle', but it must be one of top"):
            Placement.named("middle", 0.5)
        for aspect in (0.0, -1.0, NAN, math.inf):
            with pytest.raises(ConfigError, match=f"aspect is {aspect}, but it must be a number"):
                Placement.named("center", 0.5).box(8, 8, aspect)


class TestAllPlacements:
    def test_value(self) -> None:
        placements = all_placements()
        assert len(set(placements)) == 18
        assert {placement.scale for placement in placements} == set(SCALES)
        assert {(placement.x, placement.y) for placement in placements} == set(POSITIONS.values())
        assert all_placements((0.3,), ("left",)) == (Placement(0.3, 0.0, 0.5),)


class TestBoxMasks:
    def test_value(self) -> None:
        masks = box_masks(BOXES, 12, 13)
        assert masks.shape == (4, 1, 12, 13)
        assert masks.dtype == torch.float32
        for mask, box in zip(masks, BOXES, strict=True):
            assert (box.crop(mask) == 1).all()
            assert mask.sum() == box.height * box.width

    def test_dtype(self) -> None:
        assert box_masks(BOXES, 12, 13, dtype=torch.float64).dtype == torch.float64

    def test_exception(self) -> None:
        with pytest.raises(ConfigError, match="does not fit into an image of 8 x 13"):
            box_masks(BOXES, 8, 13)


class TestPlace:
    @pytest.mark.parametrize("old", [(16, 16), (9, 23), (1, 1)])
    @pytest.mark.parametrize("new", [(16, 16), (10, 8), (5, 3), (1, 1), (31, 40)])
    def test_is_interpolate(
        self, rng: torch.Generator, old: tuple[int, int], new: tuple[int, int]
    ) -> None:
        images = random_images(2, 3, *old, rng=rng)
        expected = F.interpolate(images, new, mode="bilinear", antialias=True, align_corners=False)
        expected = F.pad(expected, (1, 43 - new[1], 2, 31 - new[0]))
        boxes = [Box(2, 1, *new)] * 2
        canvas = place(images, boxes, 33, 44)
        torch.testing.assert_close(canvas, expected, rtol=0.0, atol=1e-12)
        assert (canvas[expected == 0] == 0).all()
        single = place(images.float(), boxes, 33, 44)
        torch.testing.assert_close(single, expected.float(), rtol=0.0, atol=1e-5)

    @pytest.mark.parametrize("length", [333, 256])
    def test_is_interpolate_at_full_size(self, rng: torch.Generator, length: int) -> None:
        images = random_images(1, 3, 512, 512, rng=rng)
        expected = F.interpolate(images, (length, length), mode="bilinear", antialias=True)
        placed = place(images.float(), [Box(0, 0, length, length)], length, length)
        torch.testing.assert_close(placed, expected.float(), rtol=0.0, atol=1e-5)

    def test_weights_sum_to_one(self) -> None:
        for old in (1, 5, 16, 40):
            ones = torch.ones(4, 3, old, old, dtype=torch.float64)
            expected = box_masks(BOXES, 12, 13, dtype=torch.float64).expand(-1, 3, -1, -1)
            torch.testing.assert_close(place(ones, BOXES, 12, 13), expected)

    def test_full_scale_is_the_picture(self, images: Tensor) -> None:
        boxes = [Placement(1.0, 0.5, 0.5).box(16, 16)] * 4
        assert torch.equal(place(images, boxes, 16, 16), images)

    def test_exception(self, images: Tensor) -> None:
        with pytest.raises(ShapeError, match=r"\(4, 3, 16, 16\) and there are 2 boxes, but"):
            place(images, BOXES[:2], 12, 13)
        with pytest.raises(ShapeError, match=r"have the shape \(3, 16, 16\)"):
            place(images[0], BOXES[:3], 12, 13)
        with pytest.raises(ConfigError, match="does not fit into an image of 12 x 12"):
            place(images, BOXES, 12, 12)


class TestPaste:
    def test_value(self, rng: torch.Generator) -> None:
        foreground = random_images(4, 3, 10, 9, rng=rng)
        background = random_images(4, 3, 12, 13, rng=rng)
        fused = paste(foreground, background, BOXES)
        for b, box in enumerate(BOXES):
            expected = slow_paste(foreground[b], background[b], box)
            torch.testing.assert_close(fused[b], expected)
            outside = box_masks([box], 12, 13)[0].expand(3, -1, -1) == 0
            assert torch.equal(fused[b][outside], background[b][outside])

    def test_batch_equals_singles(self, images: Tensor) -> None:
        background = images.flip(0)[..., :12, :13]
        fused = paste(images, background, BOXES)
        for b, box in enumerate(BOXES):
            alone = paste(images[b : b + 1], background[b : b + 1], [box])
            torch.testing.assert_close(fused[b : b + 1], alone, rtol=0.0, atol=1e-6)

    def test_gradient_reaches_what_is_seen(self, rng: torch.Generator) -> None:
        foreground = random_images(4, 3, 10, 9, rng=rng).requires_grad_()
        background = random_images(4, 3, 12, 13, rng=rng).requires_grad_()
        masks = box_masks(BOXES, 12, 13, dtype=torch.float64)
        fused = paste(foreground, background, BOXES)
        inside = torch.autograd.grad((fused * masks).sum(), foreground, retain_graph=True)[0]
        assert (inside[0] != 0).all()
        assert (inside[3] != 0).all()
        outside = torch.autograd.grad(
            (fused * (1 - masks)).sum(), (foreground, background), retain_graph=True
        )
        assert (outside[0] == 0).all()
        assert torch.equal(outside[1], (1 - masks).expand_as(background))
        assert (torch.autograd.grad((fused * masks).sum(), background)[0] == 0).all()

    def test_gradcheck(self, rng: torch.Generator) -> None:
        foreground = random_images(2, 3, 4, 3, rng=rng).requires_grad_()
        background = random_images(2, 3, 5, 4, rng=rng).requires_grad_()
        boxes = [Box(0, 1, 3, 2), Box(2, 0, 2, 4)]
        assert torch.autograd.gradcheck(lambda f, b: paste(f, b, boxes), (foreground, background))

    def test_determinism(self, images: Tensor) -> None:
        background = images.flip(0)[..., :12, :13]
        assert torch.equal(paste(images, background, BOXES), paste(images, background, BOXES))

    def test_exception(self, images: Tensor) -> None:
        with pytest.raises(ShapeError, match=r"\(1, 3, 16, 16\) and there are 4 boxes"):
            paste(images, images[:1], BOXES)
        with pytest.raises(ConfigError, match="does not fit into an image of 16 x 16"):
            paste(images, images, [Box(0, 0, 17, 16)] * 4)
