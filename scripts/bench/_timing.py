"""Calls timed in turn, and what the machine could do at best."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Row = dict[str, Any]
PROMPTS = (
    "a red apple",
    "a blue dog",
    "a pink pig",
    "a green frog",
    "an orange fox",
    "a yellow bus",
    "a white rabbit on a red background",
    "a purple house",
)


def compare(name: str, calls: dict[str, Callable[[], object]], rounds: int) -> list[Row]:
    """Time calls in turn; the first is what the others are compared with."""
    seconds: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        call()  # the first call sets things up
    for _ in range(rounds):
        for label, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[label].append(time.perf_counter() - begin)
    first = next(iter(calls))
    rows = []
    for label, own in seconds.items():
        ratios = [a / b for a, b in zip(seconds[first], own, strict=True)]
        rows.append(
            {
                "what": name,
                "which": label,
                "seconds": statistics.median(own),
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
            }
        )
    return rows


@functools.cache
def flops_per_second() -> float:
    """What this machine can do, with as many threads as the rest: a large product in float32."""
    square = torch.rand(2048, 2048)
    square @ square
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        square @ square
        seconds.append(time.perf_counter() - begin)
    return 2 * 2048**3 / min(seconds)


def flops_of(call: Callable[[], object]) -> int:
    """Products and sums of a call, by torch's count of its convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
