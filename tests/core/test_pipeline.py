from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fusedream_core import (
    AugmentConfig,
    BigGan,
    ConfigError,
    OpenClip,
    OptimizeConfig,
    PromptError,
    Recipe,
    SearchConfig,
    StepInfo,
    generate,
)

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
        assert stages == ["search", "rerank", "start", "optimize", "select"]
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
