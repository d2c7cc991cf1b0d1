"""The problems that are composed together, and the placements that compete for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .. import rng
from ..types import Basis, Target
from .placement import Box, Placement


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One composition of several: its prompts, its bases, and its own random numbers.

    Attributes:
        target: The prompt of the composite.
        parts: The prompts of foreground and background by themselves, or None.
        foreground: Latents for the image that is pasted.
        background: Latents for the image that it is pasted on; may be the same basis.
        start: For the initial weights, by copies: all placements share them, foreground and
            background have draws of their own. The other two are drawn from by copies as well.
        held_out: For the augmentations that choose the result.
        steps: For the augmentations of the steps.
    """

    target: Target
    parts: tuple[Target | None, Target | None]
    foreground: Basis
    background: Basis
    start: torch.Generator
    held_out: torch.Generator
    steps: torch.Generator

    def num_members(self, most: int) -> int:
        """How many latents of each image are optimised together: as many as both bases have."""
        return min(most, len(self.foreground.scores), len(self.background.scores))


@dataclass(frozen=True, slots=True)
class PlacementCandidate:
    """One placement of a problem.

    Attributes:
        problem: The index of the problem.
        placement: Scale and position of the foreground.
        box: The same in pixels.
    """

    problem: int
    placement: Placement
    box: Box


def make_candidate(
    problem: int, placement: Sequence[float], box: Sequence[int]
) -> PlacementCandidate:
    """A candidate of its fields as plain data."""
    return PlacementCandidate(int(problem), Placement(*placement), Box(*map(int, box)))


def make_problem(
    target: Target,
    parts: tuple[Target | None, Target | None],
    foreground: Basis,
    background: Basis,
    generator: torch.Generator,
) -> Problem:
    """One problem, with children of its generator, so that none moves what another draws."""
    return Problem(
        target,
        parts,
        foreground,
        background,
        start=rng.fork(generator),
        held_out=rng.fork(generator),
        steps=rng.fork(generator),
    )
