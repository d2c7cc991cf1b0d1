from __future__ import annotations

import torch

from fusedream_core import Score
from fusedream_core.optimize.evaluate import Best, best_checkpoints


class TestBestCheckpoints:
    def test_the_best_of_all_candidates_and_checkpoints_of_a_problem(self) -> None:
        means = torch.tensor([[0.1, 0.9, 0.3], [0.7, 0.2, 0.8], [0.7, 0.9, 0.1]])
        best = best_checkpoints(["a", "b", "c"], Score(means, means), [1, 0, 1])
        assert best == [Best("a", 0, 1), Best("b", 1, 2)]

    def test_of_equals_the_first(self) -> None:
        means = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
        assert best_checkpoints(["a", "b"], Score(means, means), [0, 0]) == [Best("a", 0, 0)]

    def test_nan_never_wins(self) -> None:
        means = torch.tensor([[0.1], [torch.nan]])
        assert best_checkpoints(["a", "b"], Score(means, means), [0]) == [Best("a", 0, 0)]
