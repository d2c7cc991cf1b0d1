"""Image-text encoders: the protocol, open_clip's models, and the encoding of prompts."""

from __future__ import annotations

from .base import ImageTextEncoder
from .open_clip import OpenClip, load_open_clip, load_open_clip_folder
from .target import encode_target

__all__ = [
    "ImageTextEncoder",
    "OpenClip",
    "encode_target",
    "load_open_clip",
    "load_open_clip_folder",
]
