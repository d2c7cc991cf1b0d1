"""Composition: two images optimised together, the first scaled and pasted on the second.

Paper: Liu et al. 2021, section 3.3 and Algorithm 2, whose code was never released. The score of
the composite comes first; among the best by it, the two images should agree (a bilevel problem,
by dynamic-barrier gradient descent). The paper optimises all placements to the end. Here a
pre-search and successive halving drop most of them, and those that are left end where brute force
would have taken them. Several compositions (of other prompts, bases or seeds) are one batch, so
that an accelerator has enough to do when few placements of each are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..autograd import with_gradients
from ..checks import check_bases, check_runs, check_targets
from ..config import AugmentConfig, ComposeConfig
from ..determinism import deterministic
from ..errors import ConfigError
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..optimize.trials import keep_best
from ..state import State, copy_state
from ..types import Basis, Callback, Target
from .barrier import dynamic_barrier
from .candidates import Problem, make_problem
from .objective import FuseObjective
from .placement import Placement, all_placements
from .result import ComposeResult
from .run import PlacementRun, rung_ends


@deterministic()
@with_gradients
def compose(
    gan: Gan,
    clip: ImageTextEncoder,
    targets: Sequence[Target],
    foregrounds: Sequence[Basis],
    backgrounds: Sequence[Basis],
    *,
    config: ComposeConfig,
    augment: AugmentConfig,
    generators: Sequence[torch.Generator],
    placements: Sequence[Placement] | None = None,
    perceptual: Perceptual | None = None,
    foreground_targets: Sequence[Target | None] | None = None,
    background_targets: Sequence[Target | None] | None = None,
    clip_batch: int | None = None,
    callback: Callback | None = None,
    state: State | None = None,
    on_state: Callable[[State], None] | None = None,
) -> list[ComposeResult]:
    """Optimise foreground, background and placement of B compositions: the paper's Algorithm 2.

    ``min over xi_f, xi_b of l_Fuse, among the maxima of s_Fuse``: xi_f and xi_b are the
    over-parameterised latents of foreground and background, s_Fuse the AugCLIP score of the
    composite, l_Fuse the inconsistency of the two images. Each step descends
    ``v = grad l_Fuse - lambda grad s_Fuse`` (``dynamic_barrier``) by Adam.

    Args:
        gan: The generator of all images.
        clip: The encoder.
        targets: The prompt of each composite.
        foregrounds: Latents for each problem's image that is pasted.
        backgrounds: Latents for the image that it is pasted on; may be the same basis.
        config: Steps, halving, consistency, barrier and blending.
        augment: The augmentations of AugCLIP, the same for all placements of a problem.
        generators: A CPU generator for each problem, advanced by three forks; nothing else is drawn
            from. To go on from a state it must be as it was.
        placements: Scales and positions to try; None means the paper's 18.
        perceptual: The distance behind consistency; needed unless that is "none".
        foreground_targets: The prompt of each foreground by itself, or None; the paper has none.
        background_targets: The prompt of each background by itself, or None.
        clip_batch: Most augmented views that CLIP encodes at once; None means all of a
            micro-batch's. Sets the memory, not the result; it is halved where memory runs out.
        callback: Called after each image and each batch of the pre-search, each micro-batch of a
            step and each scored checkpoint; it gets the best of what was just done, B = 1, and may
            raise to stop.
        state: Where to go on, as ``on_state`` was given it; everything else, the generators
            included, must be as it was at the first start. None means from the start.
        on_state: Called after each step with the state of the run: plain data and tensors that
            nothing changes any more.

    Returns:
        For each problem the best composite, its parts and their latents, as it would end alone. Its
        score is of the composite alone, under held-out augmentations.

    Raises:
        ConfigError: If a model, prompt or basis belongs to another, the numbers of problems differ,
            or there is nothing to try.
        CheckpointError: If the state is damaged, or one of other runs.

    References:
        Liu et al. 2021, section 3.3, Algorithm 2; ``PAPER_COMPOSITION`` has its settings.
    """
    check_runs(
        targets=targets,
        foregrounds=foregrounds,
        backgrounds=backgrounds,
        generators=generators,
        foreground_targets=foreground_targets,
        background_targets=background_targets,
    )
    no_targets = [None] * len(targets)
    parts = zip(foreground_targets or no_targets, background_targets or no_targets, strict=True)
    given = zip(targets, parts, foregrounds, backgrounds, generators, strict=True)
    problems = [make_problem(*own) for own in given]
    _check(gan, clip, problems, config, perceptual)
    truncation = foregrounds[0].latent.truncation
    perceptual = None if config.consistency == "none" else perceptual
    limit = AutoBatchSize(clip_batch)
    objective = FuseObjective(gan, clip, perceptual, truncation, config, augment, problems, limit)
    run = PlacementRun(objective, all_placements() if placements is None else placements, callback)
    trials = run.begin() if state is None else run.restored(state)
    for (count, _), end in zip(config.rungs, rung_ends(config), strict=True):
        trials = keep_best(trials, count, run.recent_scores)
        while trials.num_steps < end:
            xi = trials.noisy_latent()  # of the foregrounds, then of the backgrounds
            score, loss, of_loss, of_score = objective.evaluate_with_grad(trials, xi, run.report)
            barrier = dynamic_barrier(
                trials.backward(xi, of_loss),
                trials.backward(xi, of_score),
                beta=config.beta,
                num_runs=len(trials.candidates),
                metric=trials.optimizer.metric() if config.metric == "adam" else None,
            )
            numbers = torch.stack([score, loss, barrier.lambda_, barrier.cosine])
            trials.step(barrier.direction, numbers)
            if on_state is not None:
                on_state(copy_state(run.state_dict(trials)))
    return run.results(trials)


def _check(
    gan: Gan,
    clip: ImageTextEncoder,
    problems: Sequence[Problem],
    config: ComposeConfig,
    perceptual: Perceptual | None,
) -> None:
    """Check that all of it fits together."""
    targets = [target for problem in problems for target in (problem.target, *problem.parts)]
    check_targets([target for target in targets if target is not None], clip.clip_id)
    _check_bases(gan, problems, config)
    if perceptual is not None and perceptual.device != gan.device:
        raise ConfigError(
            f"The perceptual model is on {perceptual.device} and the GAN on {gan.device}; move it "
            "there first."
        )
    if perceptual is None and config.consistency != "none":
        raise ConfigError(
            f"Consistency is {config.consistency!r}, which needs a perceptual model, and none was "
            'given; give one, or set consistency to "none".'
        )


def _check_bases(gan: Gan, problems: Sequence[Problem], config: ComposeConfig) -> None:
    """Check that each problem has bases of one truncation, and that all can be one batch."""
    for problem in problems:
        for basis in (problem.foreground, problem.background):
            check_bases([basis], gan.gan_id)
        taus = [basis.latent.truncation for basis in (problem.foreground, problem.background)]
        if taus[0] != taus[1]:
            raise ConfigError(
                f"The foreground's basis was searched at truncation {taus[0]:g} and the "
                f"background's at {taus[1]:g}, but one composition has one truncation; search both "
                "at the same."
            )
    # As many members as are optimised together; what else the bases hold may differ.
    optimised = [
        basis.pick(torch.arange(problem.num_members(config.num_basis)))
        for problem in problems
        for basis in (problem.foreground, problem.background)
    ]
    check_bases(optimised, gan.gan_id)
