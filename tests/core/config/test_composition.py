from __future__ import annotations

from typing import Any

import pytest
import torch

from fusedream_core import PAPER_COMPOSITION, ComposeConfig, ConfigError
from fusedream_core.config import ALL, PAPER


class TestComposeConfig:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_basis": 0}, "num_basis is 0"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"consistency": "edge"}, "must be one of none, whole, patch, seam"),
            ({"metric": "sgd"}, "must be one of adam, euclidean"),
            ({"blend": "multiply"}, "must be one of none, feather, poisson, mixed"),
            ({"blend_strength": 1.5}, "blend_strength is 1.5"),
            ({"part_weight": -1.0}, "part_weight is -1.0"),
            ({"rungs": ()}, "rungs is .* pairs of a falling count and a rising share"),
            ({"rungs": ((4, 0.5), (6, 1.0))}, "rungs is "),
            ({"rungs": ((4, 0.5), (2, 0.5), (1, 1.0))}, "rungs is "),
            ({"rungs": ((4, 0.5),)}, "rungs is "),
        ],
    )
    def test_exception(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            ComposeConfig(**change)

    def test_batch_size_on(self) -> None:
        config = ComposeConfig()
        assert config.batch_size_on(torch.device("cpu")) == 1
        assert config.batch_size_on(torch.device("cuda")) == 6
        assert ComposeConfig(batch_size=3).batch_size_on(torch.device("cpu")) == 3


def test_the_paper_optimises_all_placements_to_the_end() -> None:
    assert PAPER_COMPOSITION.rungs == ((ALL, 1.0),)
    assert PAPER_COMPOSITION.optimize.num_steps == PAPER.optimize.num_steps
    assert PAPER_COMPOSITION.optimize.start == "uniform"
