from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fusedream_core import (
    DEFAULT,
    PAPER,
    PAPER_COMPOSITION,
    REFERENCE_CODE,
    CompositionRecipe,
    ConfigError,
    InvertConfig,
    Recipe,
    SearchConfig,
)
from fusedream_core.config import from_plain, to_plain

RECIPES = [
    DEFAULT,
    PAPER,
    REFERENCE_CODE,
    CompositionRecipe(),
    CompositionRecipe(compose=PAPER_COMPOSITION),
    InvertConfig(),
    dataclasses.replace(DEFAULT, search=SearchConfig(classes=("dog", 7), truncation=0.5)),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_round_trip(recipe: Any) -> None:  # noqa: ANN401
    assert from_plain(type(recipe), json.loads(json.dumps(to_plain(recipe)))) == recipe


def changed(*path: str, value: object) -> dict[str, Any]:
    """The default recipe as plain data, with one value changed."""
    plain = json.loads(json.dumps(to_plain(DEFAULT)))
    place = plain
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return plain  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], "must be an object with settings"),
        (changed("path", value="/etc/passwd"), "unknown setting 'path'"),
        (changed("optimize", "code", value="x"), "unknown setting 'code'"),
        (changed("optimize", "num_steps", value="7"), "num_steps is .*must be a number up to"),
        (changed("optimize", "num_steps", value=True), "num_steps is True"),
        (changed("optimize", "num_steps", value=1.5), "num_steps is 1.5"),
        (changed("optimize", "num_steps", value=10**9), "num_steps is 1000000000"),
        (changed("optimize", "num_steps", value=0), "num_steps is 0"),
        (changed("optimize", "lr_z", value=float("nan")), "lr_z is nan"),
        (changed("optimize", "lr_z", value=10**400), "lr_z is"),
        (changed("optimize", "mixing", value=["scalar"]), "mixing is .*must be one of"),
        (changed("augment", "policy", value=["brightness", "eval"]), "policy is .*eval"),
        (changed("augment", "policy", value="brightness"), "policy is .*must be a list"),
        (changed("augment", "num_augments", value=10**6), "num_augments is 1000000"),
        (changed("search", "batch_size", value=10**6), "batch_size is 1000000"),
        (changed("search", "classes", value=["x" * 20_000]), "classes is"),
        (changed("search", "classes", value=[{"x": 1}]), "classes is"),
        (changed("search", value=None), "search is None"),
    ],
)
def test_what_nobody_vouches_for(plain: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_plain(Recipe, plain)
    assert len(str(caught.value)) < 400


def test_what_is_missing_has_its_default() -> None:
    assert from_plain(Recipe, {}) == DEFAULT
