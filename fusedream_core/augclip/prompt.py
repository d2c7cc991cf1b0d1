"""The prompt syntax: parts of text with weights.

Parts are lines, or are separated by ``|``. A part may end in ``: weight``, and a negative weight
avoids its text: ``a blue dog | blurry: -0.3``. Full-width signs and digits, a decimal comma, and a
dash as minus are accepted.
"""

from __future__ import annotations

import re
import unicodedata

from ..errors import PromptError
from ..types import PromptPart

MAX_WEIGHT = 100.0

_SEPARATOR = re.compile("[|\uff5c\r\n]")
_COLONS = ":\ufe55\uff1a"
# Dashes that keyboards, phones and word processors make of a minus.
_MINUS = "\\-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_PLUS = "+\ufe62\uff0b"
_POINTS = ".,\u066b\u3002\uff0c\uff0e"
_WEIGHTED = re.compile(
    rf"(?P<text>.*)[{_COLONS}](?P<gap>\s*)"
    rf"(?P<sign>[{_PLUS}{_MINUS}]?)\s*(?P<number>\d+[{_POINTS}]?\d*|[{_POINTS}]\d+)",
    re.DOTALL,
)
_NUMBERLIKE = re.compile(  # behind a digit only with a sign, which no time and no ratio has
    rf".*(?:[^\d/\uff0f][{_COLONS}]\s*|[{_COLONS}]\s*(?=[{_PLUS}{_MINUS}]))"
    rf"(?P<number>[{_PLUS}{_MINUS}\s]*(?=[{_POINTS}]*\d)[\d{_POINTS}]+(?:e[+-]?\d+|%)?)",
    re.DOTALL,
)
# Syntax of other programs for weights, choices and schedules, in ASCII.
_FOREIGN = re.compile(
    r"""\([^()|]*:\s*[+-]?[\d.,]+\s*\)          # (text:1.2)
      | \([^()]+\)(?:\d+\.\d+|\+\+|--)         # (text)1.2, (text)++
      | \(\([^()]*\)\) | \[\[[^\[\]]*\]\]       # ((text)), [[text]]
      | \{[^{}]*\|[^{}]*\}                      # {red|blue}
      | \[[^\[\]]*(?::\s*[\d.]+\s*|\|[^\[\]]*)\]  # [a:b:0.5], [a|b]
      | <\w+:[^<>]*>                            # <lora:name:1>
      | (?<!\w)__\w+__(?!\w)                    # __colour__""",
    re.VERBOSE,
)


def parse_prompt(prompt: str) -> tuple[PromptPart, ...]:
    """Split a prompt into its weighted parts.

    Args:
        prompt: Lines, or parts separated by ``|``, each with an optional ``: weight`` from -100 to
            100 (default 1). A colon right behind a digit or a slash, and a colon without a number
            at the end of the part, are text.

    Returns:
        The parts, at least one; empty ones are skipped.

    Raises:
        PromptError: If no text is left, a weight has no text or is too large, or all are 0.

    Examples:
        >>> parse_prompt("a blue dog | blurry: -0.3")
        (PromptPart(text='a blue dog', weight=1.0), PromptPart(text='blurry', weight=-0.3))
    """
    parts = tuple(_parse_part(part) for part in _split(prompt))
    if not parts:
        raise PromptError("The prompt is empty; describe the image, as 'a blue dog'.")
    if all(part.weight == 0.0 for part in parts):
        raise PromptError(
            f"All weights of the prompt {prompt!r} are 0; give at least one part another weight."
        )
    return parts


def misread(prompt: str) -> tuple[str, ...]:
    """Find text that resembles a weight or a choice but is read as plain text.

    Args:
        prompt: See :func:`parse_prompt`.

    Returns:
        One sentence per finding; usually none.
    """
    notes = []
    foreign = _FOREIGN.search(unicodedata.normalize("NFKC", prompt))
    if foreign is not None:
        notes.append(
            f"{foreign[0]!r} is another program's way to weigh or choose words; here it is plain "
            "text, and | separates parts. Write a weight at the end of a part, as in 'a blue dog | "
            "red: -0.3', and a prompt for each choice."
        )
    for part in _split(prompt):
        like = _NUMBERLIKE.fullmatch(part)
        if like is not None and _weighted(part) is None:
            notes.append(
                f"The end of {part!r} is not read as a weight, so all of it is plain text; write a "
                "weight as in 'red: -0.3', and behind a digit as in 'area 51 :-0.3'."
            )
    return tuple(notes)


def _split(prompt: str) -> list[str]:
    """Return the parts as typed, without empty ones."""
    return [part.strip() for part in _SEPARATOR.split(prompt) if part.strip()]


def _weighted(part: str) -> re.Match[str] | None:
    """Match the text and weight of a part, or return None.

    A colon after a digit is a time or a ratio ("at 10:30", "16 : 9"), and after a slash part of an
    address; but "room 5 :2" has a weight.
    """
    match = _WEIGHTED.fullmatch(part)
    if match is None:
        return None
    before = match["text"].rstrip() if match["gap"] else match["text"]
    return None if re.search("[\\d/\uff0f]$", before) else match


def _parse_part(part: str) -> PromptPart:
    """Parse one non-empty part."""
    match = _weighted(part)
    if match is None:
        return PromptPart(part, 1.0)
    text = match["text"].strip()
    if not text:
        raise PromptError(
            f"The prompt has a weight without a text, {part!r}; write the text in front of it."
        )
    size = float(re.sub(f"[{_POINTS}]", ".", match["number"]))
    if size > MAX_WEIGHT:
        raise PromptError(
            f"The weight of {text!r} is too large, {match['number'][:12]}; it may be from "
            f"-{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, and weights near 1 are usual."
        )
    negative = re.fullmatch(f"[{_MINUS}]", match["sign"])
    return PromptPart(text, -size if negative else size)
