"""The node that blends any picture into any other, in ComfyUI's inference mode."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

MODES = ["poisson", "mixed", "feather", "none"]


@pytest.fixture
def errors(pack: SimpleNamespace) -> ModuleType:
    return pack.module("fusedream_core.errors")


@pytest.fixture
def blend(run: Callable[..., Any]) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def run_blend(
        foreground: torch.Tensor, background: torch.Tensor, **inputs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = {"foreground": foreground, "background": background}
        image, mask = run("FuseDreamPoissonBlend", **pictures, **inputs)
        return image, mask

    return run_blend


Blend = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    with torch.inference_mode():  # as the output of another node is
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def gray(value: float, height: int = 20, width: int = 30) -> torch.Tensor:
    return torch.full((1, height, width, 3), value)


def rectangle(*corners: int, height: int = 20, width: int = 30) -> torch.Tensor:
    top, left, bottom, right = corners
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = 1.0
    return mask


class TestPlacement:
    @pytest.mark.parametrize("mode", MODES)
    def test_outputs(self, blend: Blend, mode: str) -> None:
        background = pictures(1, 20, 30, 3)
        image, mask = blend(pictures(1, 16, 16, 3, seed=1), background, blend=mode)
        assert image.shape == (1, 20, 30, 3)
        assert not image.requires_grad
        assert 0.0 <= float(image.min()) < float(image.max()) <= 1.0
        assert mask.shape == (1, 20, 30)
        assert mask.unique().tolist() == [0.0, 1.0]
        outside = mask[..., None] == 0
        torch.testing.assert_close(image * outside, background * outside)
        assert not torch.allclose(image, background)

    def test_the_aspect_is_kept(self, blend: Blend) -> None:
        wide = pictures(1, 10, 40, 3)
        _, mask = blend(wide, gray(0.5, 64, 64), position="bottom right", scale=0.5)
        assert torch.equal(mask, rectangle(56, 32, 64, 64, height=64, width=64))

    def test_a_plain_paste_at_full_scale_is_the_foreground(self, blend: Blend) -> None:
        foreground = pictures(1, 20, 30, 3)
        image, mask = blend(foreground, gray(0.5), blend="none", scale=1.0)
        torch.testing.assert_close(image, foreground)
        assert mask.all()

    def test_poisson_takes_the_colour_of_the_surroundings(self, blend: Blend) -> None:
        image, _ = blend(gray(0.9), gray(0.2))
        torch.testing.assert_close(image, gray(0.2))  # a flat foreground has no edges to keep

    def test_strength(self, blend: Blend) -> None:
        paste, _ = blend(gray(0.9), gray(0.2), blend="none")
        none, _ = blend(gray(0.9), gray(0.2), blend_strength=0.0)
        half, _ = blend(gray(0.9), gray(0.2), blend_strength=0.5)
        torch.testing.assert_close(none, paste)
        torch.testing.assert_close(half, (paste + gray(0.2)) / 2)

    def test_inputs_are_left_alone(self, blend: Blend) -> None:
        given = pictures(1, 9, 9, 3), pictures(1, 20, 30, 3)
        before = [picture.clone() for picture in given]
        blend(*given)
        assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def cutout(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of 12 x 10 that shows in the middle only, and its alpha ``(1, 12, 10)``."""
    alpha = rectangle(3, 2, 9, 8, height=12, width=10)
    colors = pictures(1, 12, 10, 3, seed=seed)
    return torch.cat([colors, alpha[..., None]], dim=-1), alpha


