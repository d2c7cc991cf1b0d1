"""Targets: the CLIP feature that a prompt, or images, define."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_images
from ..config.require import require_range
from ..determinism import deterministic
from ..errors import PromptError
from ..models.clip.base import ImageTextEncoder
from ..models.clip.words import unknown_words
from ..types import Target
from .prompt import misread, parse_prompt

logger = logging.getLogger(__name__)

_MAX_NAMED_WORDS = 8  # in one warning
_MIN_NORM = 1e-4  # below this, the parts have cancelled and only rounding is left


@deterministic()
def image_target(
    clip: ImageTextEncoder, images: Tensor, *, prompt: str = "", text_share: float = 0.5
) -> Target:
    """Return a target from the mean CLIP feature of images, optionally mixed with a prompt.

    Args:
        clip: The encoder.
        images: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        prompt: Additional prompt, see ``parse_prompt``; none if empty.
        text_share: Weight of the prompt, from 0 to 1; the images have the rest.

    Returns:
        The target, on the encoder's device. Its parts are those of the prompt.

    Raises:
        ShapeError, ImageError: If the images have another shape or are not finite.
        ConfigError: If the share is out of range.
        PromptError: If prompt and images cancel each other.
    """
    check_images(images)
    require_range("text_share", text_share, 0.0, 1.0)
    with torch.no_grad():
        mean = F.normalize(clip.encode_images(images.to(clip.device)).mean(dim=0), dim=0)
    text = encode_target(clip, prompt) if prompt.strip() else None
    total = mean if text is None else text_share * text.features + (1.0 - text_share) * mean
    if total.norm() < _MIN_NORM:
        raise PromptError(f"The images and the prompt {prompt!r} cancel each other.")
    parts, title = (text.parts, f"picture + {text.prompt}") if text else ((), "picture")
    return Target(F.normalize(total, dim=0), parts, clip.clip_id, title, from_images=True)


def encode_target(clip: ImageTextEncoder, prompt: str) -> Target:
    """Encode a prompt into a target.

    The target is the normalised weighted sum of the unit-norm features of the prompt's parts; a
    negative weight moves images away from its text. The remarks of :func:`prompt_remarks` are
    logged as warnings.

    Args:
        clip: The encoder.
        prompt: See ``parse_prompt``.

    Returns:
        The target, on the encoder's device.

    Raises:
        PromptError: If the prompt is empty, or its parts cancel each other.

    References:
        gnobitab/FuseDream encodes a single text, and again at every step.
    """
    parts = parse_prompt(prompt)
    for remark in prompt_remarks(clip, prompt):
        logger.warning("%s", remark)
    features = clip.encode_text([part.text for part in parts])  # (parts, D)
    weights = torch.tensor([part.weight for part in parts]).to(features)
    total = weights @ features  # (D,)
    if total.norm() < _MIN_NORM * weights.abs().sum():
        raise PromptError(
            f"The parts of the prompt {prompt!r} cancel each other; change a text or a weight."
        )
    return Target(F.normalize(total, dim=0), parts, clip.clip_id, prompt)


def prompt_remarks(clip: ImageTextEncoder, prompt: str) -> tuple[str, ...]:
    """Return warnings about text of a prompt that will have no effect.

    Args:
        clip: The encoder.
        prompt: See ``parse_prompt``.

    Returns:
        One sentence per finding: parts longer than the context, words unknown to the encoder, and
        the findings of :func:`misread`; usually none.

    Raises:
        PromptError: As ``parse_prompt``.
    """
    texts = [part.text for part in parse_prompt(prompt)]
    remarks = [
        f"Too long for this CLIP, the end is ignored: {text!r} is longer than CLIP's context."
        for text in texts
        if clip.truncates(text)
    ]
    words = dict.fromkeys(word for text in texts for word in unknown_words(clip, text))
    if words:
        named = ", ".join(map(repr, list(words)[:_MAX_NAMED_WORDS]))
        more = f" and {len(words) - _MAX_NAMED_WORDS} more" if len(words) > _MAX_NAMED_WORDS else ""
        remarks.append(
            f"This CLIP was not trained on {named}{more}, so that has no meaning to it; use other "
            "words, in English, or another CLIP."
        )
    return (*remarks, *misread(prompt))


def similarities(texts: Tensor, features: Tensor) -> Tensor:
    """Return cosines ``(T, N)`` of unit-norm features of T texts and N images.

    One product per text, so that its bits do not depend on the other texts.
    """
    return torch.stack([features @ text for text in texts])
