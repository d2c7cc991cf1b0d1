"""Settings from the options of the command line."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

from ..compose.placement import POSITIONS, SCALES, Placement, all_placements
from ..config import (
    DEFAULT,
    PAPER,
    PAPER_COMPOSITION,
    REFERENCE_CODE,
    CompositionRecipe,
    Recipe,
    SearchConfig,
)

ConfigT = TypeVar("ConfigT")

_PRESETS = {"default": DEFAULT, "paper": PAPER, "reference": REFERENCE_CODE}
_COMPOSITIONS = {
    "default": CompositionRecipe(),
    "paper": CompositionRecipe(
        search=PAPER.search, compose=PAPER_COMPOSITION, augment=PAPER.augment
    ),
}


def make_recipe(options: argparse.Namespace) -> Recipe:
    """Return the preset with the options applied."""
    recipe = _PRESETS[options.preset or "default"]
    return dataclasses.replace(
        recipe,
        search=_search(recipe.search, options),
        optimize=_changed(recipe.optimize, num_steps=options.steps),
        augment=_changed(recipe.augment, num_augments=options.augments),
    )


def make_composition_recipe(options: argparse.Namespace) -> CompositionRecipe:
    """Return a composition's preset with the options applied."""
    recipe = _COMPOSITIONS[options.preset or "default"]
    compose = _changed(
        recipe.compose,
        optimize=_changed(recipe.compose.optimize, num_steps=options.steps),
        consistency=options.consistency,
        blend=options.blend,
    )
    return dataclasses.replace(
        recipe,
        search=_search(recipe.search, options),
        compose=compose,
        augment=_changed(recipe.augment, num_augments=options.augments),
    )


def make_placements(options: argparse.Namespace) -> tuple[Placement, ...] | None:
    """Return the requested placements; None without scale and position."""
    if options.scale is None and options.position is None:
        return None
    scales = SCALES if options.scale is None else (options.scale,)
    positions = tuple(POSITIONS) if options.position is None else (options.position,)
    return tuple(all_placements(scales, positions))


def _search(config: SearchConfig, options: argparse.Namespace) -> SearchConfig:
    """Apply the options of the search."""
    return _changed(
        config,
        num_candidates=options.candidates,
        num_basis=options.basis,
        classes=options.classes,
        truncation=options.truncation,
    )


def _changed(config: ConfigT, **changes: Any) -> ConfigT:  # noqa: ANN401
    """Replace the settings whose value is not None."""
    asked = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(config, **asked)  # type: ignore[type-var]
