from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fusedream_core import Basis, BigGan, OptimizeConfig, make_generator
from fusedream_core.memory import AutoBatchSize
from fusedream_core.optimize.latent import make_latent
from fusedream_core.optimize.trials import (
    Trials,
    in_micro_batches,
    keep_best,
    start_trials,
)

CONFIG = OptimizeConfig(num_steps=8, num_snapshots=2, latent_noise_std=0.1)


@dataclass(frozen=True)
class Candidate:
    problem: int
    name: str


def make(gan: BigGan, bases: list[Basis], problems: list[int], num_latents: int = 1) -> Trials:
    """Trials of these problems' candidates, each of so many latents."""
    rows = [bases[problem] for problem in problems] * num_latents
    latent = make_latent(
        rows,
        "uniform",
        mixing="scalar",
        device=torch.device("cpu"),
        generators=[make_generator(0) for _ in rows],
    )
    return start_trials(
        latent,
        [Candidate(problem, f"{problem}-{index}") for index, problem in enumerate(problems)],
        gan,
        CONFIG,
        truncation=0.6,
        generators=[make_generator(problem) for problem in range(max(problems) + 1)],
    )


def step(trials: Trials) -> tuple[Tensor, Tensor]:
    """A step towards latents of 1, whose loss couples no rows; the latents that it was taken at."""
    z, y = trials.noisy_latent()
    gradients = [(block - 1.0).detach() for block in (z, y)]
    num = len(trials.candidates)
    losses = (z - 1.0).square().sum(dim=1).view(-1, num).sum(dim=0)
    trials.step(trials.backward((z, y), gradients), losses[None])
    return z.detach(), y.detach()


class TestTrials:
    @pytest.mark.parametrize("num_latents", [1, 2])
    def test_picked_candidates_go_on_as_among_all(
        self, gan64: BigGan, bases64: list[Basis], num_latents: int
    ) -> None:
        whole = make(gan64, bases64, [0, 0, 1, 1], num_latents)
        step(whole)
        some = replace(whole.pick([0, 3]), generators=[make_generator(0), make_generator(1)])
        whole = replace(whole, generators=[make_generator(0), make_generator(1)])
        assert [own.name for own in some.candidates] == ["0-0", "1-3"]
        for _ in range(3):
            z, _ = step(whole)
            own, _ = step(some)
            assert torch.equal(own, z[whole.rows([0, 3])])
        assert torch.equal(torch.stack(some.trace), torch.stack(whole.trace)[:, :, [0, 3]])

    def test_candidates_of_a_problem_share_their_noise(
        self, gan64: BigGan, bases64: list[Basis]
    ) -> None:
        trials = make(gan64, bases64, [0, 1, 0])
        noise = trials.noisy_latent()[0] - trials.optimizer.latent.mixed()[0]
        torch.testing.assert_close(noise[0], noise[2])
        assert not torch.allclose(noise[0], noise[1])

    @pytest.mark.parametrize("num_done", [0, 3])
    def test_restored_trials_go_on_alike(
        self, gan64: BigGan, bases64: list[Basis], num_done: int
    ) -> None:
        trials = make(gan64, bases64, [0, 1, 1])
        for _ in range(num_done):
            step(trials)
        form = make(gan64, bases64, [0])
        form = replace(form, generators=[make_generator(9), make_generator(9)])
        other = form.restored(trials.pick([0, 1, 2]).state_dict(), Candidate)
        assert other.candidates == trials.candidates
        for _ in range(2):
            assert torch.equal(step(trials)[0], step(other)[0])
        assert torch.equal(torch.stack(trials.trace), torch.stack(other.trace))


class TestKeepBest:
    def test_each_problem_keeps_its_own_in_their_old_order(
        self, gan64: BigGan, bases64: list[Basis]
    ) -> None:
        trials = make(gan64, bases64, [0, 1, 0, 1, 0])
        kept = keep_best(trials, 2, lambda _: [0.1, 0.9, 0.5, 0.2, 0.4])
        assert [own.name for own in kept.candidates] == ["0-2", "0-4", "1-1", "1-3"]

    def test_nothing_is_scored_where_none_goes(self, gan64: BigGan, bases64: list[Basis]) -> None:
        trials = make(gan64, bases64, [0, 1, 0])

        def score(_: Trials) -> list[float]:
            raise AssertionError

        assert keep_best(trials, 2, score) is trials


class TestInMicroBatches:
    def test_results_are_in_the_order_of_the_candidates(self) -> None:
        seen: list[list[int]] = []
        reported: list[int] = []

        def work(rows: list[int], _: int) -> tuple[Tensor, ...]:
            seen.append(rows)
            return torch.tensor(rows), 2 * torch.tensor(rows)

        found = in_micro_batches(
            AutoBatchSize(4), [[3, 0, 1], [2]], 2, work, lambda own: reported.append(len(own[0]))
        )
        assert seen == [[3, 0], [1], [2]]
        assert [own.tolist() for own in found] == [[0, 1, 2, 3], [0, 2, 4, 6]]
        assert reported == [3, 1]

    def test_a_group_that_does_not_fit_is_split_and_the_rest_with_it(self) -> None:
        limit, sizes = AutoBatchSize(), list[int]()

        def work(rows: list[int], _: int) -> tuple[Tensor, ...]:
            sizes.append(len(rows))
            if len(rows) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return (torch.tensor(rows),)

        (found,) = in_micro_batches(limit, [[0, 1, 2, 3], [4, 5, 6, 7]], 3, work)
        assert found.tolist() == list(range(8))
        assert sizes == [4, 2, 2, 2, 2]
        assert limit.size == 6
