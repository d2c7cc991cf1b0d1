"""The optimisation: Adam on basis latents and mixing weights together, for a batch of runs.

Paper: Liu et al. 2021, section 3.2, eq. 4. B runs (prompts or seeds) are one batch: each has its
own prompt, basis and random numbers, no term couples them, and so each ends as it would alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from . import rng
from .checks import check_bases
from .clip.base import ImageTextEncoder
from .config import AugmentConfig, OptimizeConfig, Start
from .descent import Descent
from .errors import ConfigError
from .gan.base import Gan
from .mixing import Mixture, make_mixture, pick_runs, take
from .runs import Iterates, LatentPair, Runs
from .types import Basis, Callback, Latent, OptimizeResult, Score, StepInfo, Target

logger = logging.getLogger(__name__)

_STARTS: tuple[Start, ...] = ("alone", "uniform", "random", "preserving")


def optimize(
    gan: Gan,
    clip: ImageTextEncoder,
    targets: Sequence[Target],
    bases: Sequence[Basis],
    *,
    config: OptimizeConfig,
    augment: AugmentConfig,
    generators: Sequence[torch.Generator],
    callback: Callback | None = None,
) -> OptimizeResult:
    """Optimise B runs as one batch.

    Args:
        gan: The generator.
        clip: The encoder.
        targets: The prompt of each run.
        bases: The basis of each run, all of one size and truncation.
        config: Steps, learning rates, form of the weights, what is returned.
        augment: The changes of AugCLIP.
        generators: A CPU generator for each run; nothing else is drawn from.
        callback: Called after each step and each scored mix or iterate; it may raise to stop.

    Returns:
        For each run the chosen picture, its latent, its score on held-out changes that its
        optimisation never met, and the trace. The best of a few iterates has a slightly
        optimistic score, as the same changes choose and measure it.

    Raises:
        ConfigError: If the numbers of runs differ, or a basis or target belongs to another
            model.

    References:
        Liu et al. 2021, eq. 4; gnobitab/FuseDream. Differs, unless a preset asks for upstream's
        way: the start is chosen by score, learning rates are in units of each block's spread,
        and the best iterate is returned instead of the last.
    """
    _check_runs(targets, bases, generators)
    check_bases(bases, gan.gan_id)
    runs = Runs(gan, clip, targets, bases[0].latent.truncation, augment)
    # Children of each run's generator: the changes that choose the start and judge the result
    # are apart from those that train.
    start_generators = [rng.fork(generator) for generator in generators]
    judge_generators = [rng.fork(generator) for generator in generators]
    with torch.enable_grad():
        mixture, starts = _choose_start(runs, bases, config, start_generators, callback)
        iterates, trace = _descend(runs, mixture, config, generators, callback)
    names, latents = zip(*iterates.candidates().items(), strict=True)
    images, scores = runs.judge(
        latents, config.eval_augments, judge_generators, stage="select", callback=callback
    )
    best = scores.mean.argmax(dim=0)  # (S, B) -> (B,)
    return OptimizeResult(
        images=take(images, best),
        latent=Latent(
            take(torch.stack([z for z, _ in latents]), best),
            take(torch.stack([y for _, y in latents]), best),
            runs.truncation,
        ),
        score=Score(take(scores.mean, best), take(scores.stderr, best)),
        trace=trace,
        start=starts,
        chosen=tuple(names[index] for index in best.tolist()),
    )


def _check_runs(
    targets: Sequence[Target], bases: Sequence[Basis], generators: Sequence[torch.Generator]
) -> None:
    """Check that there are runs, and that every run has one of each."""
    if not 0 < len(targets) == len(bases) == len(generators):
        raise ConfigError(
            f"There are {len(targets)} targets, {len(bases)} bases and {len(generators)} "
            "generators, but each run needs one of each."
        )


def _choose_start(
    runs: Runs,
    bases: Sequence[Basis],
    config: OptimizeConfig,
    generators: Sequence[torch.Generator],
    callback: Callback | None,
) -> tuple[Mixture, tuple[Start, ...]]:
    """The mixture that each run starts from; for "best", the best of all kinds by AugCLIP."""
    kinds = _STARTS if config.start == "best" else (config.start,)
    mixtures = [
        make_mixture(
            bases,
            kind,
            mixing=config.mixing,
            z_clamp=config.z_clamp,
            device=runs.gan.device,
            generators=generators,
        )
        for kind in kinds
    ]
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


def _descend(
    runs: Runs,
    mixture: Mixture,
    config: OptimizeConfig,
    generators: Sequence[torch.Generator],
    callback: Callback | None,
) -> tuple[Iterates, Tensor]:
    """Take all steps. Returns the iterates worth keeping, and the trace ``(steps, B)``."""
    descent = Descent(mixture, runs.gan, config, truncation=runs.truncation)
    iterates = Iterates(config)
    trace = []
    for step in range(config.num_steps):
        latent = mixture.latent()
        iterates.observe(step, latent)
        images = runs.decode(*_add_noise(latent, descent, generators))
        scores = runs.objective(images, config.objective, generators)
        # A sum, so that no run's gradient depends on B; zeros for what a GAN does not look at.
        total = -scores.sum()
        descent.step(torch.autograd.grad(total, descent.parameters, materialize_grads=True))

        trace.append(scores.detach())
        if callback is not None:
            info = StepInfo(
                "optimize", step + 1, config.num_steps, scores.detach(), images.detach()
            )
            callback(info)
    iterates.observe(config.num_steps, mixture.latent())
    return iterates, torch.stack(trace)


def _add_noise(
    latent: LatentPair, descent: Descent, generators: Sequence[torch.Generator]
) -> LatentPair:
    """Latents with each run's own noise; drawn only if there is any."""
    std = descent.config.latent_noise_std * descent.decay
    if std == 0.0:
        return latent

    def noisy(block: Tensor, unit: float) -> Tensor:
        rows = [rng.normal((block.shape[1],), generator=generator) for generator in generators]
        return block + torch.stack(rows).to(block) * (std * unit)

    return noisy(latent[0], descent.units[0]), noisy(latent[1], descent.units[1])
