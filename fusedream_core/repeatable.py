"""Same seed, same picture, on CUDA too."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, ContextDecorator, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_lock = threading.Lock()
_inside: list[tuple[bool, bool]] = []  # for each use that lasts, what was set before the first


class repeatable(ContextDecorator):  # noqa: N801 - read like a function
    """While it lasts, and around a function that it decorates, cuDNN's sums keep their order.

    Left to itself, cuDNN may take a way to a convolution's gradient, or through a transposed
    convolution, that adds as the threads happen to come; after some steps of Adam the pictures are
    others. These are switches of the whole process. Uses may overlap, in threads too; after the
    last of them the switches are as they were.
    """

    # No generator: an error that passes through one is kept with all that its frames hold.

    def __enter__(self) -> None:
        """Set the switches."""
        cudnn = torch.backends.cudnn
        with _lock:
            _inside.append(_inside[0] if _inside else (cudnn.deterministic, cudnn.benchmark))
            cudnn.deterministic, cudnn.benchmark = True, False

    def __exit__(self, *_: object) -> None:
        """Set them back, if no other use lasts."""
        cudnn = torch.backends.cudnn
        with _lock:
            before = _inside.pop()
            if not _inside:
                cudnn.deterministic, cudnn.benchmark = before


class repeatable_attention:  # noqa: N801
    """While it lasts, attention on a device has the same gradient each time.

    The fused forms of accelerators add up parts of it as the threads happen to come, once there are
    more tokens than one block takes; its definition, in float32 within, does not. Nothing changes
    on a CPU, and where no gradient will be asked for.
    """

    def __init__(self, device: torch.device) -> None:
        """For work on this device."""
        self._switches: AbstractContextManager[None] = nullcontext()
        if device.type != "cpu" and torch.is_grad_enabled():
            self._switches = sdpa_kernel(SDPBackend.MATH)

    def __enter__(self) -> None:
        """Set the switches."""
        self._switches.__enter__()

    def __exit__(self, *_: object) -> None:
        """Set them back. They are a generator, and are told of no error; see above."""
        self._switches.__exit__(None, None, None)
