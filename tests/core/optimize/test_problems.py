from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    AugmentConfig,
    BigGan,
    ConfigError,
    OpenClip,
    Target,
    aug_clip_score,
    clip_score,
    image_target,
    make_generator,
    sample_params,
)
from fusedream_core.memory import AutoBatchSize
from fusedream_core.optimize.problems import Problems

AUGMENT = AugmentConfig(num_augments=3)


@pytest.fixture
def problems(gan64: BigGan, clip64: OpenClip, targets64: list[Target]) -> Problems:
    return Problems(gan64, clip64, targets64, 0.6, AUGMENT)


def sample(gan: BigGan, num: int) -> tuple[Tensor, Tensor]:
    z = gan.sample_z(num, truncation=0.6, generator=make_generator(3))
    return z, gan.embed(torch.arange(num) % len(gan.class_names))


class TestScoreAndGrad:
    @pytest.mark.parametrize("kind", ["aug_clip", "clip"])
    @pytest.mark.parametrize("limit", [None, 2])
    def test_each_row_by_itself(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        kind: Any,  # noqa: ANN401
        limit: int | None,
        grouping: str,
    ) -> None:
        """The slow way: a row, its problem's draw, and autograd through all of it."""
        problems = Problems(gan64, clip64, targets64, 0.6, AUGMENT, AutoBatchSize(limit))
        z, y = sample(gan64, 5)
        of = [0, 1, 2, 0, 2]
        scores, images, gradients = problems.score_and_grad(
            (z, y), of, kind, 3, [make_generator(seed) for seed in range(3)]
        )
        for row, problem in enumerate(of):
            leaves = [block[row : row + 1].clone().requires_grad_() for block in (z, y)]
            image = gan64.decode(*leaves, truncation=0.6)
            score = clip_score(image, targets64[problem], clip64)
            if kind == "aug_clip":
                params = sample_params(3, 16, 16, config=AUGMENT, generator=make_generator(problem))
                score = aug_clip_score(image, targets64[problem], clip64, params=params).mean
            expected = torch.autograd.grad(score.sum(), leaves)
            torch.testing.assert_close(scores[row], score[0].detach())
            torch.testing.assert_close(images[row], image[0].detach())
            for found, own in zip(gradients, expected, strict=True):
                torch.testing.assert_close(found[row], own[0])

    def test_nothing_keeps_a_graph(self, problems: Problems) -> None:
        z, y = sample(problems.gan, 3)  # type: ignore[arg-type]
        generators = [make_generator(seed) for seed in range(3)]
        scores, images, gradients = problems.score_and_grad(
            (z, y), [0, 1, 2], "aug_clip", 2, generators
        )
        assert not any(own.requires_grad for own in (scores, images, *gradients))


class TestEvaluate:
    def test_all_latents_of_a_problem_have_the_same_views(
        self, problems: Problems, clip64: OpenClip, targets64: list[Target], grouping: str
    ) -> None:
        latents = [sample(problems.gan, 3) for _ in range(2)]  # type: ignore[arg-type]
        generators = [make_generator(seed) for seed in range(3)]
        scores = problems.evaluate(latents, 4, generators, stage="select", callback=None)
        assert torch.equal(scores.mean[0], scores.mean[1])
        images = problems.decode_each(*latents[0])
        for row in range(3):
            params = sample_params(4, 16, 16, config=AUGMENT, generator=make_generator(row))
            own = aug_clip_score(images[row : row + 1], targets64[row], clip64, params=params)
            torch.testing.assert_close(scores.mean[0, row], own.mean[0])
            torch.testing.assert_close(scores.stderr[0, row], own.stderr[0])


class TestScoredBy:
    def test_a_target_of_images_is_refused(
        self, gan64: BigGan, clip64: OpenClip, images: Tensor
    ) -> None:
        target = image_target(clip64, images[:1].double())
        problems = Problems(gan64, clip64, [target], 0.6, AUGMENT)
        with pytest.raises(ConfigError, match="cannot be encoded anew by a second CLIP"):
            problems.scored_by(clip64)


class TestDecodeEach:
    def test_less_memory_is_remembered(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Decoding for an evaluation ran out of memory, and no limit fell."""
        decoded: list[int] = []
        decode = gan64.decode

        def small(z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
            decoded.append(len(z))
            if len(z) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return decode(z, y, truncation=truncation)

        problems = Problems(gan64, clip64, targets64, 0.6, AUGMENT)
        latent = sample(gan64, 3)
        expected = problems.decode_each(*latent)
        monkeypatch.setattr(gan64, "decode", small)
        monkeypatch.setattr(Problems, "_groups", lambda *_: [[0, 1, 2]])
        for _ in range(2):
            torch.testing.assert_close(problems.decode_each(*latent), expected)
        assert decoded == [3, 2, 1, 2, 1]
