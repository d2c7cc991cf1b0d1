from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    AugmentConfig,
    ImageError,
    OpenClip,
    ShapeError,
    StepInfo,
    aug_clip_score,
    encode_target,
    make_generator,
    sample_params,
)
from fusedream_core.augclip.rank import rank_images

CONFIG = AugmentConfig(num_augments=4)


class TestRankImages:
    def test_value(self, clip: OpenClip, images: Tensor) -> None:
        target = encode_target(clip, "a dog")
        infos: list[StepInfo] = []
        score = rank_images(
            images,
            target,
            clip,
            config=CONFIG,
            generator=make_generator(0),
            callback=infos.append,
        )
        params = sample_params(4, 16, 16, config=CONFIG, generator=make_generator(0))
        expected = aug_clip_score(images, target, clip, params=params)
        torch.testing.assert_close(score.mean, expected.mean)
        torch.testing.assert_close(score.stderr, expected.stderr)
        assert [(info.stage, info.step, info.total) for info in infos] == [
            ("score", step, 4) for step in (1, 2, 3, 4)
        ]

    @pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 450)])
    def test_any_size(self, clip: OpenClip, size: tuple[int, int], rng: torch.Generator) -> None:
        target = encode_target(clip, "a dog")
        score = rank_images(torch.zeros(2, 3, *size), target, clip, config=CONFIG, generator=rng)
        assert torch.isfinite(score.mean).all()

    def test_several_sizes(self, clip: OpenClip, images: Tensor) -> None:
        """Each has the score that it has alone, and the generator moves as for one batch."""
        target = encode_target(clip, "a dog")
        padded = torch.nn.functional.pad(images[:2], (3, 5))
        generator, other = make_generator(0), make_generator(0)
        together = rank_images(
            [images, padded], target, clip, config=CONFIG, generator=generator
        ).mean
        for batch, found in ((images, together[:4]), (padded, together[4:])):
            alone = rank_images(batch, target, clip, config=CONFIG, generator=make_generator(0))
            assert torch.equal(alone.mean, found)
        rank_images(images, target, clip, config=CONFIG, generator=other)
        assert torch.equal(generator.get_state(), other.get_state())

    def test_exception(self, clip: OpenClip, images: Tensor, rng: torch.Generator) -> None:
        with pytest.raises(ShapeError, match="no images to rank"):
            rank_images([], encode_target(clip, "a"), clip, config=CONFIG, generator=rng)
        images[0, 0, 0, 0] = float("nan")
        with pytest.raises(ImageError, match="NaN"):
            rank_images(images, encode_target(clip, "a"), clip, config=CONFIG, generator=rng)
