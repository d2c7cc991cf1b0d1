"""Over-parameterised optimisation: Adam on basis latents and mixing weights together.

Paper: Liu et al. 2021, section 3.2, eq. 4 and Algorithm 1. B problems (prompts or seeds) are one
batch. Each has its own prompt, basis and random numbers, and no term couples them, so that each
ends as it would alone: on a CPU to the last bit. On other devices all go through the networks
together, which is far quicker there, and round in another way than alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import rng
from ..autograd import with_gradients
from ..checks import check_bases, check_runs
from ..config import AugmentConfig, OptimizeConfig
from ..determinism import deterministic
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..state import State, copy_state, restoring
from ..types import Basis, Callback, Latent, OptimizeResult, Score, StepInfo, Target
from .evaluate import best_checkpoints
from .problems import Problems
from .starts import MultiStart, StartCandidate
from .trials import Trials


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
    """Optimise the latents of B problems: the paper's Algorithm 1 after its search.

    ``max over w, xi_1..xi_k of s_AugCLIP(T, g(sum_i w_i xi_i))``: xi_i = (z_i, y_i) are the basis
    latents, w_i their mixing weights, g the generator, T the prompt. Each step draws fresh
    augmentations, and moves all xi_i and w_i by Adam.

    Args:
        gan: The generator g.
        clip: The encoder.
        targets: The prompt of each problem.
        bases: The basis of each problem, all of one size and truncation.
        config: Steps, learning rates, form of the weights, what is returned.
        augment: The augmentations of AugCLIP.
        generators: A CPU generator for each problem; nothing else is drawn from.
        selector: A CLIP that the optimisation does not use, which chooses among the checkpoints and
            gives the score; it encodes the prompts anew. None means the encoder itself.
        clip_batch: Most augmented views that CLIP encodes at once; None means all of a step's, on a
            CPU those of one problem. Sets the memory, not the result; it is halved where memory
            runs out.
        callback: Called after each step and each scored start or checkpoint; it may raise to stop.
        state: Where to go on, as ``on_state`` was given it; everything else, the generators
            included, must be as it was at the first start. None means from the start.
        on_state: Called after each step, before ``callback``, with the state of the run: plain data
            and tensors that nothing changes any more.

    Returns:
        For each problem the chosen image, its latent, its score under held-out augmentations, and
        the trace. The best of a few checkpoints has a slightly optimistic score, as the same
        augmentations choose and measure it.

    Raises:
        ConfigError: If the numbers of problems differ, a basis or target belongs to another model,
            or a selector is to encode a target of images.
        CheckpointError: If the state is damaged, or one of other runs.

    References:
        Liu et al. 2021, eq. 4; gnobitab/FuseDream. Differs, unless a preset asks for upstream's
        way: the start is chosen by score, several starts share the first steps, learning rates are
        in units of each block's spread, and the best checkpoint is returned instead of the last.
    """
    check_runs(targets=targets, bases=bases, generators=generators)
    check_bases(bases, gan.gan_id)
    truncation = bases[0].latent.truncation
    problems = Problems(gan, clip, targets, truncation, augment, AutoBatchSize(clip_batch))
    # Children of each problem's generator: the augmentations that choose the start and those that
    # choose the result are apart from those that train.
    start_generators, held_out = ([rng.fork(own) for own in generators] for _ in range(2))
    scored = problems if selector is None else problems.scored_by(selector)
    starts = MultiStart(problems, bases, config, start_generators, callback)
    if state is None:
        trials = starts.begin(generators)
    else:
        with restoring():
            trials = starts.restored(state, generators)
    first_steps = round(config.trial_share * config.num_steps)
    for count, end in ((starts.num_starts, first_steps), (1, config.num_steps)):
        trials = starts.keep_best(trials, count)
        while trials.num_steps < end:
            xi = trials.noisy_latent()  # sum_i w_i xi_i
            views = num_augments(config, augment, trials.num_steps)
            scores, images, gradients = problems.score_and_grad(
                xi, trials.problems, config.objective, views, trials.generators
            )
            trials.step(trials.backward(xi, [-own for own in gradients]), scores[None])
            if on_state is not None:
                on_state(copy_state(starts.state_dict(trials)))
            if callback is not None:
                best = _best_of_each(scores, len(problems))
                z, y = (block.detach()[best] for block in xi)
                now = trials.num_steps, config.num_steps, scores[best], images[best]
                callback(StepInfo("optimize", *now, Latent(z, y, truncation)))
    return _result(scored, trials, config, held_out, callback)


def num_augments(config: OptimizeConfig, augment: AugmentConfig, step: int) -> int:
    """The augmented views of a step, counted from 0; the first steps have fewer, if so asked."""
    done = step / max(1, config.num_steps - 1)
    share = config.first_augments + (1.0 - config.first_augments) * done
    return max(1, round(augment.num_augments * share))


def _best_of_each(scores: Tensor, num_problems: int) -> Tensor:
    """The row of each problem's best start; rows are ordered by start."""
    best = scores.view(-1, num_problems).argmax(dim=0)
    return best * num_problems + torch.arange(num_problems, device=best.device)


def _result(
    problems: Problems,
    trials: Trials[StartCandidate],
    config: OptimizeConfig,
    generators: Sequence[torch.Generator],
    callback: Callback | None,
) -> OptimizeResult:
    """The best checkpoint of each problem, by its held-out score."""
    named = trials.checkpoints.named()
    scores = problems.evaluate(
        [*named.values()], config.eval_augments, generators, stage="select", callback=callback
    )
    best = best_checkpoints([*named], scores, trials.problems)
    z, y = (
        torch.stack([named[own.checkpoint][block][row] for row, own in enumerate(best)])
        for block in (0, 1)
    )
    mean, stderr = (
        torch.stack([some[own.index, row] for row, own in enumerate(best)])
        for some in (scores.mean, scores.stderr)
    )
    return OptimizeResult(
        images=problems.decode_each(z, y),
        latent=Latent(z, y, problems.truncation),
        score=Score(mean, stderr),
        trace=torch.stack(trials.trace)[:, 0],
        start=tuple(candidate.kind for candidate in trials.candidates),
        chosen=tuple(own.checkpoint for own in best),
    )
