from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    Augment,
    AugmentConfig,
    AugmentParams,
    ConfigError,
    OpenClip,
    ShapeError,
    Target,
    apply_params,
    aug_clip_score,
    clip_score,
    encode_target,
    join_params,
    sample_params,
)

ALL = AugmentConfig()


@pytest.fixture(scope="module")
def target(clip: OpenClip) -> Target:
    return encode_target(clip, "a dog")


def slow_standard_error(cosines: Tensor, params: AugmentParams) -> Tensor:
    """Of the mean of n, by a model with the covariance 1 + r X X' / p, written out for each r.

    X has a column for each change and one for its square, all of mean 0 and variance 1. What each
    r finds counts by its restricted likelihood and a prior around 1.
    """
    names = ("brightness", "saturation", "contrast", "shift", "size", "box")
    drawn = [getattr(params, name)[0].double().reshape(params.num, -1) for name in names]
    drawn[4] = drawn[4][:, :1]  # both axes have one zoom
    columns = []
    for values in torch.cat(drawn, dim=1).T:
        unit = (values - values.mean()) / values.std(correction=0)
        columns += [unit, (unit**2 - 1) / (unit**2).std(correction=0)]
    scores, one = cosines.double().flatten(), torch.ones(params.num, dtype=torch.float64)
    found, counts = [], []
    for power in range(-3, 7):
        ratio = 2.0**power
        covariance = torch.eye(params.num, dtype=torch.float64)
        for column in columns:
            covariance += ratio / len(columns) * torch.outer(column, column)
        inverse = torch.linalg.inv(covariance)
        rest = scores - (one @ inverse @ scores) / (one @ inverse @ one)
        variance = float(rest @ inverse @ rest) / (params.num - 1)
        log_likelihood = -0.5 * (
            float(torch.logdet(covariance)) + (params.num - 1) * math.log(variance)
        )
        found.append(variance)
        counts.append(log_likelihood - 0.1 * math.log(ratio) ** 2)
    weights = [math.exp(count - max(counts)) for count in counts]
    variance = sum(v * w for v, w in zip(found, weights, strict=True)) / sum(weights)
    return torch.tensor((variance / params.num) ** 0.5, dtype=cosines.dtype)


class TestClipScore:
    def test_value(self, clip: OpenClip, images: Tensor, target: Target) -> None:
        expected = torch.nn.functional.cosine_similarity(
            clip.encode_images(images), target.features[None]
        )
        torch.testing.assert_close(clip_score(images, target, clip), expected)

    def test_own_target_for_each(self, clip: OpenClip, images: Tensor, target: Target) -> None:
        targets = [target, encode_target(clip, "a cat")] * 2
        each = [clip_score(i[None], t, clip) for i, t in zip(images, targets, strict=True)]
        torch.testing.assert_close(clip_score(images, targets, clip), torch.cat(each))

    def test_exception(self, clip: OpenClip, images: Tensor, target: Target) -> None:
        with pytest.raises(ShapeError, match=r"\(4, 4, 16, 16\).*alpha"):
            clip_score(torch.zeros(4, 4, 16, 16), target, clip)
        with pytest.raises(ConfigError, match="There are 2 targets for 4 images"):
            clip_score(images, [target] * 2, clip)
        with pytest.raises(ConfigError, match="There are 0 targets"):
            clip_score(images[:1], [], clip)


