from __future__ import annotations

import pytest
import torch

from fusedream_core import (
    AugmentConfig,
    BigGan,
    ConfigError,
    Latent,
    OpenClip,
    Target,
    aug_clip_score,
    basis_from,
    encode_target,
    make_generator,
    sample_params,
)

AUGMENT = AugmentConfig(num_augments=4)


@pytest.fixture
def target(clip: OpenClip) -> Target:
    return encode_target(clip, "a dog")


@pytest.fixture
def latent(gan: BigGan) -> Latent:
    z = gan.sample_z(4, truncation=0.6, generator=make_generator(0))
    return Latent(z, gan.embed(torch.tensor([2, 0, 1, 2])) + 0.01, 0.6)


class TestBasisFrom:
    def test_value(self, gan: BigGan, clip: OpenClip, target: Target, latent: Latent) -> None:
        basis = basis_from(gan, clip, target, latent, augment=AUGMENT, generator=make_generator(1))
        params = sample_params(4, 16, 16, config=AUGMENT, generator=make_generator(1))
        images = gan.decode(latent.z, latent.y, truncation=0.6)
        scores = [
            float(aug_clip_score(image[None], target, clip, params=params).mean) for image in images
        ]
        order = sorted(range(4), key=lambda row: -scores[row])
        assert basis.scores.tolist() == pytest.approx([scores[row] for row in order], abs=1e-5)
        assert torch.equal(basis.latent.z, latent.z[order])
        assert basis.class_index.tolist() == [[2, 0, 1, 2][row] for row in order]
        assert (basis.gan_id, basis.prompt, basis.latent.truncation) == (gan.gan_id, "a dog", 0.6)

    def test_another_clips_target(
        self, gan: BigGan, clip: OpenClip, target: Target, latent: Latent
    ) -> None:
        from dataclasses import replace

        with pytest.raises(ConfigError, match="encode the prompt again"):
            basis_from(
                gan,
                clip,
                replace(target, clip_id="other"),
                latent,
                augment=AUGMENT,
                generator=make_generator(1),
            )
