"""Calls timed in turn, and what the machine could do at best."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fusedream_core import BigGan, OpenClip, load_demo

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


def demo_on(device: torch.device) -> tuple[BigGan, OpenClip]:
    """The demo pair on a device."""
    gan, clip = load_demo()
    return gan.to(device), clip.to(device)


def settle() -> None:
    """Wait until an accelerator, if there is one, has done what it was asked to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes, on whatever device."""
    settle()
    begin = time.perf_counter()
    call()
    settle()
    return time.perf_counter() - begin


def compare(name: str, calls: dict[str, Callable[[], object]], rounds: int) -> list[Row]:
    """Time calls in turn; the first is what the others are compared with."""
    seconds: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        call()  # the first call sets things up
    for _ in range(rounds):
        for label, call in calls.items():
            seconds[label].append(seconds_of(call))
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
def flops_per_second(device: torch.device) -> float:
    """What a device can do, with as many threads as the rest: a large product in float32."""
    side = 2048 if device.type == "cpu" else 8192
    square = torch.rand(side, side, device=device)
    square @ square
    return 2 * side**3 / min(seconds_of(lambda: square @ square) for _ in range(5))


def flops_of(call: Callable[[], object]) -> int:
    """Products and sums of a call, by torch's count of its convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
