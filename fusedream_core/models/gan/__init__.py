"""Generators: the protocol, BigGAN and BigGAN-deep."""

from __future__ import annotations

from .base import Gan
from .biggan import BigGan, load_biggan

__all__ = ["BigGan", "Gan", "load_biggan"]
