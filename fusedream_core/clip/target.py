"""From a prompt to the one feature that pictures are compared with."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F

from ..errors import PromptError
from ..prompt import parse_prompt
from ..types import Target
from .base import ImageTextEncoder

logger = logging.getLogger(__name__)

_SHORTEST = 1e-4  # below this length the pieces have cancelled and only rounding is left


def encode_target(clip: ImageTextEncoder, prompt: str) -> Target:
    """Encode a prompt into a target.

    The target is the normalised weighted sum of the unit-norm features of the prompt's pieces; a
    negative weight pushes pictures away from its text. A piece longer than the context is cut,
    with a warning in the log.

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
    for part in parts:
        if clip.truncates(part.text):
            logger.warning(
                "The text %r is longer than CLIP's context; its end is ignored.", part.text
            )
    features = clip.encode_text([part.text for part in parts])  # (parts, D)
    weights = torch.tensor([part.weight for part in parts]).to(features)
    total = weights @ features  # (D,)
    if total.norm() < _SHORTEST * weights.abs().sum():
        raise PromptError(
            f"The pieces of the prompt {prompt!r} cancel each other; change a text or a weight."
        )
    return Target(F.normalize(total, dim=0), parts, clip.clip_id, prompt)
