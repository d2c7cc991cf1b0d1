"""Same seed, same picture, on CUDA too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

_lock = threading.Lock()
_inside: list[tuple[bool, bool]] = []  # for each use that lasts, what was set before the first


@contextmanager
def repeatable() -> Iterator[None]:
    """While it lasts, and around a function that it decorates, cuDNN's sums keep their order.

    Left to itself, cuDNN may take a way to a convolution's gradient, or through a transposed
    convolution, that adds as the threads happen to come; after some steps of Adam the pictures are
    others. These are switches of the whole process. Uses may overlap, in threads too; after the
    last of them the switches are as they were.
    """
    cudnn = torch.backends.cudnn
    with _lock:
        _inside.append(_inside[0] if _inside else (cudnn.deterministic, cudnn.benchmark))
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        with _lock:
            before = _inside.pop()
            if not _inside:
                cudnn.deterministic, cudnn.benchmark = before


def repeatable_attention(device: torch.device) -> AbstractContextManager[None]:
    """While it lasts, attention has the same gradient each time.

    The fused forms of accelerators add up parts of it as the threads happen to come, once there are
    more tokens than one block takes; its definition, in float32 within, does not.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type == "cpu" or not torch.is_grad_enabled():
        return nullcontext()
    return sdpa_kernel(SDPBackend.MATH)
