"""Settings of each stage as frozen dataclasses, and the presets.

Change a setting with ``dataclasses.replace``; every value is checked when the object is made.
"""

from __future__ import annotations

from .composition import (
    ALL,
    PAPER_COMPOSITION,
    BlendMode,
    ComposeConfig,
    CompositionRecipe,
    Consistency,
)
from .invert import InvertConfig
from .plain import from_plain, to_plain
from .presets import DEFAULT, PAPER, REFERENCE_CODE
from .recipe import (
    CANDIDATES_ON_ACCELERATOR,
    CANDIDATES_ON_CPU,
    AdamConfig,
    Augment,
    AugmentConfig,
    Mixing,
    Objective,
    OptimizeConfig,
    Recipe,
    SearchConfig,
    Start,
)

__all__ = [
    "ALL",
    "CANDIDATES_ON_ACCELERATOR",
    "CANDIDATES_ON_CPU",
    "DEFAULT",
    "PAPER",
    "PAPER_COMPOSITION",
    "REFERENCE_CODE",
    "AdamConfig",
    "Augment",
    "AugmentConfig",
    "BlendMode",
    "ComposeConfig",
    "CompositionRecipe",
    "Consistency",
    "InvertConfig",
    "Mixing",
    "Objective",
    "OptimizeConfig",
    "Recipe",
    "SearchConfig",
    "Start",
    "from_plain",
    "to_plain",
]
