"""The class prior: class names to indices, and how likely a search draws each class.

No part of the paper, which draws all classes alike.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..augclip.target import similarities
from ..errors import ConfigError
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..types import Target

# Of the softmax over classes, in standard deviations of similarity: if the others were normally
# spread, a class that stands out by four would take some 80 % of the guided draws among a hundred
# classes and 30 % among a thousand.
_TEMPERATURE = 0.5
_BATCH = 250  # names encoded at once


def resolve_classes(names: Sequence[str], classes: Iterable[str | int]) -> list[int]:
    """Turn class names and indices into indices.

    Args:
        names: The GAN's class names.
        classes: Names (capitals do not matter; a name that several classes share means all of
            them; of several with commas between, any one) or indices, as numbers or as text.

    Returns:
        Sorted indices without doubles.

    Raises:
        ConfigError: If a class is unknown; the message names similar ones.
    """
    by_name: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        for one in {part.strip().casefold() for part in (name, *name.split(","))}:
            by_name.setdefault(one, []).append(index)
    found: set[int] = set()
    for wanted in classes:
        text = str(wanted).strip().casefold()
        is_index = isinstance(wanted, int) or (text.isdecimal() and len(text) < 10)
        if isinstance(wanted, str) and text in by_name:
            found.update(by_name[text])
        elif is_index and 0 <= int(wanted) < len(names):
            found.add(int(wanted))
        else:
            raise ConfigError(_unknown_class(wanted, names))
    return sorted(found)


def named_classes(names: Sequence[str], target: Target) -> list[int]:
    """Indices of the classes that a prompt names outright, outside of its negative parts.

    Args:
        names: The GAN's class names; of several with commas between, any one counts.
        target: The prompt. A name counts where all of it occurs as whole words, in any case.

    Returns:
        Sorted indices.
    """
    said = [f" {' '.join(_words(part.text))} " for part in target.parts if part.weight > 0]
    found = []
    for index, name in enumerate(names):
        phrases = [f" {' '.join(_words(part))} " for part in name.split(",") if _words(part)]
        if any(phrase in text for phrase in phrases for text in said):
            found.append(index)
    return found


def _words(text: str) -> list[str]:
    """The words of a text, without capitals and punctuation."""
    return re.findall(r"\w+", text.casefold())


def _unknown_class(wanted: str | int, names: Sequence[str]) -> str:
    """The sentence about a class that the GAN does not have."""
    near = difflib.get_close_matches(str(wanted).casefold(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the first is {names[0]!r}."
    return (
        f"The GAN has no class {wanted!r}; it accepts {len(names)} names, or indices from 0 to "
        f"{len(names) - 1}, as classes: {hint}"
    )


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
