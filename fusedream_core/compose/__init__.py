"""Composition of two pictures: the part of FuseDream that was never released.

Paper: Liu et al. 2021, section 3.3 and Algorithm 2.
"""

from __future__ import annotations

from .compose import compose
from .records import Attempt, ComposeResult, ComposeTrace

__all__ = ["Attempt", "ComposeResult", "ComposeTrace", "compose"]
