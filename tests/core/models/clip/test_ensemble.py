from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    AugmentConfig,
    BigGan,
    ConfigError,
    OpenClip,
    aug_clip_score,
    clip_score,
    encode_target,
    make_generator,
    sample_params,
)
from fusedream_core.models.clip.ensemble import EnsembleClip, merge_clips, spread_of


class Other(torch.nn.Module):
    """An encoder of other size, spread and length of features."""

    clip_id = "other"
    image_size = (32, 32)
    device = torch.device("cpu")

    def encode_images(self, images: Tensor) -> Tensor:
        colors = images.mean(dim=(2, 3)) + torch.tensor([1.0, 2.0, 3.0])
        return torch.nn.functional.normalize(colors, dim=1)

    def encode_text(self, texts: list[str]) -> Tensor:
        lengths = torch.tensor([[float(len(text)), 1.0, 2.0] for text in texts])
        return torch.nn.functional.normalize(lengths, dim=1)

    def truncates(self, text: str) -> bool:
        return len(text) > 20


@pytest.fixture
def ensemble(clip: OpenClip) -> EnsembleClip:
    return EnsembleClip([clip, Other()], [3.0, 1.0])


class TestEnsembleClip:
    def test_cosine_is_the_weighted_mean(
        self, ensemble: EnsembleClip, clip: OpenClip, images: Tensor
    ) -> None:
        score = clip_score(images, encode_target(ensemble, "a dog"), ensemble)
        own, others = (
            clip_score(images, encode_target(member, "a dog"), member) for member in (clip, Other())
        )
        torch.testing.assert_close(score, 0.75 * own + 0.25 * others)

    def test_aug_clip(self, ensemble: EnsembleClip, clip: OpenClip, images: Tensor) -> None:
        params = sample_params(4, 16, 16, config=AugmentConfig(), generator=make_generator(0))
        score, own, others = (
            aug_clip_score(images, encode_target(each, "a dog"), each, params=params).mean
            for each in (ensemble, clip, Other())
        )
        torch.testing.assert_close(score, 0.75 * own + 0.25 * others)

    def test_unit_norm(self, ensemble: EnsembleClip, images: Tensor) -> None:
        for features in (ensemble.encode_images(images), ensemble.encode_text(["a", "b"])):
            torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))

    def test_gradient_of_both(self, clip: OpenClip, images: Tensor) -> None:
        gradients = []
        for weights in ([1.0, 1.0], [1.0, 2.0]):
            leaf = images.clone().requires_grad_()
            pair = EnsembleClip([clip, Other()], weights)
            clip_score(leaf, encode_target(pair, "a dog"), pair).sum().backward()
            assert leaf.grad is not None
            gradients.append(leaf.grad)
        assert not torch.allclose(*gradients)

    def test_name_tells_members_and_weights(self, clip: OpenClip) -> None:
        names = [
            EnsembleClip([clip, Other()], weights).clip_id for weights in ([1, 1], [2, 2], [1, 2])
        ]
        assert names[0] == names[1] != names[2]

    def test_text_and_size(self, ensemble: EnsembleClip) -> None:
        assert ensemble.truncates("a" * 21)
        assert not ensemble.truncates("a")
        assert ensemble.image_size == (32, 32)

    @pytest.mark.parametrize(
        ("num", "weights", "message"),
        [
            (1, [1.0], "There are 1 CLIPs and 1 weights"),
            (2, [1.0], "There are 2 CLIPs and 1 weights"),
            (2, [1.0, 0.0], "weight is 0.0"),
        ],
    )
    def test_exception(self, clip: OpenClip, num: int, weights: list[float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            EnsembleClip([clip] * num, weights)


class TestMergeClips:
    def test_each_counts_in_its_own_units(self, gan: BigGan, clip: OpenClip) -> None:
        members = [clip, Other()]
        reports: list[tuple[int, int]] = []
        pair = merge_clips(
            members,
            gan,
            shares=[1.0, 3.0],
            num_pictures=12,
            generator=make_generator(0),
            callback=lambda info: reports.append((info.step, info.total)),
        )
        generator = make_generator(0)
        classes = torch.randint(0, 5, (12,), generator=generator)
        z = gan.sample_z(12, truncation=gan.truncation, generator=generator)
        images = gan.decode(z, gan.embed(classes), truncation=gan.truncation)
        texts = [f"a photo of a {gan.class_names[index]}" for index in classes.unique().tolist()]
        spreads = [spread_of(member, images, texts) for member in members]
        expected = EnsembleClip(members, [1.0 / spreads[0], 3.0 / spreads[1]])
        assert pair.shares == pytest.approx(expected.shares, rel=1e-4)
        assert reports[-1] == (2, 2)

    def test_the_generator_alone_decides(self, gan: BigGan, clip: OpenClip) -> None:
        pairs = [
            merge_clips([clip, Other()], gan, num_pictures=8, generator=make_generator(seed))
            for seed in (0, 0, 1)
        ]
        names = [pair.clip_id for pair in pairs]
        assert names[0] == names[1] != names[2]


def test_members_need_not_be_modules(clip: OpenClip, images: Tensor) -> None:
    class Plain:
        """An encoder with the few names that are asked for."""

        clip_id, device = "plain", torch.device("cpu")
        encode_images, encode_text = Other().encode_images, Other().encode_text
        truncates = Other().truncates

    pair = EnsembleClip([Plain(), clip], [1.0, 1.0])
    assert pair.device == torch.device("cpu")
    assert pair.encode_images(images).shape == (len(images), 3 + 12)


class TestSpread:
    def test_value(self, clip: OpenClip, images: Tensor) -> None:
        texts = ["a dog", "a cat"]
        columns = [
            [float(clip_score(image[None], encode_target(clip, text), clip)) for image in images]
            for text in texts
        ]
        expected = (torch.tensor(columns).var(dim=1).mean()) ** 0.5
        assert spread_of(clip, images, texts) == pytest.approx(float(expected), rel=1e-3)

    def test_ranks_as_the_mean_of_z_scores(self, clip: OpenClip, images: Tensor) -> None:
        images = torch.cat([images, images.flip(1), images.flip(2)])
        members = clip, Other()
        spreads = [spread_of(member, images, ["a dog"]) for member in members]
        pair = EnsembleClip(members, [1 / spread for spread in spreads])
        scores = [
            clip_score(images, encode_target(each, "a dog"), each) for each in (*members, pair)
        ]
        z_scores = sum((s - s.mean()) / s.std() for s in scores[:2])
        assert torch.equal(scores[2].argsort(), torch.as_tensor(z_scores).argsort())

    def test_images_with_equal_cosines(self, clip: OpenClip) -> None:
        with pytest.raises(ConfigError, match=r"spread is 0\.0"):
            spread_of(clip, torch.zeros(3, 3, 16, 16), ["a dog"])
