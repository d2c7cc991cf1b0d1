from __future__ import annotations

import pytest

from fusedream_core import PAPER, PAPER_COMPOSITION, REFERENCE_CODE, Placement
from fusedream_core.cli.arguments import parse
from fusedream_core.cli.recipes import make_composition_recipe, make_placements, make_recipe


class TestMakeRecipe:
    def test_presets(self) -> None:
        assert make_recipe(parse(["generate", "a dog", "--preset", "paper"])) == PAPER
        assert make_recipe(parse(["generate", "a dog", "--preset", "reference"])) == REFERENCE_CODE

    def test_options_change_the_preset(self) -> None:
        options = parse(
            ["generate", "a dog", "--preset", "paper", "--steps", "7", "--candidates", "30"]
        )
        recipe = make_recipe(options)
        assert (recipe.optimize.num_steps, recipe.search.num_candidates) == (7, 30)
        assert recipe.optimize.lr_z == PAPER.optimize.lr_z
        assert recipe.augment == PAPER.augment


class TestMakeCompositionRecipe:
    def test_presets(self) -> None:
        recipe = make_composition_recipe(parse(["compose", "a dog", "--preset", "paper"]))
        assert recipe.compose == PAPER_COMPOSITION

    def test_options_change_the_preset(self) -> None:
        options = parse(["compose", "a dog", "--steps", "5", "--blend", "none"])
        compose = make_composition_recipe(options).compose
        assert (compose.optimize.num_steps, compose.blend) == (5, "none")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], None),
        (["--scale", "0.5", "--position", "left"], (Placement.named("left", 0.5),)),
    ],
)
def test_make_placements(options: list[str], expected: object) -> None:
    assert make_placements(parse(["compose", "a dog", *options])) == expected


def test_one_of_scale_and_position_leaves_the_other_open() -> None:
    scaled = make_placements(parse(["compose", "a dog", "--scale", "0.3"]))
    assert scaled is not None
    assert len(scaled) == 9
    assert {own.scale for own in scaled} == {0.3}
    placed = make_placements(parse(["compose", "a dog", "--position", "top"]))
    assert placed is not None
    assert {own.scale for own in placed} == {0.65, 0.5}
