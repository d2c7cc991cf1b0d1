"""The prompt syntax: parts of text with weights.

Parts are lines, or are separated by ``|``. A part may end in ``: weight``, and a negative weight
avoids its text: ``a blue dog | blurry: -0.3``. Full-width signs and digits, a decimal comma, and a
dash as minus are accepted.
"""

from __future__ import annotations

import re
import unicodedata

from ..errors import PromptError
from ..images import check_text
from ..types import PromptPart

MAX_WEIGHT = 100.0

_SEPARATOR = re.compile("[|\uff5c\r\n]")
_COLONS = ":\ufe55\uff1a"
# Dashes that keyboards, phones and word processors make of a minus.
_MINUS = "\\-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_PLUS = "+\ufe62\uff0b"
_SIGNS = _PLUS + _MINUS.removeprefix("\\")
_POINTS = ".,\u066b\u3002\uff0c\uff0e"
_COMMAS = ",\uff0c"
# Neighbouring parts of these patterns match different characters, so matching takes linear time.
_WEIGHT = re.compile(
    rf"(?P<sign>[{_PLUS}{_MINUS}]?)\s*(?P<number>\d+(?:[{_POINTS}]\d*)?|[{_POINTS}]\d+)"
)
_NUMBERLIKE = re.compile(rf"[{_PLUS}{_MINUS}\s]*(?=[{_POINTS}]*\d)[\d{_POINTS}]+(?:e[+-]?\d+|%)?")
_THOUSANDS = re.compile(rf"(?!0)\d{{1,3}}[{_COMMAS}]\d{{3}}")
# Characters without a glyph: the fillers of Hangul, the empty pattern of Braille; and categories.
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
_INVISIBLE_CATEGORIES = ("Cc", "Cf", "Cs", "Mn", "Me", "Zl", "Zp", "Zs")
# Syntax of other programs for weights, choices and schedules, in ASCII.
_FOREIGN = re.compile(
    r"""\([^()|]*:\s*[+-]?[\d.,]+\s*\)          # (text:1.2)
      | \([^()]+\)(?:\d+\.\d+|\+\+|--)         # (text)1.2, (text)++
      | \(\([^()]*\)\) | \[\[[^\[\]]*\]\]       # ((text)), [[text]]
      | \{[^{}|]*\|[^{}]*\}                     # {red|blue}
      | \[[^\[\]]*:\s*[\d.]+\s*\]               # [a:b:0.5]
      | \[[^\[\]|]*\|[^\[\]]*\]                 # [a|b]
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
        The parts, at least one; parts without a visible character are skipped.

    Raises:
        PromptError: If no text is left, a weight has no text, is too large or ambiguous, all
            weights are 0, or the prompt has an invalid character.

    Examples:
        >>> parse_prompt("a blue dog | blurry: -0.3")
        (PromptPart(text='a blue dog', weight=1.0), PromptPart(text='blurry', weight=-0.3))
    """
    check_text("prompt", prompt)
    if "\0" in prompt:
        raise PromptError(
            f"The prompt holds a zero byte at place {prompt.index(chr(0)) + 1}; delete it."
        )
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
        text, end = _split_at_last_colon(part)
        if (
            text
            and _NUMBERLIKE.fullmatch(end.lstrip())
            # After a digit only with a sign, which no time and no ratio has.
            and (not _is_digit_or_slash(text[-1]) or end.lstrip()[0] in _SIGNS)
            and _weighted(part) is None
        ):
            notes.append(
                f"The end of {part!r} is not read as a weight, so all of it is plain text; write a "
                "weight as in 'red: -0.3', and behind a digit as in 'area 51 :-0.3'."
            )
    return tuple(notes)


def _split(prompt: str) -> list[str]:
    """Return the parts as typed, without invisible ones."""
    return [part.strip() for part in _SEPARATOR.split(prompt) if _is_visible(part)]


def _is_visible(text: str) -> bool:
    """Return whether a text has a visible character."""
    return any(
        unicodedata.category(char) not in _INVISIBLE_CATEGORIES and char not in _BLANKS
        for char in text
    )


def _split_at_last_colon(part: str) -> tuple[str, str]:
    """Return the text before and after the last colon; nothing before if there is none."""
    position = max(map(part.rfind, _COLONS))
    return part[: max(position, 0)], part[position + 1 :]


def _is_digit_or_slash(char: str) -> bool:
    return char.isdecimal() or char in "/\uff0f"


def _weighted(part: str) -> tuple[str, re.Match[str]] | None:
    """Return the text of a part and the match of its weight, or None.

    A colon after a digit is a time or a ratio ("at 10:30", "16 : 9"), and after a slash part of an
    address; but "room 5 :2" has a weight.
    """
    text, end = _split_at_last_colon(part)
    match = _WEIGHT.fullmatch(end.lstrip())
    if match is None or not any(colon in part for colon in _COLONS):
        return None
    before = text.rstrip() if end[0].isspace() else text
    return None if before and _is_digit_or_slash(before[-1]) else (text.strip(), match)


def _parse_part(part: str) -> PromptPart:
    """Parse one visible part."""
    weighted = _weighted(part)
    if weighted is None:
        return PromptPart(part, 1.0)
    text, match = weighted
    if not _is_visible(text):
        raise PromptError(
            f"The prompt has a weight without a text, {part!r}; write the text in front of it."
        )
    if _THOUSANDS.fullmatch(match["number"]):
        raise PromptError(
            f"The weight of {text!r} is {match['number']}, in which the comma may part thousands "
            "or begin a fraction; write it with a point, as 1.5."
        )
    size = float(re.sub(f"[{_POINTS}]", ".", match["number"]))
    if size > MAX_WEIGHT:
        raise PromptError(
            f"The weight of {text!r} is too large, {match['number'][:12]}; it may be from "
            f"-{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, and weights near 1 are usual."
        )
    negative = re.fullmatch(f"[{_MINUS}]", match["sign"])
    return PromptPart(text, -size if negative else size)
