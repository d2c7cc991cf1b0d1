"""What the benchmarks share: counted passes, shares and means with their intervals, the judge."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy.stats import binomtest
from torch import Tensor

from fusedream_core import Gan, ImageTextEncoder

SCRIPTS = Path(__file__).resolve().parents[1]
OUTPUT = SCRIPTS.parent / "output"
sys.path.insert(0, str(SCRIPTS / "demo_models"))

from judge import Judge, Verdict  # noqa: E402 - from the folder just named

JUDGE_FOLDER = SCRIPTS / "demo_models" / "judge_weights"
__all__ = ["JUDGE_FOLDER", "OUTPUT", "Counter", "Judge", "Verdict", "mean", "percent", "share"]


class Counter:
    """Stands in for a model and counts the pictures that pass through one of its methods.

    A picture that is differentiated counts twice, forward and backward.
    """

    def __init__(self, model: Gan | ImageTextEncoder, method: str) -> None:
        self._model, self._method, self.passes = model, method, 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the model
        value = getattr(self._model, name)
        return self._counted(value) if name == self._method else value

    def _counted(self, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same method, which also counts the pictures of its result."""

        def counted(*args: Tensor, **kwargs: float) -> Tensor:
            out = call(*args, **kwargs)
            self.passes += len(out) * (2 if out.requires_grad else 1)
            return out

        return counted


def share(hits: list[bool]) -> dict[str, float]:
    """A share with Wilson's interval."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return {"value": sum(hits) / len(hits), "low": interval.low, "high": interval.high}


def mean(values: list[float]) -> dict[str, float]:
    """A mean with its normal interval."""
    center = sum(values) / len(values)
    spread = math.sqrt(
        sum((v - center) ** 2 for v in values) / max(1, len(values) - 1) / len(values)
    )
    return {"value": center, "low": center - 1.96 * spread, "high": center + 1.96 * spread}


def percent(cell: dict[str, float]) -> str:
    """A share as it stands in a table."""
    return f"{100 * cell['value']:.0f} % ({100 * cell['low']:.0f}-{100 * cell['high']:.0f})"


def peak_memory() -> float:
    """This process's largest resident memory so far in MB, as Linux tells it.

    Not ``ru_maxrss``, which begins at that of the process which started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024  # type: ignore[index]


def forget_peak() -> None:
    """Let the peak begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
