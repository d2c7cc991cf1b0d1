"""Configurations as they were saved, to go on with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config import AugmentConfig
from ..state import State, restore_generators
from .configurations import Configurations, make_configurations
from .entries import Entry, Run
from .objective import Compositor


def restore_configurations(
    compositor: Compositor, augment: AugmentConfig, runs: Sequence[Run], state: State
) -> Configurations:
    """Configurations that stand where saved ones stood.

    Raises:
        CheckpointError: If they are of other settings.
    """
    entries = [Entry.restored(own, runs) for own in state["entries"]]
    num = compositor.config.num_basis
    rows = {entry.run: torch.arange(entry.run.num_members(num)) for entry in entries}
    fresh = make_configurations(
        compositor,
        augment,
        entries,
        [entry.run.foreground.pick(rows[entry.run]) for entry in entries],
        [entry.run.background.pick(rows[entry.run]) for entry in entries],
    )
    descent = fresh.descent.restored(state["descent"])
    latent = descent.mixture.latent()
    generators = {runs[int(index)]: torch.Generator() for index in state["generators"]}
    restore_generators(generators.values(), state["generators"].values())
    trace = [] if state["trace"] is None else list(state["trace"].to(latent[0].device))
    iterates = fresh.iterates.restored(state["iterates"], latent)
    return Configurations(compositor, augment, entries, descent, iterates, generators, trace)
