"""Which words a CLIP cannot know: those of scripts and vocabularies that it was not trained on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .base import ImageTextEncoder

_WORD = re.compile(r"[^\W_]+")
_ENDING = re.compile(r"['\u2019][^\W_]{1,2}\b")  # of "dog's"
_FEW = 0.1  # share of letters: a prompt may name "the Greek letter \u03b1"


def unknown_words(clip: ImageTextEncoder, text: str) -> tuple[str, ...]:
    """The words of a text that an encoder says it cannot know; none if it does not say."""
    known_by: Callable[[str], tuple[str, ...]] | None = getattr(clip, "unknown_words", None)
    return () if known_by is None else known_by(text)


def untrained_words(text: str, tokenizer: object, model: nn.Module) -> tuple[str, ...]:
    """The words of a text that an open_clip model cannot know, each once, in their order.

    open_clip's stock tokenizer splits every text into bytes, so nothing is unknown to it, but its
    models were trained on English. Where rows of the token table are zero, no training text had
    those tokens. Other tokenizers are those of multilingual models, of which nothing is said.

    Args:
        text: One part of a prompt.
        tokenizer: The model's tokenizer.
        model: The open_clip model.

    Returns:
        Words with a token that was never trained. If there are none, and more than a tenth of the
        letters are not Latin, the words with such letters.
    """
    if not hasattr(tokenizer, "byte_encoder"):
        return ()
    words = list(dict.fromkeys(_WORD.findall(_ENDING.sub("", text))))
    untrained = tuple(word for word in words if not _is_trained(word, tokenizer, model))
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(map(_is_foreign, letters))
    if untrained or foreign <= _FEW * len(letters):
        return untrained
    return tuple(word for word in words if any(map(_is_foreign, word)))


def _is_trained(word: str, tokenizer: Any, model: nn.Module) -> bool:  # noqa: ANN401 - open_clip's
    """Whether every token of a word has a row in the token table that is not zero."""
    tower: Any = getattr(model, "text", model)
    table: Tensor = tower.token_embedding.weight
    return bool((table[tokenizer.encode(word)] != 0).any(dim=1).all())


def _is_foreign(letter: str) -> bool:
    """Whether a letter is of another script than Latin."""
    return letter.isalpha() and "LATIN" not in unicodedata.name(letter, "LATIN")
