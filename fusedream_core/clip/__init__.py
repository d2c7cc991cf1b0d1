"""Image-text encoders: the protocol, open_clip's models, and the encoding of prompts."""

from __future__ import annotations

from .base import ImageTextEncoder
from .ensemble import EnsembleClip, merge_clips
from .loading import load_open_clip, load_open_clip_file, load_open_clip_folder
from .open_clip import OpenClip
from .target import encode_target, image_target

__all__ = [
    "EnsembleClip",
    "ImageTextEncoder",
    "OpenClip",
    "encode_target",
    "image_target",
    "load_open_clip",
    "load_open_clip_file",
    "load_open_clip_folder",
    "merge_clips",
]
