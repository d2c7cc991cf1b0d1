"""An ensemble of CLIPs: an adversarial image of one is unlikely to fool the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ... import rng
from ...config.require import require
from ...determinism import deterministic
from ...errors import ConfigError
from ...memory import AutoBatchSize
from ...types import Callback, StepInfo
from ..gan.base import Gan
from .base import ImageTextEncoder
from .fuse import activation_floats
from .words import unknown_words

_ENCODE_BATCH = 8


class EnsembleClip(nn.Module):
    """An ensemble of encoders that follows the ``ImageTextEncoder`` protocol.

    Its cosine is the weighted mean of the members' cosines, whose standard deviations differ by
    model. Weights inversely proportional to them rank images as a mean of z-scores does.

    Attributes:
        clip_id: Hash of the members' names and weights.
        image_size: Largest input height and width of a member in pixels.
    """

    def __init__(self, clips: Sequence[ImageTextEncoder], weights: Sequence[float]) -> None:
        """Combine encoders; they are not copied.

        Args:
            clips: Two or more encoders.
            weights: One weight per encoder, above 0; only their ratios matter.

        Raises:
            ConfigError: If there are fewer than two encoders, or the weights are invalid.
        """
        super().__init__()
        if len(clips) < 2 or len(clips) != len(weights):
            raise ConfigError(
                f"There are {len(clips)} CLIPs and {len(weights)} weights, but an ensemble needs "
                "two CLIPs or more, and a weight for each."
            )
        for weight in weights:
            require(0.0 < weight < float("inf"), "weight", weight, "a number above 0")
        self._clips = list(clips)
        # Members that are modules move with this one.
        self.members = nn.ModuleList([clip for clip in clips if isinstance(clip, nn.Module)])
        self.shares = [weight / sum(weights) for weight in weights]
        named = [
            f"{clip.clip_id} x {share:.6f}" for clip, share in zip(clips, self.shares, strict=True)
        ]
        self.clip_id = f"ensemble-{hashlib.sha256(' + '.join(named).encode()).hexdigest()[:12]}"
        sizes = [getattr(clip, "image_size", (0, 0)) for clip in clips]
        self.image_size: tuple[int, int] = max(sizes)
        self.eval()

    @property
    def activation_floats(self) -> int:
        """Floats that all members save per image for the backward pass, approximately."""
        usual = activation_floats(None, self.image_size)
        return sum(getattr(clip, "activation_floats", usual) for clip in self._clips)

    @property
    def device(self) -> torch.device:
        """Device of the features."""
        return self._clips[0].device

    def encode_images(self, images: Tensor) -> Tensor:
        """Concatenate the members' image features, each scaled by the root of its share."""
        return self._joined([clip.encode_images(images) for clip in self._clips])

    forward = encode_images

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Concatenate the members' text features in the same way."""
        return self._joined([clip.encode_text(texts) for clip in self._clips])

    def truncates(self, text: str) -> bool:
        """Return whether a text is longer than the context of any member."""
        return any(clip.truncates(text) for clip in self._clips)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return words that any member was not trained on."""
        named = [word for clip in self._clips for word in unknown_words(clip, text)]
        return tuple(dict.fromkeys(named))

    def _joined(self, features: list[Tensor]) -> Tensor:
        """Concatenate unit-norm features ``(N, D_i)`` to unit-norm ``(N, sum of D_i)``."""
        return torch.cat(
            [share**0.5 * own for share, own in zip(self.shares, features, strict=True)], dim=1
        )


@deterministic()
def merge_clips(
    clips: Sequence[ImageTextEncoder],
    gan: Gan,
    *,
    generator: torch.Generator,
    shares: Sequence[float] | None = None,
    num_pictures: int = 64,
    batch_size: int = 8,
    callback: Callback | None = None,
) -> EnsembleClip:
    """Combine encoders with weights in units of the standard deviation of their cosines.

    The standard deviations are measured on random images of random classes and the names of those
    classes.

    Args:
        clips: Two or more encoders; they are not copied.
        gan: The generator of the images.
        generator: CPU generator, advanced by this call.
        shares: Weight of each encoder, above 0; None means equal weights.
        num_pictures: Number of images, at least 2.
        batch_size: Images per decoded batch.
        callback: Called after each batch of images; it may raise to stop.

    Raises:
        ConfigError: If there are fewer than two encoders, a share is not above 0, or the cosines of
            an encoder do not vary.
    """
    index = rng.integers((num_pictures,), 0, len(gan.class_names) - 1, generator=generator)
    z = gan.sample_z(num_pictures, truncation=gan.truncation, generator=generator)
    images, rows = [], torch.arange(num_pictures).split(batch_size)
    with torch.no_grad():
        for step, part in enumerate(rows, start=1):
            y = gan.embed(index[part])
            images.append(gan.decode(z[part.to(z.device)], y, truncation=gan.truncation))
            if callback is not None:
                score = torch.zeros(1)
                callback(StepInfo("score", step, len(rows), score, images[-1][:1]))
    texts = [f"a photo of a {gan.class_names[number]}" for number in index.unique().tolist()]
    stds = [spread_of(clip, torch.cat(images), texts) for clip in clips]
    wanted = [1.0] * len(clips) if shares is None else shares
    return EnsembleClip(clips, [share / std for share, std in zip(wanted, stds, strict=True)])


def spread_of(clip: ImageTextEncoder, images: Tensor, texts: Sequence[str]) -> float:
    """Return the standard deviation of an encoder's cosines over images.

    Args:
        clip: The encoder.
        images: Images, shape ``(N, 3, H, W)``, in ``[-1, 1]``.
        texts: Texts of the cosines.

    Returns:
        The standard deviation over images, as a root mean square over texts.

    Raises:
        ConfigError: If there are fewer than two images, or the cosines do not vary.
    """
    require(len(images) >= 2, "images", len(images), "two images or more")
    with torch.no_grad():
        features = AutoBatchSize(_ENCODE_BATCH).map(clip.encode_images, images)
        cosines = features @ clip.encode_text(texts).T  # (N, T)
    spread = float(cosines.var(dim=0).mean().sqrt())
    require(spread > 0.0, "spread", spread, "above 0: this CLIP encodes all images alike")
    return spread
