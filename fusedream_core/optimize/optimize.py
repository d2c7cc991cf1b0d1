"""The optimisation: Adam on basis latents and mixing weights together, for a batch of runs.

Paper: Liu et al. 2021, section 3.2, eq. 4. B runs (prompts or seeds) are one batch: each has its
own prompt, basis and random numbers, no term couples them, and so each ends as it would alone: on
a CPU to the last bit. On other devices all go through the networks together, which is far quicker
there, and round in another way than alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from .. import rng
from ..augclip.target import encode_target
from ..autograd import with_gradients
from ..checks import check_bases, check_runs
from ..config import AugmentConfig, OptimizeConfig
from ..determinism import deterministic
from ..errors import ConfigError
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..state import State, copy_state, restoring
from ..types import Basis, Callback, Latent, OptimizeResult, Score, Target
from .evaluate import Selection
from .race import Race
from .runs import Runs


@deterministic()
@with_gradients
def optimize(
    gan: Gan,
    clip: ImageTextEncoder,
    targets: Sequence[Target],
    bases: Sequence[Basis],
    *,
    config: OptimizeConfig,
    augment: AugmentConfig,
    generators: Sequence[torch.Generator],
    selector: ImageTextEncoder | None = None,
    clip_batch: int | None = None,
    callback: Callback | None = None,
    state: State | None = None,
    on_state: Callable[[State], None] | None = None,
) -> OptimizeResult:
    """Optimise B runs together.

    Args:
        gan: The generator.
        clip: The encoder.
        targets: The prompt of each run.
        bases: The basis of each run, all of one size and truncation.
        config: Steps, learning rates, form of the weights, what is returned.
        augment: The changes of AugCLIP.
        generators: A CPU generator for each run; nothing else is drawn from.
        selector: A CLIP that the optimisation never meets, which chooses among the iterates and
            gives the score; it reads the prompts anew. None means the encoder itself.
        clip_batch: Most copies that CLIP sees at once; None means all of a step's, on a CPU
            those of one run. Sets the memory, not the result; it is halved where memory runs out.
        callback: Called after each step and each scored mix or iterate; it may raise to stop.
        state: Where to go on, as ``on_state`` was given it; everything else, the generators
            included, must be as it was at the first start. None means from the start.
        on_state: Called after each step, before ``callback``, with where the runs stand: plain data
            and tensors that nothing changes any more.

    Returns:
        For each run the chosen picture, its latent, its score on held-out changes that its
        optimisation never met, and the trace. The best of a few iterates has a slightly
        optimistic score, as the same changes choose and measure it.

    Raises:
        ConfigError: If the numbers of runs differ, a basis or target belongs to another model, or
            a selector is to read a target of pictures.
        CheckpointError: If the state is damaged, or one of other runs.

    References:
        Liu et al. 2021, eq. 4; gnobitab/FuseDream. Differs, unless a preset asks for upstream's
        way: the start is chosen by score, several starts race for a part of the steps, learning
        rates are in units of each block's spread, the best iterate is returned instead of the
        last, and a run may stop early.
    """
    check_runs(targets=targets, bases=bases, generators=generators)
    check_bases(bases, gan.gan_id)
    runs = Runs(gan, clip, targets, bases[0].latent.truncation, augment, AutoBatchSize(clip_batch))
    # Children of each run's generator: the changes that choose the start and judge the result
    # are apart from those that train.
    start_generators = [rng.fork(generator) for generator in generators]
    judge_generators = [rng.fork(generator) for generator in generators]
    selection = Selection(
        runs if selector is None else _judged_by(selector, runs), config, judge_generators, callback
    )
    review = None if config.patience is None else selection.review

    def note(race: State) -> None:
        if on_state is not None:
            on_state(copy_state({"race": race, "selection": selection.state_dict()}))

    race = Race(
        *(runs, bases, config, generators, start_generators, callback, review),
        on_state=None if on_state is None else note,
    )
    if state is not None:
        with restoring():
            selection.restore(state["selection"])
            race.restore(state["race"])
    course = race.run()
    best = selection.choose(course.iterates)
    return OptimizeResult(
        images=torch.stack([one.image for one in best]),
        latent=Latent(
            torch.stack([one.z for one in best]),
            torch.stack([one.y for one in best]),
            runs.truncation,
        ),
        score=Score(
            torch.stack([one.mean for one in best]), torch.stack([one.stderr for one in best])
        ),
        trace=course.trace,
        start=course.starts,
        chosen=tuple(one.name for one in best),
        stopped=course.stopped,
    )


def _judged_by(selector: ImageTextEncoder, runs: Runs) -> Runs:
    """The same runs as another CLIP sees them."""
    if any(target.from_images for target in runs.targets):
        raise ConfigError(
            "A target of pictures cannot be read anew by a second CLIP; leave the selector out, or "
            "use a prompt of text."
        )
    targets = [encode_target(selector, target.prompt) for target in runs.targets]
    return dataclasses.replace(runs, clip=selector, targets=targets)