class TestAlpha:
    """An RGBA foreground: what is transparent shows the background, not white or black."""

    @pytest.mark.parametrize("mode", MODES)
    def test_what_is_transparent_stays_the_background(self, blend: Blend, mode: str) -> None:
        front, alpha = cutout()
        background = pictures(1, 20, 30, 3, seed=1)
        image, mask = blend(front, background, blend=mode, scale=0.6)
        assert mask.sum() == alpha.sum()  # 12 rows are 0.6 of 20: pixel for pixel
        hidden = (mask == 0)[..., None].expand_as(image)
        torch.testing.assert_close(image[hidden], background[hidden])
        assert not torch.allclose(image[~hidden], background[~hidden])

    @pytest.mark.parametrize("mode", ["poisson", "none"])
    @pytest.mark.parametrize("below", [0.0, 1.0])
    def test_colours_under_alpha_0_mean_nothing(
        self, blend: Blend, mode: str, below: float
    ) -> None:
        front, alpha = cutout()
        other = torch.where(alpha[..., None] > 0, front[..., :3], below)
        other = torch.cat([other, alpha[..., None]], dim=-1)
        background = pictures(1, 20, 30, 3, seed=1)
        for scale in (0.6, 0.35):
            images = [blend(f, background, blend=mode, scale=scale)[0] for f in (front, other)]
            torch.testing.assert_close(images[1], images[0])

    def test_half_a_cover(self, blend: Blend) -> None:
        front = torch.cat([gray(1.0, 12, 10), torch.full((1, 12, 10, 1), 0.5)], dim=-1)
        image, mask = blend(front, gray(0.2), blend="none", scale=0.6)
        torch.testing.assert_close(image[mask > 0], torch.full_like(image[mask > 0], 0.6))
        assert mask.unique().tolist() == [0.0, 0.5]

    @pytest.mark.parametrize("mode", MODES)
    def test_a_whole_cover_is_a_picture_without_alpha(self, blend: Blend, mode: str) -> None:
        front = pictures(1, 12, 10, 3)
        covered = torch.cat([front, torch.ones(1, 12, 10, 1)], dim=-1)
        background = pictures(1, 20, 30, 3, seed=1)
        for mask in (None, rectangle(4, 4, 16, 16)):
            one, other = (blend(f, background, blend=mode, mask=mask) for f in (front, covered))
            torch.testing.assert_close(other[0], one[0])
            torch.testing.assert_close(other[1], one[1])

    def test_a_mask_counts_as_well(self, blend: Blend) -> None:
        front, alpha = cutout()
        area = rectangle(4, 5, 16, 15)  # 12 x 10, like the foreground
        left = rectangle(4, 5, 16, 10)
        ring = torch.maximum(left, area - rectangle(5, 6, 15, 14))
        image, mask = blend(front, gray(0.5), mask=ring, blend="none")
        expected = torch.zeros_like(mask)
        expected[:, 4:16, 5:15] = alpha
        assert torch.equal(mask, expected * ring)
        hidden = (mask == 0)[..., None].expand_as(image)
        torch.testing.assert_close(image[hidden], gray(0.5)[hidden])

    def test_one_alpha_for_each(self, blend: Blend) -> None:
        fronts = [cutout(seed)[0] for seed in (0, 1)]
        fronts[1] = fronts[1].flip(1)
        fronts[1][:, :2, :, 3] = 1.0
        background = pictures(1, 20, 30, 3, seed=2)
        together = blend(torch.cat(fronts), background)
        for row, front in enumerate(fronts):
            for whole, alone in zip(together, blend(front, background), strict=True):
                torch.testing.assert_close(whole[row : row + 1], alone)


class TestMaskOfTheForeground:
    @pytest.mark.parametrize("mode", MODES)
    def test_it_is_placed_like_the_foreground(self, blend: Blend, mode: str) -> None:
        front, background = pictures(1, 12, 10, 3), pictures(1, 20, 30, 3, seed=1)
        own = rectangle(3, 2, 9, 8, height=12, width=10)
        where = {"position": "bottom right", "scale": 0.6, "blend": mode}
        whole = blend(front, background, **where)
        image, mask = blend(front, background, mask=own, **where)
        expected = torch.zeros(1, 20, 30)
        expected[:, 8:, 20:] = own
        assert torch.equal(mask, expected)
        torch.testing.assert_close(
            image, torch.where(expected[..., None] > 0, whole[0], background)
        )

    def test_of_two_that_fit_it_is_the_backgrounds(self, blend: Blend) -> None:
        mask = rectangle(4, 4, 16, 16)
        given = pictures(1, 20, 30, 3), pictures(1, 20, 30, 3, seed=1)
        assert torch.equal(blend(*given, mask=mask, scale=0.5)[1], mask)

    def test_an_empty_one_shows_nothing(self, blend: Blend) -> None:
        background = pictures(1, 20, 30, 3)
        image, mask = blend(gray(1.0, 12, 10), background, mask=torch.zeros(1, 12, 10))
        torch.testing.assert_close(image, background)
        assert not mask.any()


