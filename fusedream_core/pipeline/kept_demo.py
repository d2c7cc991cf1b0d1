"""The demo models and their bank, loaded once for each device and kept for the next call.

Only this package reaches them, so that nobody can change them for everybody; who wants to own them
takes ``load_demo``.
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
    """The demo pair on a device, the same objects for each call; not to be changed."""
    with _lock:
        return _pair_on(device)


def kept_demo_bank() -> Bank:
    """The demo pair's seed bank, the same object for each call; not to be changed."""
    with _lock:
        return _bank()


def kept_demo_lpips(device: torch.device) -> Lpips:
    """The demo perceptual distance on a device, the same object for each call."""
    with _lock:
        return _lpips_on(device)


def free_demo() -> None:
    """Forget the demo models that ``generate`` keeps for its next call; it then loads them anew."""
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
