"""Composition: two pictures optimised together, the first scaled and pasted on the second.

Paper: Liu et al. 2021, section 3.3 and Algorithm 2, whose code was never released. The score of
the composite comes first; among the best by it, the two pictures should agree (a bilevel problem,
by dynamic-barrier gradient descent). The paper optimises all configurations of scale and position
to the end. Here a pre-search and successive halving drop the hopeless ones, and those that are left
end where brute force would have taken them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..checks import check_bases, check_targets
from ..clip.base import ImageTextEncoder
from ..config import AugmentConfig, ComposeConfig
from ..errors import ConfigError
from ..gan.base import Gan
from ..memory import Limit
from ..perceptual import Perceptual
from ..placement import Placement, all_placements
from ..types import Basis, Callback, Target
from .compositor import Compositor
from .records import ComposeResult
from .tournament import Tournament


def compose(
    gan: Gan,
    clip: ImageTextEncoder,
    target: Target,
    foreground: Basis,
    background: Basis,
    *,
    config: ComposeConfig,
    augment: AugmentConfig,
    generator: torch.Generator,
    placements: Sequence[Placement] | None = None,
    perceptual: Perceptual | None = None,
    foreground_target: Target | None = None,
    background_target: Target | None = None,
    clip_batch: int | None = None,
    callback: Callback | None = None,
) -> ComposeResult:
    """Optimise a foreground and a background together, and where the one lies on the other.

    Args:
        gan: The generator of both.
        clip: The encoder.
        target: What the composite is to show.
        foreground: Latents for the picture that is pasted.
        background: Latents for the picture that it is pasted on; may be the same basis.
        config: Steps, halving, consistency, barrier and blending.
        augment: The changes of AugCLIP, the same for all configurations.
        generator: CPU generator, advanced by this call.
        placements: Scales and positions to try; None means the paper's 18.
        perceptual: The distance behind consistency; needed unless that is "none".
        foreground_target: What the foreground is to show by itself; the paper has none.
        background_target: What the background is to show by itself; the paper has none.
        clip_batch: Most copies that CLIP sees at once; None means all of a step's. Sets the
            memory, not the result. Where memory runs out, fewer configurations are optimised at
            once, and then fewer copies seen.
        callback: Called after each picture and each batch of the pre-search, each step and each
            scored iterate; it may raise to stop.

    Returns:
        The best composite, its parts and their latents. Its score is of the composite alone, on
        held-out changes.

    Raises:
        ConfigError: If a model, prompt or basis belongs to another, or there is nothing to try.

    References:
        Liu et al. 2021, section 3.3, Algorithm 2; ``PAPER_COMPOSITION`` has its settings.
    """
    parts = (foreground_target, background_target)
    _check(gan, clip, (target, *parts), (foreground, background), config, perceptual)
    chosen = tuple(all_placements() if placements is None else placements)
    if not chosen:
        raise ConfigError("There is no placement to try; give at least one scale and position.")
    distance = perceptual if config.consistency != "none" else None
    tau = foreground.latent.truncation
    compositor = Compositor(gan, clip, target, parts, distance, tau, config, Limit(clip_batch))
    tournament = Tournament(compositor, augment, generator, callback)
    with torch.enable_grad():
        tournament.enter(foreground, background, chosen)
        tournament.play()
        return tournament.crown()


def _check(
    gan: Gan,
    clip: ImageTextEncoder,
    targets: Sequence[Target | None],
    bases: Sequence[Basis],
    config: ComposeConfig,
    perceptual: Perceptual | None,
) -> None:
    """Check that all of it fits together."""
    check_targets([target for target in targets if target is not None], clip.clip_id)
    for basis in bases:
        check_bases([basis], gan.gan_id)
    taus = [basis.latent.truncation for basis in bases]
    if taus[0] != taus[1]:
        raise ConfigError(
            f"The foreground's basis was searched at truncation {taus[0]:g} and the background's "
            f"at {taus[1]:g}, but one composition has one truncation; search both at the same."
        )
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
