from __future__ import annotations

import torch

from fusedream_core import StepInfo
from fusedream_core.compose.result import Progress


class TestProgress:
    def test_the_best_of_what_was_done_is_reported(self) -> None:
        seen: list[StepInfo] = []
        progress = Progress("compose", 5, seen.append)
        images = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        progress.report(torch.tensor([0.1, 0.7, 0.3]), images, num=3)
        progress.report(torch.tensor([0.2]), images[:1])
        assert [(info.stage, info.step, info.total) for info in seen] == [
            ("compose", 3, 5),
            ("compose", 4, 5),
        ]
        assert torch.equal(seen[0].preview, images[1:2])
        torch.testing.assert_close(seen[0].score, torch.tensor([0.7]))

    def test_without_a_callback_it_only_counts(self) -> None:
        progress = Progress("pair", 1, None)
        progress.report(torch.zeros(1), torch.zeros(1, 3, 4, 4))
        assert progress.done == 1