class TestMask:
    @pytest.mark.parametrize("mode", MODES)
    def test_a_rectangle_is_a_placement(self, blend: Blend, mode: str) -> None:
        front, back = pictures(1, 15, 10, 3), pictures(1, 20, 30, 3, seed=1)
        by_name = blend(front, back, blend=mode, scale=0.5, position="top left")
        by_mask = blend(front, back, blend=mode, mask=by_name[1], scale=0.9, position="right")
        torch.testing.assert_close(by_mask[0], by_name[0])
        assert torch.equal(by_mask[1], by_name[1])

    def test_only_what_is_masked_shows(self, blend: Blend) -> None:
        ring = rectangle(4, 4, 16, 16) - rectangle(8, 8, 12, 12)
        image, mask = blend(gray(0.9), gray(0.2), mask=ring, blend="none")
        torch.testing.assert_close(image, 0.2 + 0.7 * ring[..., None].expand(-1, -1, -1, 3))
        assert torch.equal(mask, ring)

    def test_soft_edges_stay_soft(self, blend: Blend) -> None:
        soft = 0.75 * rectangle(4, 4, 16, 16) + 0.25 * rectangle(0, 0, 20, 30)
        soft = soft - 0.25 * rectangle(4, 4, 16, 16)
        image, mask = blend(gray(1.0), gray(0.0), mask=soft, blend="none")
        torch.testing.assert_close(image[..., 0], mask)
        assert mask.unique().tolist() == [0.0, 0.75]  # what is at most 0.5 is no part of it

    def test_one_pixel(self, blend: Blend) -> None:
        image, mask = blend(pictures(1, 8, 8, 3), gray(0.5), mask=rectangle(3, 4, 4, 5))
        assert float(mask.sum()) == 1.0
        torch.testing.assert_close(image, gray(0.5))

    def test_no_batch_dimension(self, blend: Blend) -> None:
        mask = rectangle(4, 4, 16, 16)
        assert torch.equal(blend(gray(1.0), gray(0.0), mask=mask[0])[1], mask)


class TestBatches:
    @pytest.mark.parametrize(("num_front", "num_back"), [(3, 1), (1, 3), (3, 3)])
    def test_one_serves_for_all(self, blend: Blend, num_front: int, num_back: int) -> None:
        front, back = pictures(num_front, 9, 9, 3), pictures(num_back, 20, 30, 3, seed=1)
        image, mask = blend(front, back)
        assert image.shape == (3, 20, 30, 3)
        assert mask.shape == (3, 20, 30)
        for index in range(3):
            alone, _ = blend(front[[index % num_front]], back[[index % num_back]])
            torch.testing.assert_close(image[[index]], alone)

    def test_a_mask_for_each(self, blend: Blend) -> None:
        masks = torch.cat([rectangle(0, 0, 10, 10), rectangle(5, 5, 15, 30)])
        image, mask = blend(gray(1.0), gray(0.0), mask=masks, blend="none")
        assert torch.equal(mask, masks)
        torch.testing.assert_close(image[..., 0], masks)

    def test_different_numbers(self, blend: Blend, errors: ModuleType) -> None:
        with pytest.raises(errors.ShapeError, match="foreground 2, background 3, mask 1"):
            blend(pictures(2, 9, 9, 3), pictures(3, 20, 30, 3))
        masks = rectangle(0, 0, 9, 9).expand(2, -1, -1)
        with pytest.raises(errors.ShapeError, match="foreground 1, background 3, mask 2"):
            blend(pictures(1, 9, 9, 3), pictures(3, 20, 30, 3), mask=masks)


class TestDevices:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("masked", [False, True])
    def test_all_goes_to_the_background(
        self,
        blend: Blend,
        pack: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        mode: str,
        masked: bool,
    ) -> None:
        """Under --gpu-only a loaded picture is on the CPU and a made one is not."""
        import comfy.model_management as management

        elsewhere = torch.device("meta")  # where no values are, only shapes
        boundary = pack.module("nodes._boundary")
        monkeypatch.setattr(boundary, "check_image", lambda *given: None)  # it looks at values
        monkeypatch.setattr(management, "intermediate_device", lambda: elsewhere)
        masks = torch.cat([rectangle(0, 0, 10, 10), rectangle(5, 5, 15, 30)])
        image, mask = blend(
            pictures(2, 9, 9, 3),
            torch.empty(1, 20, 30, 3, device=elsewhere),
            blend=mode,
            mask=masks if masked else None,
        )
        assert (image.device, image.shape) == (elsewhere, (2, 20, 30, 3))
        assert (mask.device, mask.shape) == (elsewhere, (2, 20, 30))


