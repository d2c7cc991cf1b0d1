"""Several CLIPs as one: a picture that fools one of them is not likely to fool the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ... import rng
from ...config.require import require
from ...errors import ConfigError
from ...memory import Limit
from ...types import Callback, StepInfo
from ..gan.base import Gan
from .base import ImageTextEncoder
from .fuse import kept_numbers
from .words import unknown_words

_AT_ONCE = 8  # pictures looked at together


class EnsembleClip(nn.Module):
    """Encoders side by side, as one that follows the ``ImageTextEncoder`` protocol.

    Its cosine is the mean of theirs by the weights. Cosines of different models spread differently;
    weights in proportion to one over the spread count each model's in its own units, as a mean of
    z-scores would rank them.

    Attributes:
        clip_id: Name of the members' weights, and of how they are weighed.
        image_size: Height and width of the largest pictures that a member sees, in pixels.
    """

    def __init__(self, clips: Sequence[ImageTextEncoder], weights: Sequence[float]) -> None:
        """Put encoders together; they are not copied.

        Args:
            clips: Two or more.
            weights: How much each counts, above 0; only their ratios matter.

        Raises:
            ConfigError: If there are fewer than two encoders, or the weights are not one for each
                and above 0.
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
        # So that the members that are modules move with this one; others move as they do.
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
    def kept_numbers(self) -> int:
        """How many numbers all members keep of one picture for its gradient, roughly."""
        usual = kept_numbers(None, self.image_size)
        return sum(getattr(clip, "kept_numbers", usual) for clip in self._clips)

    @property
    def device(self) -> torch.device:
        """Where features come out."""
        return self._clips[0].device

    def encode_images(self, images: Tensor) -> Tensor:
        """All members' features beside each other, each scaled by the root of its share."""
        return self._joined([clip.encode_images(images) for clip in self._clips])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """The same of texts."""
        return self._joined([clip.encode_text(texts) for clip in self._clips])

    def truncates(self, text: str) -> bool:
        """Whether the end of this text is cut off for any member."""
        return any(clip.truncates(text) for clip in self._clips)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of this text that any member cannot know."""
        named = [word for clip in self._clips for word in unknown_words(clip, text)]
        return tuple(dict.fromkeys(named))

    def _joined(self, features: list[Tensor]) -> Tensor:
        """Unit-norm features ``(N, D_i)`` as ones ``(N, sum of D_i)``."""
        return torch.cat(
            [share**0.5 * own for share, own in zip(self.shares, features, strict=True)], dim=1
        )


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
    """Put encoders together so that each counts by its share, in units of its own spread.

    Args:
        clips: Two or more; they are not copied.
        gan: Makes the pictures that the spreads are measured on: random ones of random classes,
            compared with those classes' names.
        generator: CPU generator, advanced by this call.
        shares: How much each is to count, above 0; None means equally.
        num_pictures: How many pictures, at least 2.
        batch_size: Pictures made at once.
        callback: Called after each batch of pictures; it may raise to stop.

    Raises:
        ConfigError: If there are fewer than two encoders, a share is not above 0, or all pictures
            look alike to an encoder.
    """
    index = rng.integers((num_pictures,), 0, len(gan.class_names) - 1, generator=generator)
    z = gan.sample_z(num_pictures, truncation=gan.truncation, generator=generator)
    pictures, rows = [], torch.arange(num_pictures).split(batch_size)
    with torch.no_grad():
        for step, part in enumerate(rows, start=1):
            y = gan.embed(index[part])
            pictures.append(gan.decode(z[part.to(z.device)], y, truncation=gan.truncation))
            if callback is not None:
                score = torch.zeros(1)
                callback(StepInfo("score", step, len(rows), score, pictures[-1][:1]))
    texts = [f"a photo of a {gan.class_names[number]}" for number in index.unique().tolist()]
    spreads = [spread_of(clip, torch.cat(pictures), texts) for clip in clips]
    wanted = [1.0] * len(clips) if shares is None else shares
    return EnsembleClip(
        clips, [share / spread for share, spread in zip(wanted, spreads, strict=True)]
    )


def spread_of(clip: ImageTextEncoder, images: Tensor, texts: Sequence[str]) -> float:
    """How far an encoder's cosines spread over pictures: one over it is its fair weight.

    Args:
        clip: The encoder.
        images: Pictures, shape ``(N, 3, H, W)``, in ``[-1, 1]``, of varied things.
        texts: What they are compared with.

    Returns:
        The standard deviation over pictures, as a root mean square over texts.

    Raises:
        ConfigError: If there are fewer than two pictures, or all of them look alike to the encoder.
    """
    require(len(images) >= 2, "images", len(images), "two pictures or more")
    with torch.no_grad():
        features = Limit(_AT_ONCE).map(clip.encode_images, images)
        cosines = features @ clip.encode_text(texts).T  # (N, T)
    spread = float(cosines.var(dim=0).mean().sqrt())
    require(spread > 0.0, "spread", spread, "above 0: the pictures all look alike to this CLIP")
    return spread
