"""Deterministic cuDNN and attention: the same seed gives the same image on CUDA."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

_lock = threading.Lock()
_active: list[tuple[bool, bool]] = []  # for each open scope, cuDNN's flags before the first


@contextmanager
def deterministic() -> Iterator[None]:
    """Make cuDNN deterministic within a ``with`` block, or within a decorated function.

    By default, cuDNN may choose atomic additions for transposed convolutions and for the gradients
    of convolutions. Their rounding differs between runs, and steps of Adam amplify it. The flags
    are process-wide. Scopes may overlap, also between threads; the last one restores the flags.
    """
    cudnn = torch.backends.cudnn
    with _lock:
        _active.append(_active[0] if _active else (cudnn.deterministic, cudnn.benchmark))
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        with _lock:
            before = _active.pop()
            if not _active:
                cudnn.deterministic, cudnn.benchmark = before


def deterministic_attention(device: torch.device) -> AbstractContextManager[None]:
    """Make the gradient of attention deterministic within a ``with`` block.

    Fused attention accumulates its gradient atomically once the tokens fill more than one block.
    The math backend, which accumulates in float32, does not. It is chosen only where gradients are
    enabled, on accelerators.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type == "cpu" or not torch.is_grad_enabled():
        return nullcontext()
    return sdpa_kernel(SDPBackend.MATH)
