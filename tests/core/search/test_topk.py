from __future__ import annotations

import pytest
import torch

from fusedream_core import make_generator
from fusedream_core.search.topk import Pool, Shortlist


def make_pool(scores: list[float], classes: list[int]) -> Pool:
    z = torch.arange(len(scores)).float()[:, None]  # z identifies the latent
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


class TestShortlist:
    @pytest.mark.parametrize("size", [1, 9, 60, 500])
    @pytest.mark.parametrize("cap", [None, 2])
    @pytest.mark.parametrize("named", [[], [3], [3, 8, 40]])
    def test_streamed_equals_whole(self, cap: int | None, named: list[int], size: int) -> None:
        """With equal scores among them, and a named class that is not there."""
        generator = make_generator(0)
        scores = torch.randint(0, 40, (500,), generator=generator).float()
        pool = make_pool(
            scores.tolist(), torch.randint(0, 30, (500,), generator=generator).tolist()
        )
        shortlist = Shortlist(8, cap, named)
        for rows in torch.arange(500).split(size):
            shortlist.add(pool.pick(rows))
        kept = shortlist.pool()
        assert kept.z.tolist() == pool.shortlist(8, cap, named).z.tolist()
        for num in (1, 5, 8):
            assert kept.best(num, cap).z.tolist() == pool.best(num, cap).z.tolist()
        for index in named[:2]:
            best_of_class, there = (
                some.pick((some.class_index == index).nonzero()[:, 0]).best(1)
                for some in (pool, kept)
            )
            assert there.z.tolist() == best_of_class.z.tolist()

    def test_neither_memory_nor_time_grows_with_what_streamed_by(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So many latents as are kept may wait, and each is sorted twice at most."""
        sorted_at_once = []
        shortlist_of = Pool.shortlist

        def spy(self: Pool, num: int, max_per_class: int | None, named: list[int]) -> Pool:
            sorted_at_once.append(len(self))
            return shortlist_of(self, num, max_per_class, named)

        monkeypatch.setattr(Pool, "shortlist", spy)
        pool = make_pool(torch.rand(3000, generator=make_generator(0)).tolist(), [0, 1] * 1500)
        shortlist = Shortlist(100, None, [1])
        for rows in torch.arange(3000).split(10):
            shortlist.add(pool.pick(rows))
        shortlist.pool()
        assert max(sorted_at_once) <= 2 * 100 + 10 + 1
        assert sum(sorted_at_once) <= 2 * 3000 + 2 * 100
