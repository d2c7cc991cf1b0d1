"""Same seed, same picture, on CUDA too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable() -> Iterator[None]:
    """While it lasts, and around a function that it decorates, cuDNN's sums keep their order.

    Left to itself, cuDNN may take a way to a convolution's gradient, or through a transposed
    convolution, that adds as the threads happen to come; after some steps of Adam the pictures are
    others. These are switches of the whole process; afterwards they are as they were.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
