from __future__ import annotations

import pytest

from fusedream_core import PromptError, PromptPart, parse_prompt


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
            ("time: 5", [("time: 5", 1.0)]),
            ("a clock at 10:30", [("a clock at 10:30", 1.0)]),
            ("room 5 :2", [("room 5", 2.0)]),
            ("sign: stop:+2.", [("sign: stop", 2.0)]),
            ("a dog:0 | a cat", [("a dog", 0.0), ("a cat", 1.0)]),
            ("blurry:-1", [("blurry", -1.0)]),
        ],
    )
    def test_value(self, prompt: str, parts: list[tuple[str, float]]) -> None:
        assert parse_prompt(prompt) == tuple(PromptPart(*part) for part in parts)

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ("", "The prompt is empty; write"),
            (" \n | ", "The prompt is empty"),
            ("a dog:0 | a cat:0.0", "All weights of the prompt 'a dog:0 | a cat:0.0' are 0"),
            ("a dog | :2", "weight without a text, ':2'"),
            ("a dog:" + "9" * 400, "weight of 'a dog' is too large"),
        ],
    )
    def test_exception(self, prompt: str, message: str) -> None:
        with pytest.raises(PromptError, match=message):
            parse_prompt(prompt)
