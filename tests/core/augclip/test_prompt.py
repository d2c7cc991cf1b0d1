from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedream_core import PromptError, PromptPart, parse_prompt
from fusedream_core.augclip.prompt import misread

DIGITS = ("0123456789", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19")
MINUS = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
PLUS = "+\ufe62\uff0b"
POINTS = ".,\u3002\uff0c\uff0e"
COLONS = ":\uff1a\ufe55"
BARS = "|\uff5c\n\r"
SPACES = st.text(" \t\u3000\xa0", max_size=3)
# Texts that no weight can hide in: letters of several scripts, and signs that mean nothing.
TEXTS = st.text("abcdefg \u4e00\u53ea\u72d7\u03b1\u00e9'&!", min_size=1).filter(str.strip)

# The grammar as it was: no spaces, ASCII signs, one kind of colon.
OLD = re.compile(r"(?P<text>.*)(?<!\d):(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))", re.DOTALL | re.ASCII)


class TestParsePrompt:
    @pytest.mark.parametrize(
        ("prompt", "parts"),
        [
            ("a blue dog", [("a blue dog", 1.0)]),
            ("a blue dog:1 | blurry:-0.3", [("a blue dog", 1.0), ("blurry", -0.3)]),
            ("a dog\na boat:.5\r\n", [("a dog", 1.0), ("a boat", 0.5)]),
            (" | a dog ||", [("a dog", 1.0)]),
            ("3:4 photo", [("3:4 photo", 1.0)]),
            ("time: now", [("time: now", 1.0)]),
            ("a clock at 10:30", [("a clock at 10:30", 1.0)]),
            ("room 5 :2", [("room 5", 2.0)]),
            ("sign: stop:+2.", [("sign: stop", 2.0)]),
            ("a dog:0 | a cat", [("a dog", 0.0), ("a cat", 1.0)]),
            ("blurry:-1", [("blurry", -1.0)]),
            ("hot dog::2", [("hot dog:", 2.0)]),
        ],
    )
    def test_value(self, prompt: str, parts: list[tuple[str, float]]) -> None:
        assert parse_prompt(prompt) == tuple(PromptPart(*part) for part in parts)

    @pytest.mark.parametrize(
        ("prompt", "parts"),
        [
            ("a blue dog | red: -0.3", [("a blue dog", 1.0), ("red", -0.3)]),
            ("time: 5", [("time", 5.0)]),
            ("red : -0.3", [("red", -0.3)]),
            ("red: - 0.3", [("red", -0.3)]),
            ("red:\t2 ", [("red", 2.0)]),
            ("red: \u22120.3", [("red", -0.3)]),  # a minus sign
            ("red:\u20130.3", [("red", -0.3)]),  # the dash of a word processor
            ("red:\u20140.3", [("red", -0.3)]),  # the dash that a phone makes of two
            ("red: 0,5", [("red", 0.5)]),  # as Europe writes it
            ("red: -,5", [("red", -0.5)]),
            ("sign: stop: 2", [("sign: stop", 2.0)]),
            ("red: 100", [("red", 100.0)]),
            (
                "\u84dd\u8272\u7684\u72d7\uff5c\u6a21\u7cca\uff1a\uff0d\uff10\uff0e\uff13",
                [("\u84dd\u8272\u7684\u72d7", 1.0), ("\u6a21\u7cca", -0.3)],
            ),
            ("\u72d7\uff1a \uff0b\uff12", [("\u72d7", 2.0)]),
            ("\u72d7\uff1a-0\u30025", [("\u72d7", -0.5)]),  # the Chinese full stop
            ("\u72d7\uff1a2\u3002", [("\u72d7", 2.0)]),
            ("\u732b\u3000\uff1a\u3000\uff0d\uff11", [("\u732b", -1.0)]),
            ("\u732b:\uff12\n\u72d7", [("\u732b", 2.0), ("\u72d7", 1.0)]),
            (
                "\u6807\u9898\uff1a\u4e00\u53ea\u732b",
                [("\u6807\u9898\uff1a\u4e00\u53ea\u732b", 1.0)],
            ),
        ],
    )
    def test_a_weight_however_it_is_typed(
        self, prompt: str, parts: list[tuple[str, float]]
    ) -> None:
        assert parse_prompt(prompt) == tuple(PromptPart(*part) for part in parts)

    @pytest.mark.parametrize(
        "prompt",
        [
            "at 12:30",
            "at 12: 30",
            "a photo in 16 : 9",
            "\u665a\u4e0a\uff11\uff12\uff1a\uff13\uff10",
            "\u6bd4\u4f8b16\uff1a9",
            "a page of http://",
            "http:/:3",
            "a dog:",
            "a dog: x2",
            "(red:1.2) dog",
            "a (red:1.2)",
            "[a:b:0.5]",
            "<lora:x:0.8>",
        ],
    )
    def test_no_weight(self, prompt: str) -> None:
        assert parse_prompt(prompt) == (PromptPart(prompt, 1.0),)

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ("", "The prompt is empty; describe"),
            (" \n | \uff5c", "The prompt is empty"),
            ("a dog:0 | a cat:0.0", "All weights of the prompt 'a dog:0 | a cat:0.0' are 0"),
            ("a dog | :2", "weight without a text, ':2'"),
            ("a dog | \uff1a \uff12", "weight without a text"),
            ("a dog:" + "9" * 400, "weight of 'a dog' is too large"),
            ("a dog: -101", "weight of 'a dog' is too large, 101; it may be from -100 to 100"),
            ("a dog:\uff11\uff10\uff11", "weight of 'a dog' is too large"),
            ("localhost:8080", "weight of 'localhost' is too large, 8080"),
            ("a blue dog: 1,000", "weight of 'a blue dog' is 1,000, in which the comma may part"),
            ("a dog | red: -12\uff0c500", "weight of 'red' is 12\uff0c500, in which the comma"),
            ("a dog | \u200b: 2", "weight without a text"),
        ],
    )
    def test_exception(self, prompt: str, message: str) -> None:
        with pytest.raises(PromptError, match=message):
            parse_prompt(prompt)


