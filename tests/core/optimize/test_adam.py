from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fusedream_core import Basis, BigGan, OptimizeConfig, make_generator
from fusedream_core.compose.barrier import dynamic_barrier
from fusedream_core.config import Mixing
from fusedream_core.optimize.adam import LatentOptimizer
from fusedream_core.optimize.latent import make_latent

CONFIG = OptimizeConfig(num_steps=10, start="uniform")


def make(
    gan: BigGan,
    bases: list[Basis],
    mixing: Mixing = "scalar",
    config: OptimizeConfig = CONFIG,
) -> LatentOptimizer:
    latent = make_latent(
        bases,
        "uniform",
        mixing=mixing,
        device=torch.device("cpu"),
        generators=[make_generator(0) for _ in bases],
    )
    return LatentOptimizer(latent, gan, config, truncation=0.6)


def push(optimizer: LatentOptimizer, seed: int, rows: list[int]) -> None:
    """One step against gradients that are each row's own."""
    gradients = []
    for index, tensor in enumerate(optimizer.parameters):
        full = torch.randn(3, *tensor.shape[1:], generator=make_generator(seed, index))
        gradients.append(full[rows].to(tensor))
    optimizer.step(gradients)


def slow_metric(rate: Tensor, history: list[Tensor]) -> Tensor:
    """Adam's scaling of each coordinate by its own history, at Adam's own settings."""
    metric = rate.clone()
    for spot in itertools.product(*map(range, rate.shape)):
        own = [float(gradients[spot]) for gradients in history]
        if any(own):
            moment = 0.0
            for gradient in own:
                moment = 0.999 * moment + 0.001 * gradient**2
            moment /= 1.0 - 0.999 ** len(own)
            metric[spot] = float(rate[spot]) / (math.sqrt(moment) + 1e-8)
    return metric


class TestLatentOptimizer:
    @pytest.mark.parametrize("mixing", ["scalar", "softmax"])
    def test_picked_rows_go_on_as_among_all(
        self, gan64: BigGan, bases64: list[Basis], mixing: Mixing
    ) -> None:
        whole = make(gan64, bases64, mixing)
        for seed in range(4):
            push(whole, seed, [0, 1, 2])
        some = whole.pick(torch.tensor([2, 0]))
        for seed in range(4, 8):
            push(whole, seed, [0, 1, 2])
            push(some, seed, [2, 0])
        assert some.num_steps == whole.num_steps == 8
        for one, other in zip(some.parameters, whole.parameters, strict=True):
            assert torch.equal(one, other[[2, 0]])

    def test_metric_is_the_step_per_gradient(self, gan64: BigGan, bases64: list[Basis]) -> None:
        """At constant gradient and rate, Adam's step is the metric times the gradient."""
        optimizer = make(gan64, bases64, config=replace(CONFIG, schedule="constant"))
        gradients = [
            0.001 * torch.randn(tensor.shape, generator=make_generator(i)).to(tensor)
            for i, tensor in enumerate(optimizer.parameters)
        ]
        assert all(bool((m == m.flatten()[0]).all()) for m in optimizer.metric())
        for _ in range(3):
            before = [tensor.detach().clone() for tensor in optimizer.parameters]
            optimizer.step(gradients)
        for old, new, metric, gradient in zip(
            before, optimizer.parameters, optimizer.metric(), gradients, strict=True
        ):
            torch.testing.assert_close(old - new, metric * gradient, rtol=1e-4, atol=1e-9)

    def test_a_coordinate_without_history_counts_as_before_the_first_step(
        self, gan64: BigGan, bases64: list[Basis]
    ) -> None:
        """Members that were dormant so far: their gradients were 0, and there is no scale yet."""
        optimizer = make(gan64, bases64)
        at_first = optimizer.metric()
        history: list[list[Tensor]] = []
        for seed in range(3):
            gradients = [
                0.01 * torch.randn(tensor.shape, generator=make_generator(seed, i)).to(tensor)
                for i, tensor in enumerate(optimizer.parameters)
            ]
            gradients[0][:, 1:] = 0.0  # z of all members but the first
            gradients[2][1, 2] = 0.0  # y of one member of one run
            optimizer.step(gradients)
            history.append(gradients)
        expected = [
            slow_metric(rate, [gradients[index] for gradients in history])
            for index, rate in enumerate(at_first)
        ]
        for metric, own in zip(optimizer.metric(), expected, strict=True):
            torch.testing.assert_close(metric, own, rtol=1e-6, atol=0.0)
        assert torch.equal(optimizer.metric()[0][:, 1:], at_first[0][:, 1:])
        assert float(optimizer.metric()[0][:, 0].min()) > 10 * float(at_first[0].max())

    def test_dormant_members_do_not_decide_the_barrier(
        self, gan64: BigGan, bases64: list[Basis]
    ) -> None:
        """What wakes up weighs no more than what is at work, in the norm of lambda."""
        optimizer = make(gan64, bases64)
        score, loss = (
            [
                0.01 * torch.randn(tensor.shape, generator=make_generator(seed, i)).to(tensor)
                for i, tensor in enumerate(optimizer.parameters)
            ]
            for seed in (0, 1)
        )
        at_work = [torch.ones_like(tensor) for tensor in score]
        at_work[0][:, 1:] = at_work[2][:, 1:] = 0.0
        optimizer.step([one * own for one, own in zip(score, at_work, strict=True)])
        metric = optimizer.metric()
        weights = [
            dynamic_barrier(
                loss, score, beta=1.0, num_runs=3, metric=[m * share for m, share in shares]
            ).lambda_
            for shares in (
                [(m, torch.ones_like(m)) for m in metric],
                list(zip(metric, at_work, strict=True)),
            )
        ]
        torch.testing.assert_close(weights[0], weights[1], rtol=0.05, atol=0.05)

    def test_cosine_schedule(self, gan64: BigGan, bases64: list[Basis]) -> None:
        optimizer = make(gan64, bases64)
        decays = []
        for seed in range(10):
            decays.append(optimizer.decay)
            push(optimizer, seed, [0, 1, 2])
        assert decays[0] == 1.0
        assert decays == sorted(decays, reverse=True)
        assert optimizer.decay == pytest.approx(0.0)
