"""Which device a run is on: the one that was asked for, or else the first accelerator."""

from __future__ import annotations

import warnings

import torch

from .errors import ConfigError

_ACCELERATORS = ("cuda", "xpu", "mps")
_LONGEST_REASON = 80  # characters of PyTorch's own words; longer ones list all its devices


def find_device(asked: torch.device | str | None = None) -> torch.device:
    """The device that was asked for, as its tensors name it; or else the best there is.

    Args:
        asked: A device or its name, such as "cuda", "cuda:1" or "cpu". None means the first
            accelerator of this machine, or the CPU if it has none.

    Raises:
        ConfigError: If there is no such device, or it cannot be used.
    """
    if asked is None:
        asked = _first_accelerator() or "cpu"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that PyTorch gives up
            probe = torch.zeros(1, device=asked)
        probe.tolist()  # some fail only when they have to give something back
    except Exception as error:  # each kind of device has its own, a missing module among them
        there = ", ".join(_devices_there())
        reason = (str(error).strip().splitlines() or [""])[0]
        why = f" ({reason})" if 0 < len(reason) <= _LONGEST_REASON else ""
        raise ConfigError(
            f"The device {str(asked)!r:.60} cannot be used here{why}; take one of: {there}."
        ) from error
    return probe.device


def _devices_there() -> list[str]:
    """The names of this machine's devices."""
    first = _first_accelerator()
    if first is None:
        return ["cpu"]
    kind = getattr(torch, first, None)
    num = getattr(kind, "device_count", lambda: 1)()
    return [*([first] if num < 2 else [f"{first}:{index}" for index in range(num)]), "cpu"]


def _first_accelerator() -> str | None:
    """The name of the first accelerator of this machine."""
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
    """A device's name as people know it, such as "cuda:0 (NVIDIA H100 80GB HBM3)"."""
    kind = getattr(torch, device.type, None)
    if device.type in ("cuda", "xpu") and kind is not None:
        return f"{device} ({kind.get_device_name(device)})"
    return str(device)