class TestUnseen:
    @pytest.mark.parametrize(
        "prompt",
        [
            "\u200b",
            "\u200b\u200d|\ufeff",
            "\u2800",
            "\u3164\uffa0",
            "\ufe0f",
            "\x01\x1b",
            "\u2060\n\xad",
        ],
    )
    def test_prompt_of_unseen_characters_is_empty(self, prompt: str) -> None:
        with pytest.raises(PromptError, match="The prompt is empty"):
            parse_prompt(prompt)

    def test_part_of_unseen_characters_is_skipped(self) -> None:
        assert parse_prompt("a dog|\u200b|") == (PromptPart("a dog", 1.0),)

    @pytest.mark.parametrize("prompt", ["\U0001f415", "?", "\u0915\u093e", "a\u0301", "\u200bx"])
    def test_what_is_seen(self, prompt: str) -> None:
        assert parse_prompt(prompt) == (PromptPart(prompt, 1.0),)

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ("a dog\0", "holds a zero byte at place 6"),
            ("\0", "holds a zero byte at place 1"),
            ("a\ud800", "something that is no character at place 2"),
        ],
    )
    def test_what_is_no_text(self, prompt: str, message: str) -> None:
        with pytest.raises(PromptError, match=message):
            parse_prompt(prompt)


class TestCommas:
    @pytest.mark.parametrize(
        ("prompt", "weight"),
        [
            *(("x: 1,5", 1.5), ("x: 0,125", 0.125), ("x: 1,25", 1.25), ("x: 1,2345", 1.2345)),
            *(("x: ,125", 0.125), ("x: 1.000", 1.0), ("x: 1,", 1.0)),
        ],
    )
    def test_comma_of_a_fraction(self, prompt: str, weight: float) -> None:
        assert parse_prompt(prompt) == (PromptPart("x", weight),)


class TestLength:
    """Two passes for each of these characters would take longer than any test may."""

    NUM = 300_000

    @pytest.mark.parametrize(
        ("start", "middle", "end"),
        [
            *(("a:", " ", "b"), ("a", ":", "b"), ("a:", "1", "b"), ("a:-", " ", "b")),
            *(("a:", "1", ".."), ("a:", ".", ""), ("a:", "+", "b"), ("a ", " :", " 1b")),
            *(("{", "a,", ""), ("[", "a:", ""), ("[", ":1", "x"), ("(", "a:", ""), ("(", ": ", "")),
            *(("", "(", ""), ("", "((", "a"), ("", "[", ""), ("", "{", ""), ("__", "_", " ")),
            *(
                ("<a", "a", ""),
                ("<", "<a:", ""),
                ("(a)", "1", "x"),
                ("(a:", "1", "x"),
                ("a/", "/", ":1"),
            ),
        ],
    )
    def test_one_pass(self, start: str, middle: str, end: str) -> None:
        prompt = start + middle * self.NUM + end
        assert len(parse_prompt(prompt)) == 1
        assert len(misread(prompt)) <= 2

    def test_one_pass_over_choices(self) -> None:
        for start in "{[":
            prompt = start + "a|" * self.NUM
            assert len(parse_prompt(prompt)) == self.NUM
            assert misread(prompt) == ()


