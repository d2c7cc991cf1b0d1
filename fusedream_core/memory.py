"""How much is done at once, and what happens when memory runs out: half as much, and on it goes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .config.require import require_count

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
_TOLD_BY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
)  # CUDA, MPS; CPU; Windows


class Limit:
    """How many copies or pictures are looked at at once. It falls when there is no memory for them.

    Attributes:
        size: Their number as of now; None while there is no limit.
    """

    def __init__(self, size: int | None = None) -> None:
        """Start with a limit, or with none.

        Raises:
            ConfigError: If it is below 1.
        """
        if size is not None:
            require_count("clip_batch", size, 1)
        self.size = size

    def run(self, work: Callable[[int], ResultT], most: int) -> ResultT:
        """Do work that takes any number at once, and again with half of it if memory runs out.

        Args:
            work: Is told how many it may take at once; its result must not depend on it, and it may
                be called again after it failed.
            most: How many there are.
        """
        while True:
            size = most if self.size is None else min(self.size, most)
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            # Not in the handler: the error holds on to all that the work had made.
            self.halve(size)

    def map(self, work: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """What work makes of rows, of as many of them at once as the limit and memory allow."""

        def run(size: int) -> Tensor:
            parts = zip(*(block.split(size) for block in rows), strict=True)
            return torch.cat([work(*some) for some in parts])

        return self.run(run, most=len(rows[0]))

    def halve(self, size: int) -> None:
        """Lower the limit to half of what was tried."""
        self.size = (size + 1) // 2
        logger.warning("Out of memory with %d at once; going on with %d.", size, self.size)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; not every device has a class for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in _TOLD_BY)
