from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from fusedream_core import (
    AdamConfig,
    AugmentConfig,
    Basis,
    BigGan,
    ConfigError,
    OpenClip,
    Target,
    make_generator,
)
from fusedream_core.compose.candidates import make_problem
from fusedream_core.compose.objective import FuseObjective
from fusedream_core.compose.placement import all_placements
from fusedream_core.compose.run import PlacementRun, rung_ends
from fusedream_core.config import ComposeConfig

PLACES = all_placements(scales=(0.5,))
CONFIG = ComposeConfig(
    optimize=AdamConfig(num_steps=10, eval_augments=4),
    num_basis=2,
    rungs=((4, 0.05), (2, 0.5), (1, 1.0)),
    consistency="none",
)


@pytest.fixture
def objective(
    gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
) -> FuseObjective:
    problems = [
        make_problem(targets64[row], (None, None), *bases64[row : row + 2], make_generator(row))
        for row in range(2)
    ]
    augment = AugmentConfig(num_augments=2)
    return FuseObjective(gan64, clip64, None, 0.6, CONFIG, augment, problems)


def test_a_rung_has_a_step_at_least() -> None:
    assert rung_ends(CONFIG) == [1, 5, 10]  # and a half is rounded to even


class TestPlacementRun:
    def test_the_best_placements_of_the_pre_search_begin(self, objective: FuseObjective) -> None:
        run = PlacementRun(objective, PLACES, None)
        trials = run.begin()
        assert trials.problems == [0] * 4 + [1] * 4
        state = run.state_dict(trials)
        assert state["progress"] == [0, 2 * (4 * 1 + 2 * 4 + 1 * 5)]
        for problem, attempts in enumerate(state["attempts"]):
            scores = {place: score for place, score, _ in attempts}
            assert len(scores) == 9
            own = [
                (own.placement.scale, own.placement.x, own.placement.y)
                for own in trials.candidates
                if own.problem == problem
            ]
            assert sorted(scores, key=lambda place: -scores[place])[:4] == own

    def test_recent_scores_are_of_the_last_four_steps(self, objective: FuseObjective) -> None:
        run = PlacementRun(objective, PLACES, None)
        trials = run.begin()
        values = torch.rand(6, 4, 8, generator=make_generator(0))
        trials.trace.extend(values)
        expected = [fmean(values[2:, 0, row].tolist()) for row in range(8)]
        assert run.recent_scores(trials) == expected
        first = run.state_dict(trials)["attempts"][0]
        assert [score for _, score, _ in first if score in expected[:4]]

    def test_foreground_and_background_have_weights_of_their_own(
        self, objective: FuseObjective
    ) -> None:
        """Both copied one generator, and so mixed their bases alike."""
        config = replace(CONFIG, optimize=replace(CONFIG.optimize, start="random"))
        run = PlacementRun(replace(objective, config=config), PLACES, None)
        fronts, backs = run.begin().optimizer.latent.z_mix.detach().chunk(2)
        assert not torch.equal(fronts[0], backs[0])
        assert torch.equal(fronts[0], fronts[1])  # placements share them
        assert torch.equal(backs[0], backs[1])

    def test_the_returned_placement_is_the_first_attempt(self, objective: FuseObjective) -> None:
        """One that was dropped after as many steps, by another score, came before it."""
        run = PlacementRun(objective, PLACES, None)
        trials = run.begin()
        trials.trace.extend(torch.full((1, 4, 8), 9.0))
        run.recent_scores(trials)
        (first, _) = run.results(trials.pick([2, 3, 5, 6]))
        assert first.attempts[0].placement == first.placement
        assert {own.placement for own in first.attempts[:2]} == {
            own.placement for own in trials.pick([2, 3]).candidates
        }

    def test_no_placement(self, objective: FuseObjective) -> None:
        with pytest.raises(ConfigError, match="no placement to try"):
            PlacementRun(objective, [], None)