class TestAugClipScore:
    def test_value(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator
    ) -> None:
        params = sample_params(5, 16, 16, config=ALL, generator=rng)
        score = aug_clip_score(images, target, clip, params=params)
        copies = apply_params(images, params)
        for b in range(4):
            cosines = torch.stack([clip_score(copies[b, n][None], target, clip) for n in range(5)])
            torch.testing.assert_close(score.mean[b], cosines.mean())
            torch.testing.assert_close(score.stderr[b], slow_standard_error(cosines, params))

    @pytest.mark.parametrize("num", [2, 8])
    def test_standard_error_of_independent_draws_is_the_plain_one(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator, num: int
    ) -> None:
        config = AugmentConfig(draws="independent")
        params = sample_params(num, 16, 16, config=config, generator=rng)
        score = aug_clip_score(images[:1], target, clip, params=params)
        copies = apply_params(images[:1], params)[0]
        cosines = clip_score(copies, [target] * num, clip)
        torch.testing.assert_close(score.stderr[0], cosines.std() / num**0.5)

    def test_standard_error_of_some_of_a_draw_is_the_plain_one(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator
    ) -> None:
        """The rest of the ranges is missing then."""
        params = sample_params(12, 16, 16, config=ALL, generator=rng).views(slice(0, 6))
        score = aug_clip_score(images[:1], target, clip, params=params)
        cosines = clip_score(apply_params(images[:1], params)[0], [target] * 6, clip)
        torch.testing.assert_close(score.stderr[0], cosines.std() / 6**0.5)

    @pytest.mark.parametrize("num", [16, 24])
    def test_standard_error_is_the_deviation_of_repeated_draws(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator, num: int
    ) -> None:
        """Stratified draws leave less noise in the mean than the copies' own deviation has."""
        config = AugmentConfig(policy=(Augment.BRIGHTNESS, Augment.SATURATION, Augment.CONTRAST))
        draws = [sample_params(num, 16, 16, config=config, generator=rng) for _ in range(150)]
        same = images[:1].expand(len(draws), -1, -1, -1)
        score = aug_clip_score(same, target, clip, params=join_params(draws))
        typical = float(score.stderr.square().mean().sqrt())
        assert typical == pytest.approx(float(score.mean.std()), rel=0.25)

    def test_one_copy_has_no_standard_error(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator
    ) -> None:
        params = sample_params(1, 16, 16, config=ALL, generator=rng)
        assert aug_clip_score(images, target, clip, params=params).stderr.isnan().all()

    @pytest.mark.parametrize("copies", ["strength 0", "alike", "two"])
    def test_standard_error_where_there_is_little_to_go_by(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator, copies: str
    ) -> None:
        config = AugmentConfig(brightness=0.0, saturation=0.0, resize=0.0)
        if copies == "alike":
            config = AugmentConfig(policy=())
        params = sample_params(2 if copies == "two" else 9, 16, 16, config=config, generator=rng)
        stderr = aug_clip_score(images, target, clip, params=params).stderr
        assert stderr.isfinite().all()
        assert bool((stderr < 1e-6).all()) == (copies == "alike")

    @pytest.mark.parametrize("size", [(16, 16), (32, 32), (40, 24), (9, 13)])
    @pytest.mark.parametrize("policy", [tuple(Augment), (Augment.CUTOUT,), (Augment.CONTRAST,)])
    def test_copies_of_the_encoders_size_are_resized_copies(
        self,
        clip64: OpenClip,
        targets64: list[Target],
        rng: torch.Generator,
        size: tuple[int, int],
        policy: tuple[Augment, ...],
    ) -> None:
        images = torch.rand(2, 3, *size, generator=rng, dtype=torch.float64) * 2 - 1
        params = sample_params(4, *size, config=AugmentConfig(policy=policy), generator=rng)
        copies = apply_params(images, params)  # at the images' size
        features = clip64.encode_images(copies.flatten(0, 1)).view(2, 4, -1)
        expected = (features * targets64[0].features).sum(-1).mean(1)
        score = aug_clip_score(images, targets64[0], clip64, params=params)
        torch.testing.assert_close(score.mean, expected, rtol=0, atol=1e-7)

    def test_identity_is_the_plain_score(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator
    ) -> None:
        config = AugmentConfig(policy=())
        params = sample_params(3, 16, 16, config=config, generator=rng)
        score = aug_clip_score(images, target, clip, params=params)
        torch.testing.assert_close(score.mean, clip_score(images, target, clip))
        assert float(score.stderr.max()) < 1e-6

    @pytest.mark.parametrize("clip_batch", [1, 2, 3, 4, 6, 12, 100])
    @pytest.mark.parametrize("own", [True, False])
    def test_clip_batch(
        self,
        clip: OpenClip,
        images: Tensor,
        target: Target,
        rng: torch.Generator,
        clip_batch: int,
        own: bool,
    ) -> None:
        draws = [sample_params(3, 16, 16, config=ALL, generator=rng) for _ in range(4)]
        params = join_params(draws) if own else draws[0]
        whole = aug_clip_score(images, target, clip, params=params)
        parts = aug_clip_score(images, target, clip, params=params, clip_batch=clip_batch)
        torch.testing.assert_close(parts.mean, whole.mean)
        torch.testing.assert_close(parts.stderr, whole.stderr)

    @pytest.mark.parametrize("clip_batch", [1, 2, 3, 7])
    def test_gradient_in_micro_batches(
        self,
        clip64: OpenClip,
        images: Tensor,
        targets64: list[Target],
        rng: torch.Generator,
        clip_batch: int,
    ) -> None:
        draws = [sample_params(3, 16, 16, config=ALL, generator=rng) for _ in range(4)]
        weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
        grads = []
        for size in (None, clip_batch):
            leaf = images.double().requires_grad_()
            score = aug_clip_score(
                leaf, targets64[0], clip64, params=join_params(draws), clip_batch=size
            )
            (score.mean * weights).sum().backward()
            grads.append(leaf.grad)
        assert grads[0].abs().max() > 0
        torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=1e-14)

    @pytest.fixture
    def encoded(self, clip: OpenClip, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
        """The features of every batch that CLIP saw."""
        batches: list[Tensor] = []
        encode = clip.encode_images

        def spy(images: Tensor) -> Tensor:
            batches.append(encode(images))
            return batches[-1]

        monkeypatch.setattr(clip, "encode_images", spy)
        return batches

    def test_pieces_without_gradients(
        self,
        clip: OpenClip,
        images: Tensor,
        target: Target,
        rng: torch.Generator,
        encoded: list[Tensor],
    ) -> None:
        params = sample_params(5, 16, 16, config=ALL, generator=rng)
        images.requires_grad_()
        with torch.no_grad():
            score = aug_clip_score(images, target, clip, params=params, clip_batch=2)
        assert not score.mean.requires_grad
        assert len(encoded) == 12
        assert not any(features.requires_grad for features in encoded)

    def test_second_derivatives_of_pieces_are_refused(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator
    ) -> None:
        params = sample_params(5, 16, 16, config=ALL, generator=rng)
        images.requires_grad_()
        means = aug_clip_score(images, target, clip, params=params, clip_batch=2).mean
        (first,) = torch.autograd.grad((means**2).sum(), images, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()

    def test_no_copies_at_once(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator
    ) -> None:
        params = sample_params(5, 16, 16, config=ALL, generator=rng)
        for most in (0, -1):
            with pytest.raises(ConfigError, match=f"clip_batch is {most}"):
                aug_clip_score(images, target, clip, params=params, clip_batch=most)

    def test_pieces_hold_on_to_one_gradient(
        self,
        clip: OpenClip,
        images: Tensor,
        target: Target,
        rng: torch.Generator,
        encoded: list[Tensor],
    ) -> None:
        params = sample_params(50, 16, 16, config=ALL, generator=rng)
        images.requires_grad_()
        score = aug_clip_score(images, target, clip, params=params, clip_batch=8)
        sizes = [len(features) for features in encoded]
        assert set(sizes) == {7, 8}  # a small rest would cost nearly as much as a whole micro-batch
        assert sum(sizes) == 200
        (kept,) = score.mean.grad_fn.saved_tensors  # type: ignore[union-attr]
        assert kept.shape == images.shape

    def test_gradient(
        self, clip: OpenClip, images: Tensor, target: Target, rng: torch.Generator
    ) -> None:
        images.requires_grad_()
        params = sample_params(8, 16, 16, config=ALL, generator=rng)
        aug_clip_score(images, target, clip, params=params).mean.sum().backward()
        assert images.grad is not None
        assert float(images.grad.abs().sum()) > 0

    def test_another_clip_is_refused(
        self, clip: OpenClip, images: Tensor, rng: torch.Generator
    ) -> None:
        stranger = Target(torch.zeros(12), (), "other", "a dog")
        params = sample_params(2, 16, 16, config=ALL, generator=rng)
        with pytest.raises(ConfigError, match="'a dog' was encoded by the CLIP 'other', but"):
            aug_clip_score(images, stranger, clip, params=params)
