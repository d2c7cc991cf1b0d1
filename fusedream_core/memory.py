"""Batch sizes that adapt to memory: halved after each out-of-memory error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .config.require import require_count

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
# In the messages of CUDA and MPS, of the CPU, and of Windows.
_OUT_OF_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "not enough memory")


class AutoBatchSize:
    """The largest batch size that fits in memory, found by halving.

    The same idea as accelerate's ``find_executable_batch_size``: the work is run again with half
    the batch size when memory runs out. The size that worked is kept for later calls.

    Attributes:
        size: Current batch size; None means unlimited.
    """

    def __init__(self, size: int | None = None) -> None:
        """Start from a batch size, or unlimited.

        Raises:
            ConfigError: If the size is below 1.
        """
        if size is not None:
            require_count("clip_batch", size, 1)
        self.size = size

    def run(self, work: Callable[[int], ResultT], most: int) -> ResultT:
        """Call ``work(size)``, and again with half the size while memory runs out.

        Args:
            work: Takes the batch size. Its result must not depend on the size, and a failed call
                must be repeatable.
            most: Number of items, the largest useful size.

        Raises:
            RuntimeError, MemoryError: If one item does not fit, or the error is another.
        """
        while True:
            size = most if self.size is None else min(self.size, most)
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            # Outside the handler: the traceback keeps the tensors of the failed call alive.
            self.halve(size)

    def map(self, work: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Apply ``work`` to batches of rows, and concatenate the results."""

        def run(size: int) -> Tensor:
            parts = zip(*(block.split(size) for block in rows), strict=True)
            return torch.cat([work(*some) for some in parts])

        return self.run(run, most=len(rows[0]))

    def halve(self, size: int) -> None:
        """Set the batch size to half of the one that failed."""
        self.size = (size + 1) // 2
        logger.warning("Out of memory with %d at once; going on with %d.", size, self.size)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is out-of-memory; not every device has a class for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY_PHRASES)
