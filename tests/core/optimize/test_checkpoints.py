from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusedream_core import AdamConfig
from fusedream_core.optimize import checkpoints as checkpoints_module
from fusedream_core.optimize.checkpoints import Checkpoints

CONFIG = AdamConfig(num_steps=8, num_snapshots=2)


class TestCheckpoints:
    def test_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoints_module, "EMA_DECAY", 0.5)
        config = replace(CONFIG, num_steps=4)
        checkpoints = Checkpoints(config)
        for at, value in enumerate([0.0, 4.0, 4.0, 8.0, 8.0]):
            checkpoints.add(at, (torch.tensor([value]), torch.tensor([-value])))
        found = {name: (float(z), float(y)) for name, (z, y) in checkpoints.named().items()}
        assert found == {
            "step 0": (0.0, 0.0),
            "step 2": (4.0, -4.0),
            "average": (6.75, -6.75),  # 0, 2, 3, 5.5, 6.75
            "last": (8.0, -8.0),
        }
        last = Checkpoints(replace(config, selection="last"))
        last.add(0, (torch.zeros(1), torch.zeros(1)))
        assert list(last.named()) == ["last"]
