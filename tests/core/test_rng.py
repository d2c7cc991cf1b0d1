from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fusedream_core import ConfigError
from fusedream_core.rng import (
    choices,
    copy,
    fork,
    independent,
    integers,
    make_generator,
    stratified,
    truncated_normal,
    uniform,
)


def draw(generator: torch.Generator) -> list[float]:
    return torch.rand(4, generator=generator).tolist()


class TestMakeGenerator:
    def test_determinism(self) -> None:
        assert draw(make_generator(3)) == draw(make_generator(3))

    def test_streams_and_seeds_differ(self) -> None:
        draws = [draw(make_generator(seed, stream)) for seed in (0, 1) for stream in (0, 1)]
        assert len({tuple(numbers) for numbers in draws}) == 4

    def test_high_bits_of_the_seed_count(self) -> None:
        assert draw(make_generator(5)) != draw(make_generator(5 + 2**32))

    def test_largest_seed(self) -> None:
        assert draw(make_generator(2**64 - 1)) == draw(make_generator(2**64 - 1))
        assert draw(make_generator(2**64 - 1)) != draw(make_generator(2**64 - 2))

    @pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "7"])
    def test_exception(self, seed: object) -> None:
        with pytest.raises(ConfigError, match="whole number from 0 to 18446744073709551615"):
            make_generator(seed)  # type: ignore[arg-type]


class TestFork:
    def test_child_does_not_move_its_parent(self) -> None:
        one, other = make_generator(0), make_generator(0)
        draw(fork(one))
        fork(other)
        assert draw(one) == draw(other)

    def test_children_differ(self) -> None:
        parent = make_generator(0)
        assert draw(fork(parent)) != draw(fork(parent))


class TestTruncatedNormal:
    def test_value(self, rng: torch.Generator) -> None:
        values = truncated_normal((200_000,), generator=rng)
        assert values.abs().max() <= 2.0
        assert abs(float(values.mean())) < 0.01
        assert float(values.std()) == pytest.approx(0.8796, abs=0.005)
        # share within one standard deviation: 0.6827 / 0.9545
        assert float((values.abs() < 1).float().mean()) == pytest.approx(0.7153, abs=0.005)

    def test_row_after_row(self) -> None:
        one, other = make_generator(1), make_generator(1)
        whole = truncated_normal((8, 5), generator=one)
        parts = [truncated_normal((rows, 5), generator=other) for rows in (3, 5)]
        assert torch.equal(whole, torch.cat(parts))


class TestUniformAndIntegers:
    def test_ranges(self, rng: torch.Generator) -> None:
        numbers = uniform((10_000,), -0.5, 1.5, generator=rng)
        assert -0.5 <= numbers.min() < -0.49
        assert 1.49 < numbers.max() <= 1.5
        assert integers((1_000,), -2, 2, generator=rng).unique().tolist() == [-2, -1, 0, 1, 2]


class TestCopy:
    def test_draws_the_same_without_advancing(self) -> None:
        parent = make_generator(3)
        first = torch.rand(4, generator=copy(parent))
        assert torch.equal(first, torch.rand(4, generator=parent))


class TestChoices:
    def test_frequencies(self) -> None:
        drawn = choices(torch.tensor([1.0, 0.0, 3.0]), 4000, generator=make_generator(0))
        counts = torch.bincount(drawn, minlength=3)
        assert counts[1] == 0
        assert 0.72 < float(counts[2]) / 4000 < 0.78


class TestStratified:
    @pytest.mark.parametrize("num", [1, 6, 50])
    def test_one_number_in_each_part_of_the_range(self, rng: torch.Generator, num: int) -> None:
        points = stratified(num, 3, generator=rng)
        assert points.shape == (num, 3)
        for column in points.T:
            assert (column * num).floor().sort().values.tolist() == list(range(num))

    def test_each_point_is_uniform(self, rng: torch.Generator) -> None:
        first = torch.stack([stratified(4, 2, generator=rng)[0] for _ in range(4_000)])
        assert first.mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
        assert first.std(dim=0).tolist() == pytest.approx([12**-0.5] * 2, abs=0.01)

    def test_less_noise_than_independent_points(self, rng: torch.Generator) -> None:
        def noise(draw: Callable[..., torch.Tensor]) -> float:
            means = [draw(8, 2, generator=rng).square().sum(1).mean() for _ in range(500)]
            return float(torch.stack(means).std())

        assert noise(stratified) < 0.3 * noise(independent)
