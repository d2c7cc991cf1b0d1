"""The prompt language: pieces of text with weights.

Pieces are lines, or are separated by ``|``; a piece may end in ``:weight``, and a negative weight
says what to avoid: ``a blue dog:1 | blurry:-0.3``.
"""

from __future__ import annotations

import math
import re

from .errors import PromptError
from .types import PromptPart

_SEPARATOR = re.compile(r"[|\r\n]")
# A weight is a number at the very end, right behind its colon. A colon right behind a digit is
# a time or a ratio ("at 10:30"), so it is text; "room 5 :2" gives such a piece a weight.
_WEIGHTED = re.compile(r"(?P<text>.*)(?<!\d):(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))", re.DOTALL)


def parse_prompt(prompt: str) -> tuple[PromptPart, ...]:
    """Split a prompt into its weighted pieces.

    Args:
        prompt: Lines, or pieces separated by ``|``, each with an optional ``:weight`` (default
            1). A colon without a number at the end of the piece is text.

    Returns:
        The pieces, at least one; empty ones are skipped.

    Raises:
        PromptError: If no text is left, a weight has no text or is too large, or all are 0.

    Examples:
        >>> parse_prompt("a blue dog | blurry:-0.3")
        (PromptPart(text='a blue dog', weight=1.0), PromptPart(text='blurry', weight=-0.3))
    """
    pieces = [piece.strip() for piece in _SEPARATOR.split(prompt)]
    parts = tuple(_parse_piece(piece) for piece in pieces if piece)
    if not parts:
        raise PromptError("The prompt is empty; write what the picture shows, as 'a blue dog'.")
    if all(part.weight == 0.0 for part in parts):
        raise PromptError(
            f"All weights of the prompt {prompt!r} are 0; give at least one piece another weight."
        )
    return parts


def _parse_piece(piece: str) -> PromptPart:
    """Read one piece that is not empty."""
    match = _WEIGHTED.fullmatch(piece)
    if match is None:
        return PromptPart(piece, 1.0)
    text, weight = match["text"].strip(), float(match["weight"])
    if not text:
        raise PromptError(
            f"The prompt has a weight without a text, {piece!r}; write the text in front of it."
        )
    if not math.isfinite(weight):
        raise PromptError(f"The weight of {text!r} is too large; weights near 1 are usual.")
    return PromptPart(text, weight)
