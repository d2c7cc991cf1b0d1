"""A cache of the demo models and their bank, one pair per device.

The cached objects are internal and must not be modified; ``load_demo`` returns new ones.
"""

from __future__ import annotations

import functools
import threading

import torch

from ..models.clip.open_clip import OpenClip
from ..models.demo import load_demo, load_demo_lpips
from ..models.gan.biggan import BigGan
from ..models.lpips import Lpips
from ..search.bank import Bank, load_demo_bank

_lock = threading.RLock()


def kept_demo(device: torch.device) -> tuple[BigGan, OpenClip]:
    """Return the cached demo pair on a device; must not be modified."""
    with _lock:
        return _pair_on(device)


def kept_demo_bank() -> Bank:
    """Return the cached demo seed bank; must not be modified."""
    with _lock:
        return _bank()


def kept_demo_lpips(device: torch.device) -> Lpips:
    """Return the cached demo perceptual distance on a device."""
    with _lock:
        return _lpips_on(device)


def free_demo() -> None:
    """Free the demo models that ``generate`` caches for the next call."""
    with _lock:
        for kept in (_pair_on, _bank, _lpips_on):
            kept.cache_clear()


@functools.cache
def _pair_on(device: torch.device) -> tuple[BigGan, OpenClip]:
    gan, clip = load_demo()
    return gan.to(device), clip.to(device)


@functools.cache
def _bank() -> Bank:
    return load_demo_bank()


@functools.cache
def _lpips_on(device: torch.device) -> Lpips:
    return load_demo_lpips().to(device)
