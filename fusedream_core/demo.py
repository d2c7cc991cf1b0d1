"""The demo pair: a small generator and a small CLIP that come with this package."""

from __future__ import annotations

from pathlib import Path

from .clip.open_clip import OpenClip, load_open_clip_folder
from .gan.biggan import BigGan, load_biggan

_DEMO = Path(__file__).parent / "assets" / "demo"


def demo_gan_dir() -> Path:
    """Folder of the demo generator, for ``load_biggan``."""
    return _DEMO / "gan"


def demo_clip_dir() -> Path:
    """Folder of the demo CLIP, for ``load_open_clip_folder``."""
    return _DEMO / "clip"


def load_demo() -> tuple[BigGan, OpenClip]:
    """Load the demo pair onto the CPU.

    Raises:
        CheckpointError: If its files are missing or damaged.
        MissingDependencyError: If a package is not installed.
    """
    return load_biggan(demo_gan_dir()), load_open_clip_folder(demo_clip_dir())
