"""The demo models that come with this package: generator, CLIP, seed bank, perceptual distance."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import torch

from .bank import Bank, load_bank
from .clip.loading import load_open_clip_folder
from .clip.open_clip import OpenClip
from .gan.biggan import BigGan, load_biggan
from .perceptual import Lpips, load_lpips

_DEMO = Path(__file__).parent / "assets" / "demo"


def demo_gan_dir() -> Path:
    """Folder of the demo generator, for ``load_biggan``."""
    return _DEMO / "gan"


def demo_clip_dir() -> Path:
    """Folder of the demo CLIP, for ``load_open_clip_folder``."""
    return _DEMO / "clip"


def demo_lpips_path() -> Path:
    """File of the demo perceptual distance, for ``load_lpips``."""
    return _DEMO / "lpips" / "squeeze.safetensors"


def demo_bank_path() -> Path:
    """File of the demo pair's seed bank, for ``load_bank``."""
    return _DEMO / "bank.safetensors"


def load_demo() -> tuple[BigGan, OpenClip]:
    """Load the demo pair onto the CPU.

    Raises:
        CheckpointError: If its files are missing or damaged.
        MissingDependencyError: If a package is not installed.
    """
    return load_biggan(demo_gan_dir()), load_open_clip_folder(demo_clip_dir())


def load_demo_bank() -> Bank:
    """Load the demo pair's seed bank.

    Raises:
        CheckpointError: If its file is missing or damaged.
    """
    return load_bank(demo_bank_path())


def load_demo_lpips() -> Lpips:
    """Load the demo perceptual distance onto the CPU.

    Raises:
        CheckpointError: If its file is missing or damaged.
        MissingDependencyError: If a package is not installed.
    """
    return load_lpips(demo_lpips_path())


# Loaded once for each device and kept. Only this package reaches them, so that nobody can change
# them for everybody; who wants to own them takes ``load_demo``.
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
