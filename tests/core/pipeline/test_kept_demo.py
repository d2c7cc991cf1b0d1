from __future__ import annotations

import torch

from fusedream_core import free_demo
from fusedream_core.pipeline.kept_demo import kept_demo, kept_demo_bank, kept_demo_lpips


def test_the_same_objects_until_they_are_freed() -> None:
    cpu = torch.device("cpu")
    first = (*kept_demo(cpu), kept_demo_bank(), kept_demo_lpips(cpu))
    again = (*kept_demo(cpu), kept_demo_bank(), kept_demo_lpips(cpu))
    assert all(one is other for one, other in zip(first, again, strict=True))
    free_demo()
    anew = (*kept_demo(cpu), kept_demo_bank(), kept_demo_lpips(cpu))
    assert not any(one is other for one, other in zip(first, anew, strict=True))
    free_demo()
