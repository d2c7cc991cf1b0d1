from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fusedream_core import (
    AugmentConfig,
    BigGan,
    ComposeConfig,
    CompositionRecipe,
    ConfigError,
    OpenClip,
    OptimizeConfig,
    PromptError,
    Recipe,
    SearchConfig,
    StepInfo,
    encode_target,
    generate,
    generate_composition,
    make_generator,
    search_basis,
)
from fusedream_core.pipeline import SEARCH_STREAM

RECIPE = Recipe(
    search=SearchConfig(num_candidates=20, num_basis=3, batch_size=10, rerank_augments=4),
    optimize=OptimizeConfig(num_steps=3, eval_augments=4),
    augment=AugmentConfig(num_augments=4),
)


class TestGenerate:
    def test_smoke(self, gan: BigGan, clip: OpenClip, tmp_path: Path) -> None:
        seen: list[StepInfo] = []
        result = generate(
            "a dog", seed=2**64 - 1, gan=gan, clip=clip, recipe=RECIPE, callback=seen.append
        )
        assert result.image.size == (16, 16)
        stages = list(dict.fromkeys(info.stage for info in seen))
        assert stages == ["search", "rerank", "start", "optimize", "race", "select"]
        assert result.seconds > 0
        result.save(tmp_path / "dog.png")
        with Image.open(tmp_path / "dog.png") as picture:
            text = picture.text  # type: ignore[attr-defined]
        assert (text["prompt"], text["seed"]) == ("a dog", str(2**64 - 1))
        assert float(text["score"].split(" +- ")[0]) == pytest.approx(
            float(result.score.mean), abs=1e-4
        )

    def test_seed_decides(self, gan: BigGan, clip: OpenClip) -> None:
        first, again, other = (
            generate("a dog", seed=seed, gan=gan, clip=clip, recipe=RECIPE).images
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_exception(self, gan: BigGan, clip: OpenClip) -> None:
        with pytest.raises(PromptError, match="prompt is empty"):
            generate("", gan=gan, clip=clip)
        with pytest.raises(ConfigError, match="The seed is -1"):
            generate("a dog", seed=-1)
        with pytest.raises(ConfigError, match="Only one of gan and clip was given"):
            generate("a dog", gan=gan)


COMPOSITION = CompositionRecipe(
    search=SearchConfig(num_candidates=20, num_basis=3, batch_size=10, rerank_augments=4),
    compose=ComposeConfig(
        optimize=OptimizeConfig(num_steps=4, eval_augments=4, start="alone", num_starts=1),
        rungs=((3, 0.5), (1, 1.0)),
        consistency="none",
    ),
    augment=AugmentConfig(num_augments=4),
)


class TestGenerateComposition:
    def test_smoke(self, gan: BigGan, clip: OpenClip, tmp_path: Path) -> None:
        seen: list[StepInfo] = []
        result = generate_composition(
            "a dog and a cat", gan=gan, clip=clip, recipe=COMPOSITION, callback=seen.append
        )
        stages = list(dict.fromkeys(info.stage for info in seen))
        assert stages == ["search", "rerank", "pair", "compose", "select"]
        assert result.composition is not None
        assert len(result.composition.attempts) == 18
        assert len(result.latent.z) == 2
        result.save(tmp_path / "both.png")
        with Image.open(tmp_path / "both.png") as picture:
            text = picture.text  # type: ignore[attr-defined]
        assert text["placement"] == result.composition.placement.name

    def test_one_prompt_is_searched_once(self, gan: BigGan, clip: OpenClip) -> None:
        seen: list[StepInfo] = []
        generate_composition("a dog", gan=gan, clip=clip, recipe=COMPOSITION, callback=seen.append)
        assert [info.score.shape for info in seen if info.stage == "search"] == [(1,)] * 2

    def test_parts_have_searches_of_their_own(self, gan: BigGan, clip: OpenClip) -> None:
        result = generate_composition(
            "a dog and a cat",
            gan=gan,
            clip=clip,
            recipe=COMPOSITION,
            foreground_prompt="a dog",
        )
        (alone,) = search_basis(
            gan,
            clip,
            [encode_target(clip, "a dog")],
            config=COMPOSITION.search,
            augment=COMPOSITION.augment,
            generator=make_generator(0, SEARCH_STREAM),
        )
        assert torch.equal(result.basis.latent.z, alone.latent.z)
        shared = generate_composition("a dog and a cat", gan=gan, clip=clip, recipe=COMPOSITION)
        assert not torch.equal(shared.images, result.images)

    def test_exception(self, gan: BigGan, clip: OpenClip) -> None:
        with pytest.raises(PromptError, match="prompt is empty"):
            generate_composition("a dog", gan=gan, clip=clip, background_prompt=" ")
