"""From an image to a latent that draws it: beyond the paper, so that one can start from a photo.

A search by CLIP's features of the image finds where to begin. From a few places Adam then lowers
the perceptual distance (LPIPS), the distance of CLIP's features, and that of the colours, and the
best of them is returned. What the GAN cannot draw stays different.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import rng
from ..augclip.target import image_target
from ..autograd import with_gradients
from ..checks import check_images
from ..config import AugmentConfig, InvertConfig
from ..determinism import deterministic
from ..errors import ConfigError
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..search.search import search_basis
from ..types import Basis, Callback, Latent, Record, StepInfo
from .latent import make_latent
from .trials import Trials, in_micro_batches, keep_best, start_trials

# Of the distances of CLIP features and of pixels, beside LPIPS.
_CLIP_WEIGHT, _COLOR_WEIGHT = 0.3, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class InvertResult(Record):
    """The outcome.

    Attributes:
        images: The image of the latent, shape ``(1, 3, H, W)``, in ``[-1, 1]``.
        latent: The latent.
        distance: Perceptual distance to the given image, shape ``(1,)``.
        trace: The loss of the best start at each step, shape ``(steps,)``.
        class_index: The class whose embedding its y started as, shape ``(1,)``.
    """

    images: Tensor
    latent: Latent
    distance: Tensor
    trace: Tensor
    class_index: Tensor


@deterministic()
@with_gradients
def invert_image(
    gan: Gan,
    clip: ImageTextEncoder,
    perceptual: Perceptual,
    image: Tensor,
    *,
    config: InvertConfig,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> InvertResult:
    """Find a latent whose image is near to a given one.

    Args:
        gan: The generator.
        clip: The encoder.
        perceptual: The distance.
        image: One image, shape ``(1, 3, H, W)``, in ``[-1, 1]``; its middle square counts.
        config: Search, steps, and the weights of the distances.
        generator: CPU generator of the search, advanced by this call.
        callback: Called after each batch of the search and each step; it may raise to stop.

    Raises:
        ShapeError, ImageError: If the image is no such tensor.
        ConfigError: If there are several images.
    """
    check_images(image)
    if len(image) != 1:
        raise ConfigError(f"There are {len(image)} images; invert one at a time.")
    wanted = _middle(image).to(gan.device)
    (basis,) = search_basis(
        gan,
        clip,
        [image_target(clip, wanted)],
        config=config.search,
        augment=AugmentConfig(),
        generator=generator,
        callback=callback,
    )
    trials = _start(gan, basis, config, generator)
    objective = _Objective(gan, clip, perceptual, wanted, basis.latent.truncation)
    num_starts, num_steps = len(trials.candidates), config.optimize.num_steps
    trace = list[Tensor]()
    first_steps = round(config.trial_share * num_steps)
    for count, end in ((num_starts, first_steps), (1 if first_steps else num_starts, num_steps)):
        trials = keep_best(trials, count, _last_scores)
        while trials.num_steps < end:
            latent = trials.noisy_latent()
            losses, images, *gradients = objective.loss_and_grad(*latent)
            trials.step(trials.backward(latent, gradients), losses[None])
            trace.append(losses.min())
            if callback is not None:
                z, y = (block.detach() for block in latent)
                now = Latent(z, y, basis.latent.truncation)
                callback(StepInfo("invert", trials.num_steps, num_steps, -losses, images, now))
    return objective.result(trials, basis, trace)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One start: a member of the basis."""

    problem: int
    member: int


def _last_scores(trials: Trials[_Candidate]) -> list[float]:
    """The scores of the last step, minus the losses."""
    return [-loss for loss in trials.trace[-1][0].tolist()]


def _start(
    gan: Gan, basis: Basis, config: InvertConfig, generator: torch.Generator
) -> Trials[_Candidate]:
    """Each member of a basis by itself, as one problem's candidates.

    A mix of one member has the weight 1 at any kind of start, so ``start`` makes no difference.
    """
    members = range(len(basis.scores))
    latent = make_latent(
        [basis.pick(torch.tensor([row])) for row in members],
        "alone",
        mixing=config.optimize.mixing,
        device=gan.device,
        generators=[rng.fork(generator) for _ in members],
    )
    return start_trials(
        latent,
        [_Candidate(0, row) for row in members],
        gan,
        config.optimize,
        truncation=basis.latent.truncation,
        generators=[generator],
    )


@dataclass(eq=False)
class _Objective:
    """The distance between the images of latents and a given image ``wanted``, ``(1, 3, H, W)``.

    ``features`` are CLIP's of that image, ``(1, D)``, before it is resized to the GAN's size.
    """

    gan: Gan
    clip: ImageTextEncoder
    perceptual: Perceptual
    wanted: Tensor
    truncation: float
    limit: AutoBatchSize = field(default_factory=AutoBatchSize)

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.features = self.clip.encode_images(self.wanted)

    def loss_and_grad(self, z: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Losses ``(R,)``, images, and the gradients of each row's loss; all without graph."""

        def rise(rows: list[int], _: int) -> tuple[Tensor, ...]:
            leaves = [block.detach()[rows].requires_grad_() for block in (z, y)]
            images = self.gan.decode(*leaves, truncation=self.truncation)
            losses = self.losses(images)[0]
            gradients = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
            return losses.detach(), images.detach(), *gradients

        return in_micro_batches(self.limit, [list(range(len(z)))], 1, rise)

    def losses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The loss that is lowered, and the perceptual distance in it, ``(R,)`` each."""
        if self.wanted.shape[-2:] != images.shape[-2:]:
            self.wanted = _shrunk(self.wanted, images.shape[-2:])
        wanted = self.wanted.expand_as(images)
        distances = self.perceptual.distance_map(images, wanted).mean(dim=(1, 2, 3))
        apart = 1.0 - (self.clip.encode_images(images) * self.features).sum(dim=1)
        colors = (images - wanted).abs().mean(dim=(1, 2, 3))
        return distances + _CLIP_WEIGHT * apart + _COLOR_WEIGHT * colors, distances

    @torch.no_grad()
    def result(self, trials: Trials[_Candidate], basis: Basis, trace: list[Tensor]) -> InvertResult:
        """The latent with the least loss after the last step."""
        z, y = trials.optimizer.latent.mixed()
        images = self.gan.decode(z, y, truncation=self.truncation)
        losses, distances = self.losses(images)
        best = losses.argmin()[None]
        member = torch.tensor([trials.candidates[int(best)].member])
        return InvertResult(
            images[best],
            Latent(z[best], y[best], self.truncation),
            distances[best],
            torch.stack(trace).cpu(),
            basis.class_index[member],
        )


def _middle(image: Tensor) -> Tensor:
    """The middle square of an image."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]


def _shrunk(image: Tensor, size: torch.Size) -> Tensor:
    """An image at another size."""
    return F.interpolate(image, tuple(size), mode="bicubic", antialias=True).clamp(-1.0, 1.0)
