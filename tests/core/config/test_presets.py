from __future__ import annotations

import pytest

from fusedream_core import DEFAULT, PAPER, REFERENCE_CODE, Recipe


@pytest.mark.parametrize("recipe", [PAPER, REFERENCE_CODE])
def test_the_published_settings(recipe: Recipe) -> None:
    assert recipe.search.num_candidates == 10_000
    assert recipe.search.num_basis == 5
    assert recipe.search.guided_share == 0.0
    assert recipe.augment.num_augments == 50
    assert recipe.augment.draws == "independent"
    steps = recipe.optimize
    assert (steps.num_steps, steps.lr_z, steps.lr_y, steps.lr_w) == (1_000, 5e-3, 5e-3, 5e-3)
    assert (steps.units, steps.schedule, steps.selection) == ("absolute", "constant", "last")
    assert (steps.num_starts, steps.first_augments) == (1, 1.0)


def test_where_the_two_differ() -> None:
    assert (PAPER.optimize.mixing, PAPER.optimize.start) == ("scalar", "uniform")
    assert (REFERENCE_CODE.optimize.mixing, REFERENCE_CODE.optimize.start) == ("softmax", "random")
    assert (PAPER.search.ranking, REFERENCE_CODE.search.ranking) == ("aug_clip", "clip")
    assert PAPER.search.num_reranked is None


def test_the_default_is_what_a_recipe_has_by_itself() -> None:
    assert Recipe() == DEFAULT
