"""Paper section 3.3, Algorithm 2: composition of two images, the part that was never released."""

from __future__ import annotations

from .compose import compose
from .result import Attempt, ComposeResult, ComposeTrace

__all__ = ["Attempt", "ComposeResult", "ComposeTrace", "compose"]
