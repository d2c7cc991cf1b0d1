"""Which classes a search looks at more closely, going by the words of the prompt.

No part of the paper, which draws all classes alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .clip.base import ImageTextEncoder
from .clip.target import similarities
from .gan.base import Gan

# Of the softmax over classes, in standard deviations of similarity: if the others were normally
# spread, a class that stands out by four would take some 80 % of the guided draws among a hundred
# classes and 30 % among a thousand.
_TEMPERATURE = 0.5
_BATCH = 250  # names encoded at once


def class_weights(
    gan: Gan,
    clip: ImageTextEncoder,
    texts: Tensor,
    named: Sequence[Sequence[int]],
    allowed: Sequence[int],
) -> Tensor:
    """How likely each class is to be drawn for each target.

    Half goes by what CLIP finds near, and half to the classes that the prompt names, if any: CLIP
    may take "a black cat" for nearer to a hat.

    Args:
        gan: Its class names count.
        clip: The encoder.
        texts: Features of T prompts, shape ``(T, D)``.
        named: For each of them, indices of the classes that it names.
        allowed: Indices of the classes that may be drawn.

    Returns:
        Shape ``(T, len(allowed))``, on the CPU; rows sum to 1.
    """
    weights = _nearness(gan, clip, texts, allowed)
    for row, own in enumerate(named):
        chosen = torch.tensor([float(index in own) for index in allowed])
        if chosen.any():
            weights[row] = 0.5 * weights[row] + 0.5 * chosen / chosen.sum()
    return weights


def _nearness(gan: Gan, clip: ImageTextEncoder, texts: Tensor, allowed: Sequence[int]) -> Tensor:
    """A softmax of the texts' similarity to the names.

    In standard deviations over the classes, since the scale of cosines differs between CLIPs.
    """
    names = [f"a photo of a {gan.class_names[index]}" for index in allowed]
    features = torch.cat(
        [clip.encode_text(names[i : i + _BATCH]) for i in range(0, len(names), _BATCH)]
    )
    similarity = similarities(texts, features)
    spread = similarity.std(dim=1, keepdim=True).clamp_min(1e-6)
    deviation = (similarity - similarity.mean(dim=1, keepdim=True)) / spread
    return (deviation / _TEMPERATURE).softmax(dim=1).cpu()
