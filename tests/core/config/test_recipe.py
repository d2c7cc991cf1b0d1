from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from fusedream_core import (
    DEFAULT,
    PAPER,
    REFERENCE_CODE,
    AugmentConfig,
    ConfigError,
    OptimizeConfig,
    Recipe,
    SearchConfig,
)


class TestAugmentConfig:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_augments": 0}, "num_augments is 0, but it must be a whole number of at least 1"),
            ({"policy": ("color",)}, "policy is .* a tuple of Augment members"),
            ({"cutout": 1.5}, "cutout is 1.5, but it must be a number from 0 to 1"),
        ],
    )
    def test_exception(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            AugmentConfig(**change)


class TestSearchConfig:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_candidates": 0}, "num_candidates is 0, but .* at least 1"),
            (
                {"num_candidates": 3, "num_basis": 5},
                "num_basis is 5, but only 3 candidates are drawn; lower num_basis or raise",
            ),
            ({"truncation": 0.0}, "truncation is 0.0, but it must be above 0 and at most 1"),
            ({"classes": ()}, "classes is .* at least one class"),
            ({"max_per_class": 0}, "max_per_class is 0"),
            ({"ranking": "best"}, "ranking is 'best', but it must be one of aug_clip, clip"),
            ({"batch_size": 2.5}, "batch_size is 2.5"),
        ],
    )
    def test_exception(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SearchConfig(**change)

    def test_candidates_on(self) -> None:
        assert SearchConfig().candidates_on(torch.device("cpu")) == 400
        assert SearchConfig().candidates_on(torch.device("mps")) == 10_000
        assert SearchConfig(num_candidates=7).candidates_on(torch.device("cpu")) == 7
        assert SearchConfig(num_basis=2_000).candidates_on(torch.device("cpu")) == 2_000


class TestOptimizeConfig:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_steps": 0}, "num_steps is 0"),
            ({"mixing": "mean"}, "mixing is 'mean', but it must be one of scalar, softmax"),
            ({"start": "zero"}, "start is 'zero'"),
            ({"lr_z": -1.0}, "lr_z is -1.0"),
            ({"lr_y": float("nan")}, "lr_y is nan"),
            ({"eval_augments": 1}, "eval_augments is 1"),
        ],
    )
    def test_exception(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            OptimizeConfig(**change)


class TestRecipe:
    @pytest.mark.parametrize("recipe", [DEFAULT, PAPER, REFERENCE_CODE])
    def test_to_dict(self, recipe: Recipe) -> None:
        plain = json.loads(json.dumps(recipe.to_dict()))
        assert plain["optimize"] == dataclasses.asdict(recipe.optimize)
        assert plain["augment"]["policy"] == [member.value for member in recipe.augment.policy]

    def test_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            DEFAULT.search = SearchConfig()  # type: ignore[misc]

    def test_paper(self) -> None:
        assert (PAPER.search.num_candidates, PAPER.search.num_basis) == (10_000, 5)
        assert (PAPER.search.ranking, PAPER.search.num_reranked) == ("aug_clip", None)
        assert (PAPER.optimize.mixing, PAPER.optimize.start) == ("scalar", "uniform")

    def test_reference_code(self) -> None:
        search, optimize = REFERENCE_CODE.search, REFERENCE_CODE.optimize
        assert (search.num_candidates, search.ranking) == (10_000, "clip")
        assert (optimize.mixing, optimize.start, optimize.selection) == (
            "softmax",
            "random",
            "last",
        )
        assert (optimize.lr_z, optimize.lr_y, optimize.lr_w) == (5e-3, 5e-3, 5e-3)
        assert (optimize.latent_noise_std, optimize.units) == (0.01, "absolute")
        assert REFERENCE_CODE.augment.num_augments == 50
        assert REFERENCE_CODE.augment.shared_zoom
