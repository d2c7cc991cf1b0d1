"""Captions of scenes: what is true of them, what is not, and the words for it.

A thing has its name, other words for it, and words for its kind (``words.json``). A caption says
only what can be seen: an object that another one covers is not in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from art import CLASSES
from scenes import BACKGROUNDS, COLORS, PLACES, SYNONYMS, UNKNOWN, Scenes

WORDS = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
# New words, drawn by a seed before any training, and the classes that are right for each.
ASKED: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("words_asked.json").read_text(encoding="utf-8")
)
OTHER_NAMES: tuple[tuple[str, ...], ...] = tuple(tuple(WORDS["synonyms"][n]) for n in CLASSES)
KINDS: tuple[tuple[str, ...], ...] = tuple(
    tuple(kind for kind, members in WORDS["kinds"].items() if name in members) for name in CLASSES
)
PLACE_WORDS = {
    "in the sky": ("in the sky", "in the sky", "in the air"),
    "under water": ("under water", "underwater", "in the water", "in the sea"),
    "at night": ("at night", "at night", "in the dark"),
    "on the grass": ("on the grass", "on grass", "in the grass", "in a meadow"),
    "in the snow": ("in the snow", "in the snow", "in winter"),
    "at sunset": ("at sunset", "at sunset", "at dusk"),
}
Claim = tuple[int | str, ...]
_Phrase = tuple[str, int | str]  # words, and the class or kind they stand for


def article(phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


OPENINGS = (
    "",
    "",
    "",
    "",
    "a photo of ",
    "a picture of ",
    "an emoji of ",
    "a drawing of ",
    "an image of ",
    "a painting of ",
)
RELATIONS = (
    ("to the left of", "left of", "on the left of"),
    ("to the right of", "right of", "on the right of"),
    ("above", "over", "on top of"),
    ("below", "under", "beneath"),
)
IN_FRONT, BEHIND = "in front of", "behind"
JOINTS = ("and", "and", "and", "near", "next to", "beside", "with")
SIZES = ("small", "big", "cute")


@dataclass(frozen=True)
class Facts:
    """What can be seen in one scene, as plain numbers; UNKNOWN where there is no such thing."""

    objects: tuple[int, int]
    colors: tuple[int, int]
    background: int
    side: int
    front: bool  # whether the first object covers some of the second

    def claims(self) -> frozenset[Claim]:
        """Every single thing a true caption may say."""
        true: set[Claim] = {("background", self.background)}
        first, second = (() if n == UNKNOWN else (n, *KINDS[n]) for n in self.objects)
        for words, color in zip((first, second), self.colors, strict=True):
            true |= {("object", word) for word in words}
            true |= {("color", word, color) for word in words}
        for one in first:
            for other in second:
                if self.side != UNKNOWN:
                    true |= {("side", self.side, one, other), ("side", self.side ^ 1, other, one)}
                if self.front:
                    true.add(("front", one, other))
        return frozenset(true)


@dataclass(frozen=True)
class Caption:
    """A sentence and what it claims; it is true of a scene whose facts hold all its claims."""

    text: str
    claims: frozenset[Claim]


class Captioner:
    """Writes captions from one random stream."""

    def __init__(self, names: list[str], seed: int) -> None:
        self.names = names
        self.rng = random.Random(seed)  # noqa: S311 - captions, not secrets

    def _word(self, name: int) -> tuple[str, int | str]:
        """A word for a class, and what it stands for: the class, or a kind of thing."""
        chance = self.rng.random()
        if chance < 0.15 and KINDS[name]:
            kind = self.rng.choice(KINDS[name])
            return kind, kind
        if chance < 0.45 and OTHER_NAMES[name]:
            return self.rng.choice(OTHER_NAMES[name]), name
        return self.names[name], name

    def _object(self, name: int, color: int, claims: set[Claim], tell: float) -> _Phrase:
        """An object's phrase, with its colour at the probability ``tell``; adds to ``claims``."""
        word, meaning = self._word(name)
        words = []
        if self.rng.random() < 0.05:
            words.append(self.rng.choice(SIZES))
        if color != UNKNOWN and self.rng.random() < tell:
            words.append(self.rng.choice(SYNONYMS.get(COLORS[color], (COLORS[color],))))
            claims.add(("color", meaning, color))
        claims.add(("object", meaning))
        phrase, chance = " ".join([*words, word]), self.rng.random()
        phrase = article(phrase) if chance < 0.85 else f"the {phrase}" if chance < 0.92 else phrase
        return phrase, meaning

    def _background(self, word: int, claims: set[Claim]) -> str:
        """The end of a caption that names the background; adds to ``claims``."""
        claims.add(("background", word))
        if word >= len(COLORS):
            return " " + self.rng.choice(PLACE_WORDS[PLACES[word - len(COLORS)]])
        name = self.rng.choice(SYNONYMS.get(COLORS[word], (COLORS[word],)))
        return " " + self.rng.choice(
            ("on {} background", "on {} background", "in front of {} background")
        ).format(article(name))

    def _pair(self, facts: Facts, phrases: list[_Phrase], claims: set[Claim], tell: float) -> str:
        """Two objects and how they lie, said at the probability ``tell``; adds to ``claims``."""
        (one, first), (other, second) = phrases
        if self.rng.random() >= tell or (facts.side == UNKNOWN and not facts.front):
            both = [one, other]
            self.rng.shuffle(both)
            return f" {self.rng.choice(JOINTS)} ".join(both)
        if facts.front and (facts.side == UNKNOWN or self.rng.random() < 0.4):
            claims.add(("front", first, second))
            return self.rng.choice((f"{one} {IN_FRONT} {other}", f"{other} {BEHIND} {one}"))
        claims.add(("side", facts.side, first, second))
        if self.rng.random() < 0.5:
            return f"{one} {self.rng.choice(RELATIONS[facts.side])} {other}"
        return f"{other} {self.rng.choice(RELATIONS[facts.side ^ 1])} {one}"

    def _write(
        self, facts: Facts, *, tell_color: float, tell_side: float, tell_background: float
    ) -> Caption:
        """A caption of the facts, each kind of them told at its own probability."""
        claims: set[Claim] = set()
        phrases = [
            self._object(n, c, claims, tell_color)
            for n, c in zip(facts.objects, facts.colors, strict=True)
            if n != UNKNOWN
        ]
        both = len(phrases) == 2
        said = self._pair(facts, phrases, claims, tell_side) if both else phrases[0][0]
        text = self.rng.choice(OPENINGS) + said
        if facts.background != UNKNOWN and self.rng.random() < tell_background:
            text += self._background(facts.background, claims)
        return Caption(text, frozenset(claims))

    def true(self, facts: Facts) -> Caption:
        """A true caption that tells some of the facts."""
        return self._write(facts, tell_color=0.85, tell_side=0.5, tell_background=0.55)

    def writers(self) -> tuple[Callable[[Facts], Caption], ...]:
        """The captions that every picture gets, the true one first."""
        return self.true, self.misnamed, self.false

    def _untrue(self, facts: Facts, write: Callable[[], Caption]) -> Caption:
        """The first caption that is not true after all: a cat and a dog are both an animal."""
        claims = facts.claims()
        return next(caption for caption in iter(write, None) if not caption.claims <= claims)

    def misnamed(self, facts: Facts) -> Caption:
        """A caption with another object, and all else right: what names a thing must weigh most."""

        def write() -> Caption:
            other = self._other(len(self.names), facts.objects)
            changed = replace(facts, objects=(other, facts.objects[1]))
            return self._write(changed, tell_color=1.0, tell_side=0.5, tell_background=0.8)

        return self._untrue(facts, write)

    def false(self, facts: Facts) -> Caption:
        """A caption with one lie: another colour or ground, or swapped colours or sides."""
        (first, second), (color, other) = facts.objects, facts.colors
        lies = ["color"] * 2 * (color != UNKNOWN) + ["background"] * (facts.background != UNKNOWN)
        if second != UNKNOWN:
            lies += ["side"] * 2 * (facts.side != UNKNOWN) + ["front"] * facts.front
            lies += ["swap"] * (color != other)
        if not lies:
            return self.misnamed(facts)
        lie = self.rng.choice(lies)
        change = {
            "color": lambda: {"colors": (self._other(len(COLORS), (color,)), other)},
            "background": lambda: {
                "background": self._other(len(BACKGROUNDS), (facts.background,))
            },
            "side": lambda: {"side": facts.side ^ 1, "front": False},
            "front": lambda: {"objects": (second, first), "colors": (other, color)},
            "swap": lambda: {"colors": (other, color)},
        }[lie]

        def write() -> Caption:
            return self._write(
                replace(facts, **change()),
                tell_color=1.0,
                tell_side=1.0 if lie in ("side", "front") else 0.5,
                tell_background=1.0 if lie == "background" else 0.5,
            )

        return self._untrue(facts, write)

    def _other(self, count: int, taken: tuple[int, ...]) -> int:
        """A random number below ``count`` that is not taken."""
        return self.rng.choice([i for i in range(count) if i not in taken])


def scene_facts(scenes: Scenes) -> list[Facts]:
    """The facts of every scene of a batch: of its objects, those that can be seen."""
    seen = scenes.seen()
    rows = (
        part.tolist()
        for part in (seen.objects, seen.colors, seen.background, seen.side, seen.front)
    )
    return [Facts(tuple(o), tuple(c), b, s, f) for o, c, b, s, f in zip(*rows, strict=True)]


def vocabulary(names: list[str]) -> list[str]:
    """Every single word that a caption may hold, in alphabetical order."""
    phrases = [*names, *COLORS, *OPENINGS, *JOINTS, *SIZES, *WORDS["kinds"], IN_FRONT, BEHIND]
    phrases += ["a an the on background"]
    for group in (OTHER_NAMES, SYNONYMS.values(), PLACE_WORDS.values(), RELATIONS):
        phrases += [phrase for words in group for phrase in words]
    return sorted({word for phrase in phrases for word in phrase.split()})
