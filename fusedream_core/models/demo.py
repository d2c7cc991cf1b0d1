"""The bundled demo models: generator, CLIP, seed bank, perceptual distance."""

from __future__ import annotations

from pathlib import Path

from .clip.loading import load_open_clip_folder
from .clip.open_clip import OpenClip
from .gan.biggan import BigGan, load_biggan
from .lpips import Lpips, load_lpips

_DEMO = Path(__file__).parents[1] / "assets" / "demo"


def demo_gan_dir() -> Path:
    """Return the folder of the demo generator, for ``load_biggan``."""
    return _DEMO / "gan"


def demo_clip_dir() -> Path:
    """Return the folder of the demo CLIP, for ``load_open_clip_folder``."""
    return _DEMO / "clip"


def demo_lpips_path() -> Path:
    """Return the file of the demo perceptual distance, for ``load_lpips``."""
    return _DEMO / "lpips" / "squeeze.safetensors"


def demo_bank_path() -> Path:
    """Return the file of the demo seed bank, for ``load_bank``."""
    return _DEMO / "bank.safetensors"


def load_demo() -> tuple[BigGan, OpenClip]:
    """Load the demo pair onto the CPU.

    Raises:
        CheckpointError: If its files are missing or damaged.
        MissingDependencyError: If a package is not installed.
    """
    return load_biggan(demo_gan_dir()), load_open_clip_folder(demo_clip_dir())


def load_demo_lpips() -> Lpips:
    """Load the demo perceptual distance onto the CPU.

    Raises:
        CheckpointError: If its file is missing or damaged.
        MissingDependencyError: If a package is not installed.
    """
    return load_lpips(demo_lpips_path())
