from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedream_core.compose.barrier import dynamic_barrier


def draw(rng: torch.Generator, runs: int = 3) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients of a loss and of a score for ``2 * runs`` rows of two tensors, and a metric."""
    shapes = [(2 * runs, 4, 5), (2 * runs, 4, 1)]
    loss, score = ([torch.randn(s, generator=rng).double() for s in shapes] for _ in range(2))
    return loss, score, [torch.rand(s, generator=rng).double() + 0.1 for s in shapes]


def flat(parts: list[Tensor], run: int, runs: int) -> Tensor:
    """All numbers of one run."""
    return torch.cat([part[row].flatten() for part in parts for row in (run, runs + run)])


class TestDynamicBarrier:
    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
    @pytest.mark.parametrize("use_metric", [False, True])
    def test_the_score_rises_to_first_order(
        self, rng: torch.Generator, beta: float, use_metric: bool
    ) -> None:
        for _ in range(20):
            loss, score, metric = draw(rng)
            step = dynamic_barrier(
                loss, score, beta=beta, num_runs=3, metric=metric if use_metric else None
            )
            for run in range(3):
                scale = flat(metric, run, 3) if use_metric else 1.0
                ascent, v = flat(score, run, 3), flat(step.direction, run, 3)
                assert -(ascent * scale * v).sum() >= beta * (ascent * scale * ascent).sum() - 1e-9

    def test_value(self, rng: torch.Generator) -> None:
        loss, score, _ = draw(rng)
        step = dynamic_barrier(loss, score, beta=0.7, num_runs=3)
        for run in range(3):
            a, b = flat(loss, run, 3), flat(score, run, 3)
            weight = max(0.7 + float(a @ b) / float(b @ b), 0.0)
            assert float(step.lambda_[run]) == pytest.approx(weight)
            assert float(step.cosine[run]) == pytest.approx(float(a @ b / (a.norm() * b.norm())))
            torch.testing.assert_close(flat(step.direction, run, 3), a - weight * b)

    def test_batch_equals_singles(self, rng: torch.Generator) -> None:
        loss, score, metric = draw(rng)
        together = dynamic_barrier(loss, score, beta=1.0, num_runs=3, metric=metric)
        for run in range(3):
            rows = [run, 3 + run]
            alone = dynamic_barrier(
                [part[rows] for part in loss],
                [part[rows] for part in score],
                beta=1.0,
                num_runs=1,
                metric=[part[rows] for part in metric],
            )
            for one, other in zip(together.direction, alone.direction, strict=True):
                torch.testing.assert_close(one[rows], other)

    def test_agreeing_gradients_need_no_push(self) -> None:
        ascent = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
        step = dynamic_barrier([-3.0 * ascent], [ascent], beta=1.0, num_runs=1)
        assert float(step.lambda_[0]) == 0.0
        torch.testing.assert_close(step.direction[0], -3.0 * ascent)

    def test_without_a_loss_it_is_plain_ascent(self, rng: torch.Generator) -> None:
        _, score, _ = draw(rng)
        none = [torch.zeros_like(part) for part in score]
        step = dynamic_barrier(none, score, beta=1.0, num_runs=3)
        for one, other in zip(step.direction, score, strict=True):
            torch.testing.assert_close(one, -other)

    def test_a_flat_score_leaves_the_loss(self, rng: torch.Generator) -> None:
        loss, score, _ = draw(rng)
        flat_score = [torch.zeros_like(part) for part in score]
        step = dynamic_barrier(loss, flat_score, beta=1.0, num_runs=3)
        for one, other in zip(step.direction, loss, strict=True):
            torch.testing.assert_close(one, other)

    @pytest.mark.parametrize("use_metric", [False, True])
    def test_lexicographic_optimum(self, rng: torch.Generator, use_metric: bool) -> None:
        """Of the maximisers of -|A x - b|^2, a whole plane, the one nearest to a point is found."""
        matrix = torch.randn(4, 12, generator=rng).double()
        wanted = torch.randn(4, generator=rng).double()
        point = torch.randn(12, generator=rng).double()
        # Closed form: project the point onto {x : A x = b}.
        inverse = torch.linalg.pinv(matrix)
        best = point + inverse @ (wanted - matrix @ point)
        metric = torch.rand(1, 12, generator=rng).double() + 0.5 if use_metric else None
        x = torch.zeros(1, 12, dtype=torch.float64)
        for _ in range(20_000):
            of_score = -2 * (x @ matrix.T - wanted) @ matrix
            of_loss = 2 * (x - point)
            step = dynamic_barrier(
                [of_loss], [of_score], beta=1.0, num_runs=1, metric=[metric] if use_metric else None
            )
            x = x - 0.002 * (metric if use_metric else 1.0) * step.direction[0]
        assert float((x[0] @ matrix.T - wanted).norm()) < 0.05
        # The minus sign before the inner product, or a plain sum of both aims, ends far off.
        assert float((x[0] - best).norm()) < 0.05
