"""From a prompt to the one feature that pictures are compared with."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_images
from ..config.require import require_range
from ..errors import PromptError
from ..models.clip.base import ImageTextEncoder
from ..models.clip.words import unknown_words
from ..types import Target
from .prompt import misread, parse_prompt

logger = logging.getLogger(__name__)

_MOST_NAMED = 8  # words, in one warning
_SHORTEST = 1e-4  # below this length the pieces have cancelled and only rounding is left


def image_target(
    clip: ImageTextEncoder, images: Tensor, *, prompt: str = "", text_share: float = 0.5
) -> Target:
    """Make a target of pictures: what is to look as they do to CLIP, or as they and a text do.

    Args:
        clip: The encoder.
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``; the mean of their features counts.
        prompt: What else to aim at, see ``parse_prompt``; nothing if empty.
        text_share: How much that counts, from 0 to 1; the pictures count for the rest.

    Returns:
        The target, on the encoder's device. Its parts are those of the prompt alone.

    Raises:
        ShapeError, ImageError: If the pictures are no such tensor.
        ConfigError: If the share is out of range.
        PromptError: If text and pictures cancel each other.
    """
    check_images(images)
    require_range("text_share", text_share, 0.0, 1.0)
    with torch.no_grad():
        seen = F.normalize(clip.encode_images(images.to(clip.device)).mean(dim=0), dim=0)
    said = encode_target(clip, prompt) if prompt.strip() else None
    total = seen if said is None else text_share * said.features + (1.0 - text_share) * seen
    if total.norm() < _SHORTEST:
        raise PromptError(f"The pictures and the prompt {prompt!r} cancel each other.")
    parts, title = (said.parts, f"picture + {said.prompt}") if said else ((), "picture")
    return Target(F.normalize(total, dim=0), parts, clip.clip_id, title, from_images=True)


def encode_target(clip: ImageTextEncoder, prompt: str) -> Target:
    """Encode a prompt into a target.

    The target is the normalised weighted sum of the unit-norm features of the prompt's pieces; a
    negative weight pushes pictures away from its text. What :func:`prompt_remarks` says of the
    prompt goes to the log as warnings.

    Args:
        clip: The encoder.
        prompt: See ``parse_prompt``.

    Returns:
        The target, on the encoder's device.

    Raises:
        PromptError: If the prompt is empty, or its pieces cancel.

    References:
        gnobitab/FuseDream encodes one text anew at every step; here it is done once.
    """
    parts = parse_prompt(prompt)
    for remark in prompt_remarks(clip, prompt):
        logger.warning("%s", remark)
    features = clip.encode_text([part.text for part in parts])  # (parts, D)
    weights = torch.tensor([part.weight for part in parts]).to(features)
    total = weights @ features  # (D,)
    if total.norm() < _SHORTEST * weights.abs().sum():
        raise PromptError(
            f"The pieces of the prompt {prompt!r} cancel each other; change a text or a weight."
        )
    return Target(F.normalize(total, dim=0), parts, clip.clip_id, prompt)


def prompt_remarks(clip: ImageTextEncoder, prompt: str) -> tuple[str, ...]:
    """What of a prompt will not have the effect that it seems to have, one sentence each.

    Args:
        clip: The encoder.
        prompt: See ``parse_prompt``.

    Returns:
        Parts that are longer than the context, words that the encoder cannot know, and what is
        :func:`misread`; usually nothing.

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
        named = ", ".join(map(repr, list(words)[:_MOST_NAMED]))
        more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
        remarks.append(
            f"This CLIP was not trained on {named}{more}, so that has no meaning to it; use other "
            "words, in English, or another CLIP."
        )
    return (*remarks, *misread(prompt))


def similarities(texts: Tensor, features: Tensor) -> Tensor:
    """Cosines ``(T, N)`` of T texts and N pictures, from unit-norm features.

    Text by text, so that the numbers of one are the same to the last bit whatever others there are.
    """
    return torch.stack([features @ text for text in texts])