def typed(digits: str, point: str, number: str) -> str:
    """A number in the signs of some keyboard."""
    return number.translate(str.maketrans("0123456789.", digits + point))


class TestProperties:
    @given(
        text=TEXTS,
        hundredths=st.integers(0, 10_000),
        sign=st.sampled_from(["", *MINUS, *PLUS]),
        digits=st.sampled_from(DIGITS),
        point=st.sampled_from(POINTS),
        colon=st.sampled_from(COLONS),
        gaps=st.tuples(SPACES, SPACES, SPACES, SPACES),
    )
    @settings(derandomize=True, max_examples=300, deadline=None)
    def test_what_is_typed_is_what_counts(
        self,
        text: str,
        hundredths: int,
        sign: str,
        digits: str,
        point: str,
        colon: str,
        gaps: tuple[str, str, str, str],
    ) -> None:
        number = typed(digits, point, f"{hundredths // 100}.{hundredths % 100:02}")
        prompt = f"x|{text}{gaps[0]}{colon}{gaps[1]}{sign}{gaps[2]}{number}{gaps[3]}"
        size = float(f"{hundredths // 100}.{hundredths % 100:02}")
        expected = PromptPart(text.strip(), -size if sign and sign in MINUS else size)
        assert parse_prompt(prompt) == (PromptPart("x", 1.0), expected)
        assert misread(prompt) == ()

    @given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from(BARS))
    @settings(derandomize=True, max_examples=100, deadline=None)
    def test_parts_are_kept_in_their_order(self, texts: list[str], bar: str) -> None:
        found = [part.text for part in parse_prompt(bar.join(texts))]
        assert found == [text.strip() for text in texts]

    @given(st.text("ab:+-.|0123456789\n", max_size=20))
    @settings(derandomize=True, max_examples=500, deadline=None)
    def test_what_worked_before_means_the_same(self, prompt: str) -> None:
        """Without spaces, prompts of ASCII signs are read as ever; but no weight is over 100."""
        parts = [part for part in re.split(r"[|\n]", prompt) if part]
        old = [OLD.fullmatch(part) for part in parts]
        weights = [float(match["weight"]) if match else 1.0 for match in old]
        texts = [match["text"] if match else part for match, part in zip(old, parts, strict=True)]
        valid = all(texts) and any(weights) and max(map(abs, weights), default=0.0) <= 100.0
        if valid:
            expected = tuple(map(PromptPart, texts, weights))
            assert parse_prompt(prompt) == expected
        else:
            with pytest.raises(PromptError):
                parse_prompt(prompt)


class TestMisread:
    @pytest.mark.parametrize(
        ("prompt", "named"),
        [
            ("a (blue:1.2) dog", "(blue:1.2)"),
            ("(a blue dog: 0,8)", "(a blue dog: 0,8)"),
            ("a (blue)1.3 dog", "(blue)1.3"),
            ("a (blue)++ dog", "(blue)++"),
            ("a ((blue)) dog", "((blue))"),
            ("a [[blue]] dog", "[[blue]]"),
            ("a {red|blue} dog", "{red|blue}"),
            ("a [dog:cat:0.5]", "[dog:cat:0.5]"),
            ("a [dog|cat]", "[dog|cat]"),
            ("a dog <lora:emoji:0.8>", "<lora:emoji:0.8>"),
            ("a __color__ dog", "__color__"),
            ("\uff08\u84dd\u8272\uff1a\uff11\uff0e\uff12\uff09\u7684\u72d7", "(\u84dd\u8272:1.2)"),
        ],
    )
    def test_syntax_of_other_programs(self, prompt: str, named: str) -> None:
        (note,) = misread(prompt)
        assert note.startswith(f"{named!r} is another program's way")
        assert "'a blue dog | red: -0.3'" in note

    @pytest.mark.parametrize(
        "part",
        [
            *("red:1.2.3", "red: --0.3", "red: +-1", "red:50%", "red: 1e-3", "red 5 : 2"),
            *("area 51: -0.3", "area 51:\u22121", "area 51 : +2"),
        ],
    )
    def test_a_number_that_is_no_weight(self, part: str) -> None:
        assert parse_prompt(part) == (PromptPart(part, 1.0),)
        (note,) = misread(f"a dog | {part}")
        assert note.startswith(f"The end of {part!r} is not read as a weight")

    @pytest.mark.parametrize(
        "prompt",
        [
            "a blue dog | blurry: -0.3",
            "a dog (blue) in a [box]",
            "a note: draft",
            "[note: draft]",
            "at 12:30",
            "C++ code",
            "snake_case",
            "5 < 6 > 4",
            "a smile :)",
        ],
    )
    def test_plain_words(self, prompt: str) -> None:
        assert misread(prompt) == ()