class TestMemory:
    @pytest.fixture
    def solvers(self, pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The boxes that solvers are made for."""
        poisson = pack.module("fusedream_core.compose.poisson")
        make_solver, boxes = poisson.make_solver, list[Any]()

        def spy(box: Any, like: torch.Tensor) -> Any:  # noqa: ANN401
            boxes.append(box)
            return make_solver(box, like)

        monkeypatch.setattr(poisson, "make_solver", spy)
        return boxes

    def test_one_solver_for_one_box(self, blend: Blend, solvers: list[Any]) -> None:
        blend(pictures(3, 9, 9, 3), pictures(3, 20, 30, 3, seed=1))
        assert len(solvers) == 1
        masks = [rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 10), rectangle(5, 5, 15, 30)]
        blend(pictures(3, 9, 9, 3), pictures(1, 20, 30, 3), mask=torch.cat(masks))
        assert len(solvers) == 3
        blend(pictures(3, 9, 9, 3), pictures(1, 20, 30, 3), blend="feather")
        assert len(solvers) == 3

    def test_one_picture_at_a_time(
        self, blend: Blend, pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        poisson = pack.module("fusedream_core.compose.poisson")
        place, placed = poisson.place, list[int]()

        def spy(front: torch.Tensor, *more: object) -> torch.Tensor:
            placed.append(len(front))
            return place(front, *more)

        monkeypatch.setattr(poisson, "place", spy)
        blend(pictures(1, 9, 9, 3), pictures(4, 20, 30, 3))
        assert placed == [1, 1, 1, 1]


class TestBadInput:
    def test_empty_mask(self, blend: Blend, errors: ModuleType) -> None:
        masks = torch.cat([rectangle(0, 0, 9, 9), torch.zeros(1, 20, 30)])
        with pytest.raises(errors.ImageError, match=r"Mask 2 of the batch has nothing above 0\.5"):
            blend(gray(1.0), gray(0.0), mask=masks)

    @pytest.mark.parametrize("side", [64, 1])
    def test_mask_of_another_size(self, blend: Blend, errors: ModuleType, side: int) -> None:
        said = f"The mask is {side} x {side} pixels, but the background is 30 x 20"
        with pytest.raises(errors.ShapeError, match=said):
            blend(gray(1.0), gray(0.0), mask=torch.zeros(1, side, side))

    def test_nan(self, blend: Blend, errors: ModuleType) -> None:
        broken = gray(1.0)
        broken[0, 0, 0, 0] = float("nan")
        for name in ("foreground", "background"):
            given = {"foreground": gray(1.0), "background": gray(0.0)} | {name: broken}
            with pytest.raises(errors.ImageError, match=f"Picture 1 of the {name} holds NaN"):
                blend(**given)
        with pytest.raises(errors.ImageError, match="The mask holds NaN"):
            blend(gray(1.0), gray(0.0), mask=broken[..., 0])

    def test_too_small(self, blend: Blend, errors: ModuleType) -> None:
        with pytest.raises(errors.ShapeError, match="pictures of the foreground are 4 x 4 pixels"):
            blend(gray(1.0, 4, 4), gray(0.0))
        with pytest.raises(errors.ShapeError, match="pictures of the background are 30 x 7 pixels"):
            blend(gray(1.0), gray(0.0, 7))

    @pytest.mark.parametrize(
        ("inputs", "match"),
        [
            ({"scale": 0.0}, "scale is 0"),
            ({"blend_strength": 2.0}, "blend_strength is 2"),
            ({"blend": "glue"}, "blend is 'glue'"),
            ({"position": "beside"}, "position is 'beside'"),
        ],
    )
    def test_settings(
        self, blend: Blend, errors: ModuleType, inputs: dict[str, object], match: str
    ) -> None:
        with pytest.raises(errors.ConfigError, match=match):
            blend(gray(1.0), gray(0.0), **inputs)


class TestCancel:
    def test_between_two_pictures(
        self, blend: Blend, pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import comfy.model_management as management

        poisson = pack.module("fusedream_core.compose.poisson")
        place, placed = poisson.place, list[int]()

        def press_cancel(front: torch.Tensor, *more: object) -> torch.Tensor:
            placed.append(len(front))
            if len(placed) == 2:
                management.interrupt_current_processing(True)
            return place(front, *more)

        monkeypatch.setattr(poisson, "place", press_cancel)
        with pytest.raises(management.InterruptProcessingException):
            blend(pictures(5, 9, 9, 3), gray(0.0))
        assert placed == [1, 1]
