from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import (
    BigGan,
    ConfigError,
    InvertConfig,
    OpenClip,
    ShapeError,
    StepInfo,
    invert_image,
    make_generator,
)

CONFIG = InvertConfig()
CONFIG = replace(
    CONFIG,
    search=replace(CONFIG.search, num_candidates=60, num_basis=3, batch_size=20),
    optimize=replace(CONFIG.optimize, num_steps=40),
)


class PixelDifference(nn.Module):
    """In place of LPIPS, whose nets need larger pictures than the tiny GAN's."""

    device = torch.device("cpu")

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=1, keepdim=True)


@pytest.fixture
def picture(gan: BigGan) -> Tensor:
    """A picture of the GAN's own, which it can draw again."""
    z = gan.sample_z(1, truncation=gan.truncation, generator=make_generator(9))
    return gan.decode(z, gan.embed(torch.tensor([2])), truncation=gan.truncation)


class TestInvertImage:
    def test_comes_near(self, gan: BigGan, clip: OpenClip, picture: Tensor) -> None:
        told: list[StepInfo] = []
        result = invert_image(
            gan,
            clip,
            PixelDifference(),
            picture,
            config=CONFIG,
            generator=make_generator(0),
            callback=told.append,
        )
        assert result.images.shape == (1, 3, 16, 16)
        assert result.trace.shape == (40,)
        assert float(result.trace[-1]) < 0.7 * float(result.trace[0])
        again = gan.decode(result.latent.z, result.latent.y, truncation=result.latent.truncation)
        torch.testing.assert_close(again, result.images)
        distance = (result.images - picture).square().mean()
        torch.testing.assert_close(result.distance[0], distance)
        assert {info.stage for info in told} == {"search", "invert"}
        steps = [info for info in told if info.stage == "invert"]
        assert [info.step for info in steps] == list(range(1, 41))
        assert len(steps[0].preview) == 3
        assert len(steps[-1].preview) == 1

    def test_determinism(self, gan: BigGan, clip: OpenClip, picture: Tensor) -> None:
        first, again, other = (
            invert_image(
                gan,
                clip,
                PixelDifference(),
                picture,
                config=CONFIG,
                generator=make_generator(seed),
            )
            for seed in (0, 0, 1)
        )
        assert torch.equal(first.images, again.images)
        assert not torch.equal(first.images, other.images)

    def test_the_middle_square_counts(self, gan: BigGan, clip: OpenClip, picture: Tensor) -> None:
        wide = torch.nn.functional.pad(picture, (9, 9), value=1.0)
        results = [
            invert_image(
                gan, clip, PixelDifference(), image, config=CONFIG, generator=make_generator(0)
            )
            for image in (picture, wide)
        ]
        assert torch.equal(results[0].images, results[1].images)

    def test_goes_on_with_less_where_memory_runs_out(
        self, gan: BigGan, clip: OpenClip, picture: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inputs = (gan, clip, PixelDifference(), picture)
        whole = invert_image(*inputs, config=CONFIG, generator=make_generator(0))
        decode = gan.decode

        def small(z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
            if len(z) > 1 and z.requires_grad:
                raise torch.OutOfMemoryError("out of memory")
            return decode(z, y, truncation=truncation)

        monkeypatch.setattr(gan, "decode", small)
        parts = invert_image(*inputs, config=CONFIG, generator=make_generator(0))
        torch.testing.assert_close(parts.trace[:5], whole.trace[:5], rtol=1e-3, atol=1e-3)

    def test_may_be_stopped(self, gan: BigGan, clip: OpenClip, picture: Tensor) -> None:
        def stop(_: StepInfo) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            invert_image(
                gan,
                clip,
                PixelDifference(),
                picture,
                config=CONFIG,
                generator=make_generator(0),
                callback=stop,
            )

    @pytest.mark.parametrize("change", [{"mixing": "softmax"}, {"latent_noise_std": 0.1}])
    def test_settings_of_the_steps_count(
        self, gan: BigGan, clip: OpenClip, picture: Tensor, change: dict[str, Any]
    ) -> None:
        """They were left out without a word."""
        inputs = (gan, clip, PixelDifference(), picture)
        plain = invert_image(*inputs, config=CONFIG, generator=make_generator(0))
        config = replace(CONFIG, optimize=replace(CONFIG.optimize, **change))
        other = invert_image(*inputs, config=config, generator=make_generator(0))
        assert not torch.equal(plain.images, other.images)

    @pytest.mark.parametrize(
        ("image", "error", "message"),
        [
            (torch.zeros(2, 3, 16, 16), ConfigError, "There are 2 images"),
            (torch.zeros(1, 4, 16, 16), ShapeError, "RGB images"),
        ],
    )
    def test_exception(
        self, gan: BigGan, clip: OpenClip, image: Tensor, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            invert_image(
                gan, clip, PixelDifference(), image, config=CONFIG, generator=make_generator(0)
            )
