"""How a composition tells what it does."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..types import Callback, StepInfo


class Progress:
    """Tells a callback of one stage of all runs, with the best of what was just done as preview."""

    def __init__(
        self, stage: Literal["pair", "compose", "select"], total: int, callback: Callback | None
    ) -> None:
        """Start with nothing done; ``total`` may still be corrected."""
        self.total, self.done = total, 0
        self._stage, self._callback = stage, callback

    def tell(self, score: Tensor, images: Tensor, *, num: int = 1) -> None:
        """Count ``num`` more steps, which made some pictures of these scores."""
        self.done += num
        if self._callback is not None:
            top = int(score.argmax())
            best = slice(top, top + 1)
            self._callback(StepInfo(self._stage, self.done, self.total, score[best], images[best]))
