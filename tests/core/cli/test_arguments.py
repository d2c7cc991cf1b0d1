from __future__ import annotations

from pathlib import Path

import pytest

from fusedream_core import PAPER, PAPER_COMPOSITION, Placement
from fusedream_core.cli.arguments import parse
from fusedream_core.cli.recipes import make_composition_recipe, make_placements, make_recipe


class TestParse:
    @pytest.mark.parametrize("out", ["image.xyz", "", "."])
    def test_what_is_no_png_is_refused(self, out: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            parse(["generate", "a dog", "-o", out])
        assert stopped.value.code == 2
        assert "Argument -o/--out" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["generate"], "Give one of a prompt, --from and --resume, not none of them"),
            (["compose", "a dog", "--from", "x.png"], "not a prompt and --from"),
            (["generate", "--from", "x.png", "--resume", "y"], "not --from and --resume"),
            (["generate", "--from", "x.png", "--seed", "3"], "--seed cannot be given with --from"),
            (
                ["compose", "--resume", "x", "--scale", ".5"],
                "--scale cannot be given with --resume",
            ),
            (["generate", "--resume", "x", "--preset", "paper"], "--preset cannot be given"),
            (["generate", "--resume", "x", "--start-image", "y"], "--start-image cannot be given"),
            (["generate", "a dog", "--architecture", "RN50"], "--architecture is that of a file"),
            (["generate", "a dog", "--selector-architecture", "RN50"], "give --selector"),
            (["generate", "a dog", "--steps", "many"], "'many' is not a whole number"),
            (["generate", "a dog", "--truncation", "much"], "'much' is not a number"),
            (["generate", "a dog", "--save-every", "0"], "'0' is not a whole number of at least 1"),
            (["generate", "a dog", "--classes", ","], "',' names no class"),
            (["generate", "a dog", "--preset", "best"], "invalid choice: 'best'"),
            (["generate", "a dog", "--nonsense"], "--nonsense"),
            (["paint"], "invalid choice: 'paint'"),
            ([], "required: command"),
        ],
    )
    def test_fault_is_one_sentence(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            parse(arguments)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert said[0].isupper() or said.startswith("-")
        assert "--help'.\n" in said

    def test_paths_that_hold_bytes_which_are_no_text(self) -> None:
        assert parse(["generate", "a", "-o", "\udcff.png"]).out == Path("\udcff.png")


class TestRecipes:
    def test_preset_with_changes(self) -> None:
        options = parse(
            [
                *("generate", "a dog", "--preset", "paper", "--steps", "7", "--basis", "3"),
                *("--classes", "dog, cat", "--truncation", "0.5", "--augments", "9"),
            ]
        )
        recipe = make_recipe(options)
        assert (recipe.optimize.num_steps, recipe.augment.num_augments) == (7, 9)
        assert (recipe.search.classes, recipe.search.truncation) == (("dog", "cat"), 0.5)
        assert (recipe.search.num_basis, recipe.search.num_candidates) == (3, 10_000)
        assert make_recipe(parse(["generate", "a dog", "--preset", "paper"])) == PAPER

    def test_composition(self) -> None:
        options = parse(
            [
                *("compose", "a dog", "--candidates", "77", "--steps", "7", "--blend", "mixed"),
                *("--consistency", "none"),
            ]
        )
        recipe = make_composition_recipe(options)
        assert recipe.compose.optimize.num_steps == 7
        assert recipe.search.num_candidates == 77
        assert (recipe.compose.blend, recipe.compose.consistency) == ("mixed", "none")
        paper = make_composition_recipe(parse(["compose", "a dog", "--preset", "paper"]))
        assert paper.compose == PAPER_COMPOSITION

    def test_placements(self) -> None:
        def placements(*arguments: str) -> tuple[Placement, ...] | None:
            return make_placements(parse(["compose", "a dog", *arguments]))

        assert placements() is None
        (one,) = placements("--scale", "0.3", "--position", "left") or ()
        assert one == Placement.named("left", 0.3)
        assert len(placements("--scale", "0.3") or ()) == 9
        assert len(placements("--position", "top") or ()) == 2
