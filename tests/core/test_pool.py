from __future__ import annotations

import pytest
import torch

from fusedream_core import make_generator
from fusedream_core.pool import Pool


def make_pool(scores: list[float], classes: list[int]) -> Pool:
    z = torch.arange(len(scores)).float()[:, None]  # z tells which latent it is
    return Pool(z, z, torch.tensor(classes), torch.tensor(scores))


def slow_best(pool: Pool, num: int, cap: int | None) -> list[int]:
    """Take one latent after the other, best first, skipping classes that are full.

    Only when nothing else is left are those taken as well.
    """
    taken: list[int] = []
    order = sorted(range(len(pool)), key=lambda row: -float(pool.scores[row]))
    for row in order:
        same = [other for other in taken if pool.class_index[other] == pool.class_index[row]]
        if len(taken) < num and (cap is None or len(same) < cap):
            taken.append(row)
    taken += [row for row in order if row not in taken][: num - len(taken)]
    return [row for row in order if row in taken]


class TestPool:
    def test_equals_keep_their_order(self) -> None:
        best = make_pool([1.0, 2.0, 2.0, 2.0], [0, 0, 0, 0]).best(2)
        assert best.z[:, 0].tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("classes", [1, 4, 30])
    @pytest.mark.parametrize("cap", [None, 1, 2])
    def test_value(self, rng: torch.Generator, cap: int | None, classes: int) -> None:
        scores = torch.rand(60, generator=rng).tolist()
        pool = make_pool(scores, torch.randint(0, classes, (60,), generator=rng).tolist())
        best = pool.best(7, cap)
        assert best.z[:, 0].tolist() == slow_best(pool, 7, cap)
        assert best.scores.tolist() == [scores[row] for row in slow_best(pool, 7, cap)]

    @pytest.mark.parametrize("cap", [None, 2])
    def test_streamed_equals_whole(self, cap: int | None) -> None:
        generator = make_generator(0)
        scores = torch.rand(60, generator=generator)
        pool = make_pool(scores.tolist(), torch.randint(0, 9, (60,), generator=generator).tolist())
        streamed = pool.pick(torch.arange(0, 13)).best(8, cap)
        for rows in torch.arange(13, 60).split(9):
            streamed = streamed.join(pool.pick(rows)).best(8, cap)
        assert streamed.z.tolist() == pool.best(8, cap).z.tolist()
