"""Which mixture each run starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ..config import OptimizeConfig, Start
from ..types import Basis, Callback
from .latent import Mixture, make_mixture, pick_runs
from .runs import Runs

logger = logging.getLogger(__name__)

_STARTS: tuple[Start, ...] = ("alone", "uniform", "random", "preserving")


def choose_start(
    runs: Runs,
    bases: Sequence[Basis],
    config: OptimizeConfig,
    generators: Sequence[torch.Generator],
    callback: Callback | None,
) -> tuple[Mixture, tuple[Start, ...]]:
    """The mixture that each run starts from; for "best", the best of all kinds by AugCLIP."""
    kinds = _STARTS if config.start == "best" else (config.start,)
    mixtures = [make_start(runs, bases, kind, config, generators) for kind in kinds]
    if len(kinds) == 1:
        return mixtures[0], kinds * len(bases)
    latents = [mixture.latent() for mixture in mixtures]
    _, scores = runs.judge(
        latents, runs.augment.num_augments, generators, stage="start", callback=callback
    )
    choice = scores.mean.argmax(dim=0)  # (S, B) -> (B,)
    starts = tuple(kinds[index] for index in choice.tolist())
    logger.debug("starts chosen by score: %s", starts)
    return pick_runs(mixtures, choice), starts


def make_start(
    runs: Runs,
    bases: Sequence[Basis],
    kind: Start,
    config: OptimizeConfig,
    generators: Sequence[torch.Generator],
) -> Mixture:
    """The mixtures of some bases at one kind of start."""
    return make_mixture(
        bases,
        kind,
        mixing=config.mixing,
        z_clamp=config.z_clamp,
        device=runs.gan.device,
        generators=generators,
    )
