"""Choice of the device: the requested one, or the first accelerator."""

from __future__ import annotations

import torch

from .errors import ConfigError

_ACCELERATORS = ("cuda", "xpu", "mps")


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
        probe = torch.zeros(1, device=asked)
        probe.tolist()  # some devices fail only at a transfer
    except (AssertionError, ImportError, RuntimeError, TypeError) as error:
        there = ", ".join(dict.fromkeys([_first_accelerator() or "cpu", "cpu"]))
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise ConfigError(
            f"The device {str(asked)!r} cannot be used here ({reason}); take one of: {there}."
        ) from error
    return probe.device


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
