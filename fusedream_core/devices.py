"""Choice of the device: the requested one, or the first accelerator."""

from __future__ import annotations

import warnings

import torch

from .errors import ConfigError

_ACCELERATORS = ("cuda", "xpu", "mps")
_MAX_REASON_LENGTH = 80  # characters; PyTorch's longer reasons list all device types


def find_device(asked: torch.device | str | None = None) -> torch.device:
    """Return the requested device with its index, or the first accelerator.

    Args:
        asked: A device or its name, such as "cuda", "cuda:1" or "cpu". None means the first
            accelerator, or the CPU if there is none.

    Raises:
        ConfigError: If the device does not exist or cannot be used.
    """
    if asked is None:
        asked = _first_accelerator() or "cpu"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated device types
            probe = torch.zeros(1, device=asked)
        probe.tolist()  # some devices fail only at a transfer
    except Exception as error:  # backends raise errors of any type, also of a missing module
        there = ", ".join(_available_devices())
        reason = (str(error).strip().splitlines() or [""])[0]
        why = f" ({reason})" if 0 < len(reason) <= _MAX_REASON_LENGTH else ""
        raise ConfigError(
            f"The device {str(asked)!r:.60} cannot be used here{why}; take one of: {there}."
        ) from error
    return probe.device


def _available_devices() -> list[str]:
    """Return the names of this machine's devices."""
    first = _first_accelerator()
    if first is None:
        return ["cpu"]
    kind = getattr(torch, first, None)
    num = getattr(kind, "device_count", lambda: 1)()
    return [*([first] if num < 2 else [f"{first}:{index}" for index in range(num)]), "cpu"]


def _first_accelerator() -> str | None:
    """Return the type of the first accelerator, or None."""
    if hasattr(torch, "accelerator"):  # since PyTorch 2.6
        found = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        )
        return None if found is None else found.type
    for name in _ACCELERATORS:
        backend = getattr(torch, name, None) or getattr(torch.backends, name, None)
        if backend is not None and backend.is_available():
            return name
    return None


def describe_device(device: torch.device) -> str:
    """Return a device with its product name, such as "cuda:0 (NVIDIA H100 80GB HBM3)"."""
    kind = getattr(torch, device.type, None)
    if device.type in ("cuda", "xpu") and kind is not None:
        return f"{device} ({kind.get_device_name(device)})"
    return str(device)
