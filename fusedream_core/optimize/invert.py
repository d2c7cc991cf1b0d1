"""From a picture to a latent that draws it: beyond the paper, so that one can start from a photo.

A search by CLIP's view of the picture finds where to begin; from a few places Adam then lowers the
perceptual distance (LPIPS), the distance in CLIP's view, and that of the colours, and the best of
them is returned. What the GAN cannot draw stays different.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from .adam import Descent
from .latent import make_mixture


@dataclass(frozen=True, slots=True, eq=False)
class InvertResult(Record):
    """The outcome.

    Attributes:
        images: The picture of the latent, shape ``(1, 3, H, W)``, in ``[-1, 1]``.
        latent: The latent.
        distance: Perceptual distance to what was asked for, shape ``(1,)``.
        trace: The loss of the best place after each step, shape ``(steps,)``.
        class_index: The class whose embedding its y began as, shape ``(1,)``.
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
    """Find a latent whose picture looks like a given one.

    Args:
        gan: The generator.
        clip: The encoder.
        perceptual: The distance.
        image: One picture, shape ``(1, 3, H, W)``, in ``[-1, 1]``; its middle square counts.
        config: Search, steps, and what counts how much.
        generator: CPU generator of the search, advanced by this call.
        callback: Called after each batch of the search and each step; it may raise to stop.

    Raises:
        ShapeError, ImageError: If the picture is no such tensor.
        ConfigError: If there are several pictures.
    """
    check_images(image)
    if len(image) != 1:
        raise ConfigError(f"There are {len(image)} pictures; invert one at a time.")
    image = _middle(image)
    (basis,) = search_basis(
        gan,
        clip,
        [image_target(clip, image)],
        config=config.search,
        augment=AugmentConfig(),
        generator=generator,
        callback=callback,
    )
    return _Inversion(gan, clip, perceptual, image, config).run(basis, generator, callback)


class _Inversion:
    """The steps from several places at once, each as it would go alone."""

    def __init__(
        self,
        gan: Gan,
        clip: ImageTextEncoder,
        perceptual: Perceptual,
        image: Tensor,
        config: InvertConfig,
    ) -> None:
        self.gan, self.clip, self.perceptual, self.config = gan, clip, perceptual, config
        self.image, self.limit = image.to(gan.device), AutoBatchSize()
        self.wanted = torch.empty(0)  # the picture at the GAN's size, once that is known
        with torch.no_grad():
            self.features = clip.encode_images(self.image)

    def run(
        self, basis: Basis, generator: torch.Generator, callback: Callback | None
    ) -> InvertResult:
        """Take all steps; after a part of them only the best place goes on."""
        config, truncation = self.config, basis.latent.truncation
        places = [basis.pick(torch.tensor([row])) for row in range(len(basis.scores))]
        mixture = make_mixture(
            places,
            "alone",
            mixing="scalar",
            z_clamp=config.optimize.z_clamp,
            device=self.gan.device,
            generators=[rng.fork(generator) for _ in places],
        )
        descent = Descent(mixture, self.gan, config.optimize, truncation=truncation)
        rows, trace = torch.arange(len(places)), list[Tensor]()
        num_trial = round(config.trial_share * config.optimize.num_steps)
        for step in range(1, config.optimize.num_steps + 1):
            losses, images, gradients = self._look(descent, truncation)
            trace.append(losses.min())
            descent.step(gradients)
            if step == num_trial and len(rows) > 1:
                best = losses.argmin()[None].cpu()
                descent, rows = descent.pick(best), rows[best]
            if callback is not None:
                callback(StepInfo("invert", step, config.optimize.num_steps, -losses, images))
        with torch.no_grad():
            z, y = (block.detach() for block in descent.mixture.latent())
            images = self.gan.decode(z, y, truncation=truncation)
            losses, distances = self._losses(images)
        best = losses.argmin()[None]
        return InvertResult(
            images[best],
            Latent(z[best], y[best], truncation),
            distances[best],
            torch.stack(trace).cpu(),
            basis.class_index[rows[best.cpu()]],
        )

    def _look(self, descent: Descent, truncation: float) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Losses ``(B,)``, pictures, and where the losses of all places rise."""
        latent = descent.mixture.latent()
        z, y = (block.detach() for block in latent)

        def look(size: int) -> list[Tensor]:
            parts = zip(z.split(size), y.split(size), strict=True)
            found = [self._rise(*rows, truncation) for rows in parts]
            return [torch.cat(blocks) for blocks in zip(*found, strict=True)]

        losses, images, *uphill = self.limit.run(look, most=len(z))
        gradients = torch.autograd.grad(latent, descent.parameters, uphill, materialize_grads=True)
        return losses, images, list(gradients)

    def _rise(self, z: Tensor, y: Tensor, truncation: float) -> list[Tensor]:
        """Losses and pictures of some places, and where their losses rise in z and y."""
        leaves = [block.detach().requires_grad_() for block in (z, y)]
        images = self.gan.decode(*leaves, truncation=truncation)
        losses, _ = self._losses(images)
        rise = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        return [losses.detach(), images.detach(), *rise]

    def _losses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is lowered, and the perceptual distance in it, ``(B,)`` each."""
        if self.wanted.shape[-2:] != images.shape[-2:]:
            self.wanted = _shrunk(self.image, images.shape[-2:])
        wanted = self.wanted.expand(len(images), -1, -1, -1)
        distances = self.perceptual.distance_map(images, wanted).mean(dim=(1, 2, 3))
        apart = 1.0 - (self.clip.encode_images(images) * self.features).sum(dim=1)
        colors = (images - wanted).abs().mean(dim=(1, 2, 3))
        config = self.config
        return distances + config.clip_weight * apart + config.color_weight * colors, distances


def _middle(image: Tensor) -> Tensor:
    """The middle square of a picture."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]


def _shrunk(image: Tensor, size: torch.Size) -> Tensor:
    """A picture at another size."""
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, tuple(size), mode="bicubic", antialias=True).clamp(-1.0, 1.0)
