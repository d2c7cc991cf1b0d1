from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from fusedream_core import ConfigError, ImageError, ShapeError
from fusedream_core.compose import poisson
from fusedream_core.compose.blend_batch import blend_batch
from fusedream_core.compose.placement import Placement, box_masks
from fusedream_core.config import BlendMode

MODES = get_args(BlendMode)
CENTER = Placement.named("center", 0.5)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def blended(*args: Any, mode: BlendMode = "poisson", **more: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    pairs = list(blend_batch(*args, mode=mode, **more))
    return torch.cat([image for image, _ in pairs]), torch.cat([mask for _, mask in pairs])


@pytest.mark.parametrize("mode", MODES)
class TestEqualsBlendCutout:
    def test_at_a_placement(self, mode: BlendMode) -> None:
        front, back = images(1, 3, 9, 12), images(1, 3, 20, 30, seed=1)
        box = CENTER.box(20, 30, 12 / 9)
        expected, _ = poisson.blend_cutout(front, None, back, box, mode=mode, strength=0.7)
        image, mask = blended(front, back, CENTER, mode=mode, strength=0.7)
        inside = box_masks([box], 20, 30)
        assert torch.equal(mask, inside)
        assert torch.equal(image, torch.lerp(back, expected, inside))

    def test_with_alpha_in_a_mask(self, mode: BlendMode) -> None:
        front, back = images(1, 3, 9, 12), images(1, 3, 20, 30, seed=1)
        alpha, mask = images(1, 1, 9, 12, seed=2).abs(), torch.zeros(1, 1, 20, 30)
        mask[..., 4:16, 5:25] = 0.8
        box = poisson.Box(4, 5, 12, 20)
        expected, covered = poisson.blend_cutout(front, alpha, back, box, mode=mode)
        image, shown = blended(front, back, CENTER, alpha=alpha, mask=mask, mode=mode)
        assert torch.equal(image, torch.lerp(back, expected, mask))
        assert torch.equal(shown, covered * mask)


class TestBatches:
    @pytest.mark.parametrize(("num_front", "num_back"), [(3, 1), (1, 3), (3, 3)])
    def test_one_serves_for_all(self, num_front: int, num_back: int) -> None:
        front, back = images(num_front, 3, 9, 9), images(num_back, 3, 20, 30, seed=1)
        together = blended(front, back, CENTER)[0]
        assert together.shape == (3, 3, 20, 30)
        for index in range(3):
            one = [batch[[index % len(batch)]] for batch in (front, back)]
            assert torch.equal(together[[index]], blended(*one, CENTER)[0])

    def test_a_mask_of_the_foregrounds_size_is_placed_with_it(self) -> None:
        own = torch.zeros(1, 1, 10, 10)
        own[..., 5:, :] = 1.0
        _, shown = blended(images(1, 3, 10, 10), images(1, 3, 20, 20), CENTER, mask=own)
        assert torch.equal(CENTER.box(20, 20).crop(shown), own)

    def test_nothing_is_done_before_it_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever goes through the pairs may stop between two of them."""
        done = list[int]()
        blend_cutout = poisson.blend_cutout

        def spy(front: Tensor, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            done.append(len(front))
            return blend_cutout(front, *args, **more)

        monkeypatch.setattr(poisson, "blend_cutout", spy)
        pairs = blend_batch(images(4, 3, 9, 9), images(1, 3, 20, 30), CENTER, mode="poisson")
        assert done == []
        next(pairs)
        assert done == [1]


class TestRefused:
    """At the call, before the first pair."""

    def test_lengths(self) -> None:
        with pytest.raises(ShapeError, match="foreground 2, background 3, mask 1"):
            blend_batch(images(2, 3, 9, 9), images(3, 3, 20, 30), CENTER, mode="none")

    def test_empty_mask(self) -> None:
        masks = torch.ones(2, 1, 20, 30)
        masks[1] = 0.0
        with pytest.raises(ImageError, match=r"Mask 2 of the batch has nothing above 0\.5"):
            blend_batch(
                images(1, 3, 9, 9), images(1, 3, 20, 30), CENTER, mask=masks, mode="poisson"
            )

    def test_mask_of_a_third_size(self) -> None:
        mask = torch.ones(1, 1, 7, 7)
        with pytest.raises(ShapeError, match=r"size \(7, 7\), but the background has \(20, 30\)"):
            blend_batch(images(1, 3, 9, 9), images(1, 3, 20, 30), CENTER, mask=mask, mode="none")

    def test_strength(self) -> None:
        with pytest.raises(ConfigError, match="strength is 2"):
            blended(images(1, 3, 9, 9), images(1, 3, 20, 30), CENTER, strength=2.0)
