"""Composition: two pictures optimised together, the first scaled and pasted on the second.

Paper: Liu et al. 2021, section 3.3 and Algorithm 2, whose code was never released. The score of
the composite comes first; among the best by it, the two pictures should agree (a bilevel problem,
by dynamic-barrier gradient descent). The paper optimises all configurations of scale and position
to the end. Here a pre-search and successive halving drop the hopeless ones, and those that are left
end where brute force would have taken them. Several compositions (of other prompts, bases or seeds)
are one batch, so that an accelerator has enough to do when few configurations of each are left.
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
from ..state import State, restoring
from ..types import Basis, Callback, Target
from .entries import Run, make_run
from .objective import Compositor
from .placement import Placement, all_placements
from .records import ComposeResult
from .tournament import Tournament


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
    """For each of B runs, optimise foreground and background, and where the one lies on the other.

    Args:
        gan: The generator of all pictures.
        clip: The encoder.
        targets: What the composite of each run is to show.
        foregrounds: Latents for each run's picture that is pasted.
        backgrounds: Latents for the picture that it is pasted on; may be the same basis.
        config: Steps, halving, consistency, barrier and blending.
        augment: The changes of AugCLIP, the same for all configurations of a run.
        generators: A CPU generator for each run, advanced by this call; nothing else is drawn from.
        placements: Scales and positions to try; None means the paper's 18.
        perceptual: The distance behind consistency; needed unless that is "none".
        foreground_targets: What each foreground is to show by itself, or None; the paper has none.
        background_targets: What each background is to show by itself, or None.
        clip_batch: Most copies that CLIP sees at once; None means all of a step's. Sets the
            memory, not the result. Where memory runs out, fewer configurations are optimised at
            once, and then fewer copies seen.
        callback: Called after each picture and each batch of the pre-search, each step and each
            scored iterate, of whichever runs; it is told the best of what was just done, B = 1,
            and may raise to stop.
        state: Where to go on, as ``on_state`` was given it; everything else, the generators
            included, must be as it was at the first start. None means from the start.
        on_state: Called after each step, before ``callback``, with where the runs stand: plain data
            and tensors that nothing changes any more.

    Returns:
        For each run the best composite, its parts and their latents, as it would end alone. Its
        score is of the composite alone, on held-out changes.

    Raises:
        ConfigError: If a model, prompt or basis belongs to another, the numbers of runs differ,
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
    nobody = [None] * len(targets)
    parts = zip(foreground_targets or nobody, background_targets or nobody, strict=True)
    given = zip(targets, parts, foregrounds, backgrounds, generators, strict=True)
    runs = [make_run(*own) for own in given]
    _check(gan, clip, runs, config, perceptual)
    chosen = tuple(all_placements() if placements is None else placements)
    if not chosen:
        raise ConfigError("There is no placement to try; give at least one scale and position.")
    distance = perceptual if config.consistency != "none" else None
    tau = foregrounds[0].latent.truncation
    compositor = Compositor(gan, clip, distance, tau, config, AutoBatchSize(clip_batch))
    tournament = Tournament(compositor, augment, runs, callback, on_state)
    if state is None:
        tournament.enter(chosen)
    else:
        with restoring():
            tournament.restore(state)
    tournament.play()
    return tournament.crown()


def _check(
    gan: Gan,
    clip: ImageTextEncoder,
    runs: Sequence[Run],
    config: ComposeConfig,
    perceptual: Perceptual | None,
) -> None:
    """Check that all of it fits together."""
    targets = [target for run in runs for target in (run.target, *run.parts)]
    check_targets([target for target in targets if target is not None], clip.clip_id)
    _check_bases(gan, runs, config)
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


def _check_bases(gan: Gan, runs: Sequence[Run], config: ComposeConfig) -> None:
    """Check that each run has bases of one truncation, and that all can be one batch."""
    for run in runs:
        for basis in (run.foreground, run.background):
            check_bases([basis], gan.gan_id)
        taus = [basis.latent.truncation for basis in (run.foreground, run.background)]
        if taus[0] != taus[1]:
            raise ConfigError(
                f"The foreground's basis was searched at truncation {taus[0]:g} and the "
                f"background's at {taus[1]:g}, but one composition has one truncation; search both "
                "at the same."
            )
    # As many members as are optimised together; what else the bases hold may differ.
    optimised = [
        basis.pick(torch.arange(run.num_members(config.num_basis)))
        for run in runs
        for basis in (run.foreground, run.background)
    ]
    check_bases(optimised, gan.gan_id)
