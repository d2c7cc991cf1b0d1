"""Detection of words that a CLIP was not trained on, by script or vocabulary."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .base import ImageTextEncoder

_WORD = re.compile(r"[^\W_]+")
_ENDING = re.compile(r"['\u2019][^\W_]{1,2}\b")  # of "dog's"
_MAX_FOREIGN_SHARE = 0.1  # of all letters: a prompt may name "the Greek letter \u03b1"


def unknown_words(clip: ImageTextEncoder, text: str) -> tuple[str, ...]:
    """Return an encoder's unknown words of a text; none without such a method."""
    known_by: Callable[[str], tuple[str, ...]] | None = getattr(clip, "unknown_words", None)
    return () if known_by is None else known_by(text)


def untrained_words(text: str, tokenizer: object, model: nn.Module) -> tuple[str, ...]:
    """Return the unique words of a text that an open_clip model was not trained on, in order.

    open_clip's default tokenizer is byte-level and accepts every text, but its models were trained
    on English. A zero row of the token embedding is a token that never occurred in training. Other
    tokenizers belong to multilingual models, for which the result is empty.

    Args:
        text: One part of a prompt.
        tokenizer: The model's tokenizer.
        model: The open_clip model.

    Returns:
        Words with an untrained token. If there are none, and more than a tenth of the letters are
        not Latin, the words with such letters.
    """
    if not hasattr(tokenizer, "byte_encoder"):
        return ()
    words = list(dict.fromkeys(_WORD.findall(_ENDING.sub("", text))))
    untrained = tuple(word for word in words if not _is_trained(word, tokenizer, model))
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(map(_is_foreign, letters))
    if untrained or foreign <= _MAX_FOREIGN_SHARE * len(letters):
        return untrained
    return tuple(word for word in words if any(map(_is_foreign, word)))


def _is_trained(word: str, tokenizer: Any, model: nn.Module) -> bool:  # noqa: ANN401 - open_clip's
    """Return whether every token of a word has a non-zero embedding."""
    tower: Any = getattr(model, "text", model)
    table: Tensor = tower.token_embedding.weight
    return bool((table[tokenizer.encode(word)] != 0).any(dim=1).all())


def _is_foreign(letter: str) -> bool:
    """Return whether a letter is not Latin."""
    return letter.isalpha() and "LATIN" not in unicodedata.name(letter, "LATIN")
