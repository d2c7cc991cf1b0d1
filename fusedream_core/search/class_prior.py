"""The class prior of the search, and the lookup of class names.

Not part of the paper, which draws classes uniformly.
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

# Of the softmax over classes, in standard deviations of the similarity. If the others are normally
# distributed, an outlier by 4 has a probability of about 80 % among 100 classes, 30 % among 1,000.
_TEMPERATURE = 0.5
_TEXT_BATCH = 250


def resolve_classes(names: Sequence[str], classes: Iterable[str | int]) -> list[int]:
    """Return the indices of class names and indices.

    Args:
        names: The GAN's class names.
        classes: Indices, as numbers or as text, or case-insensitive names. A name shared by several
            classes means all of them; of a class with several names any one will do.

    Returns:
        Sorted unique indices.

    Raises:
        ConfigError: If a class is unknown; the message has similar names.
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
    """Return the indices of the classes named in the positive parts of a prompt.

    Args:
        names: The GAN's class names; any of several comma-separated synonyms counts.
        target: The prompt. A name matches as a sequence of whole words, in any case.

    Returns:
        Sorted indices.
    """
    texts = [f" {' '.join(_words(part.text))} " for part in target.parts if part.weight > 0]
    found = []
    for index, name in enumerate(names):
        phrases = [f" {' '.join(_words(part))} " for part in name.split(",") if _words(part)]
        if any(phrase in text for phrase in phrases for text in texts):
            found.append(index)
    return found


def _words(text: str) -> list[str]:
    """Return the words of a text, case-folded, without punctuation."""
    return re.findall(r"\w+", text.casefold())


def _unknown_class(wanted: str | int, names: Sequence[str]) -> str:
    """Return the message for an unknown class."""
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
    """Return the class prior: the probability of each class for each target.

    Half of it is a softmax of CLIP similarities, and half is uniform over the classes that the
    prompt names, if any. CLIP alone may rank "hat" above "cat" for "a black cat".

    Args:
        gan: The generator, for its class names.
        clip: The encoder.
        texts: Features of T prompts, shape ``(T, D)``.
        named: Indices of the named classes of each prompt.
        allowed: Indices of the allowed classes.

    Returns:
        Probabilities, shape ``(T, len(allowed))``, on the CPU; rows sum to 1.
    """
    weights = _nearness(gan, clip, texts, allowed)
    for row, own in enumerate(named):
        chosen = torch.tensor([float(index in own) for index in allowed])
        if chosen.any():
            weights[row] = 0.5 * weights[row] + 0.5 * chosen / chosen.sum()
    return weights


def _nearness(gan: Gan, clip: ImageTextEncoder, texts: Tensor, allowed: Sequence[int]) -> Tensor:
    """Return a softmax of the similarities of texts and class names.

    Similarities are standardised over the classes, since the scale of cosines differs by CLIP.
    """
    names = [f"a photo of a {gan.class_names[index]}" for index in allowed]
    features = torch.cat(
        [clip.encode_text(names[i : i + _TEXT_BATCH]) for i in range(0, len(names), _TEXT_BATCH)]
    )
    similarity = similarities(texts, features)
    spread = similarity.std(dim=1, keepdim=True).clamp_min(1e-6)
    deviation = (similarity - similarity.mean(dim=1, keepdim=True)) / spread
    return (deviation / _TEMPERATURE).softmax(dim=1).cpu()
