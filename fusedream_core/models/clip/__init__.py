"""Image-text encoders: the protocol, and open_clip's models."""

from __future__ import annotations

from .base import ImageTextEncoder
from .ensemble import EnsembleClip, merge_clips
from .loading import load_open_clip, load_open_clip_file, load_open_clip_folder
from .open_clip import OpenClip

__all__ = [
    "EnsembleClip",
    "ImageTextEncoder",
    "OpenClip",
    "load_open_clip",
    "load_open_clip_file",
    "load_open_clip_folder",
    "merge_clips",
]
