from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from fusedream_core import (
    AugmentConfig,
    Basis,
    BigGan,
    Latent,
    OpenClip,
    OptimizeConfig,
    Score,
    Target,
    make_generator,
)
from fusedream_core.config import Mixing
from fusedream_core.optimize.latent import make_latent
from fusedream_core.optimize.problems import Problems
from fusedream_core.optimize.starts import MultiStart, _leaders, _winners, choose_weights


class TestChooseWeights:
    @pytest.mark.parametrize("mixing", get_args(Mixing))
    def test_value(self, bases64: list[Basis], mixing: Mixing) -> None:
        latents = [
            make_latent(
                bases64,
                start,
                mixing=mixing,
                device=torch.device("cpu"),
                generators=[make_generator(seed) for seed in range(3)],
            )
            for start in ("alone", "uniform")
        ]
        picked = choose_weights(latents, torch.tensor([1, 0, 1]))
        for run, kind in enumerate((1, 0, 1)):
            for block in (0, 1):
                expected = latents[kind].mixed()[block][run]
                torch.testing.assert_close(picked.mixed()[block][run], expected)
        assert len(picked.mixes()) == (1 if mixing == "scalar" else 2)


class TestLeadersAndWinners:
    def test_leaders(self, bases64: list[Basis]) -> None:
        basis = replace(bases64[0], class_index=torch.tensor([4, 4, 2]))
        orders = [order.tolist() for order in _leaders(basis, set(), 3)]
        assert orders == [[0, 1, 2], [2, 0, 1], [1, 0, 2]]  # the other class before its own

    def test_a_named_class_that_ranks_last_is_a_start(self, bases64: list[Basis]) -> None:
        basis = replace(
            bases64[0],
            latent=Latent(torch.zeros(5, 3), torch.zeros(5, 3), 1.0),
            scores=torch.zeros(5),
            class_index=torch.tensor([4, 4, 2, 3, 1]),
        )
        leads = [order[0].item() for order in _leaders(basis, {1}, 3)]
        assert leads == [0, 4, 2]

    def test_a_named_class_goes_on_unless_another_is_clearly_better(self) -> None:
        scores = Score(
            torch.tensor([[0.5, 0.5, 0.5], [0.47, 0.45, 0.52]]), torch.full((2, 3), 0.02)
        )
        named = torch.tensor([[False] * 3, [True] * 3])
        assert _winners(scores, named) == [1, 0, 1]
        assert _winners(scores, torch.zeros_like(named)) == [0, 0, 1]

    def test_the_best_of_two_named_goes_on(self) -> None:
        scores = Score(torch.tensor([[0.50], [0.51]]), torch.tensor([[0.02], [0.001]]))
        assert _winners(scores, torch.tensor([[True], [True]])) == [1]

    def test_one_copy_has_no_standard_error(self) -> None:
        scores = Score(torch.tensor([[0.1], [0.9]]), torch.full((2, 1), torch.nan))
        for named in ([[False], [False]], [[True], [False]], [[True], [True]]):
            assert _winners(scores, torch.tensor(named)) == [1]


class TestMultiStart:
    def make(
        self, gan: BigGan, clip: OpenClip, targets: list[Target], bases: list[Basis]
    ) -> MultiStart:
        problems = Problems(gan, clip, targets, 0.6, AugmentConfig(num_augments=2))
        config = OptimizeConfig(num_starts=3, start="alone", eval_augments=2)
        generators = [make_generator(row) for row in range(len(targets))]
        return MultiStart(problems, bases, config, generators, None)

    def test_each_start_has_another_member_first(
        self, gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
    ) -> None:
        starts = self.make(gan64, clip64, targets64[:2], bases64[:2])
        trials = starts.begin([make_generator(0), make_generator(1)])
        assert [(own.problem, own.kind) for own in trials.candidates] == [
            *((0, "alone"), (1, "alone"), (0, "rival 2"), (1, "rival 2")),
            *((0, "rival 3"), (1, "rival 3")),
        ]
        z, _ = trials.optimizer.latent.mixed()
        for problem, basis in enumerate(bases64[:2]):
            first = {tuple(row.tolist()) for row in z[problem::2]}
            assert first == {tuple(row.tolist()) for row in basis.latent.z}

    def test_one_start_of_each_problem_goes_on(
        self, gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
    ) -> None:
        starts = self.make(gan64, clip64, targets64, bases64)
        trials = starts.begin([make_generator(row) for row in range(3)])
        assert starts.keep_best(trials, 3) is trials
        kept = starts.keep_best(trials, 1)
        assert kept.problems == [0, 1, 2]
