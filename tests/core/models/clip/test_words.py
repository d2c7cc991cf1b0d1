"""Words that a CLIP cannot know are named, once, and never without need."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from torch import nn

from fusedream_core import OpenClip, encode_target, load_open_clip_folder
from fusedream_core.augclip.target import prompt_remarks
from fusedream_core.models.clip.ensemble import EnsembleClip
from fusedream_core.models.clip.words import unknown_words, untrained_words
from fusedream_core.models.demo import demo_clip_dir

CHINESE = "\u4e00\u53ea\u84dd\u8272\u7684\u72d7"
GREEK = "\u03ad\u03bd\u03b1\u03c2 \u03bc\u03c0\u03bb\u03b5 \u03c3\u03ba\u03cd\u03bb\u03bf\u03c2"


@pytest.fixture(scope="module")
def demo() -> OpenClip:
    return load_open_clip_folder(demo_clip_dir())


class TestStockTokenizer:
    """A CLIP whose every token was trained: the script decides."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (CHINESE, (CHINESE,)),
            (GREEK, tuple(GREEK.split())),
            (f"{CHINESE} in the style of Picasso", (CHINESE,)),
            ("\u0441\u043e\u0431\u0430\u043a\u0430", ("\u0441\u043e\u0431\u0430\u043a\u0430",)),
            ("a blue dog", ()),
            ("un caf\u00e9 bleu, na\u00efve fa\u00e7ade", ()),
            ("the structure of beta carotene, \u03b2", ()),  # one letter in a long text
            ("\uff41 \uff44\uff4f\uff47", ()),  # full-width Latin, which the tokenizer mends
            ("12:30 !?", ()),
            ("\U0001f431", ()),  # no letter
        ],
    )
    def test_value(self, clip: OpenClip, text: str, words: tuple[str, ...]) -> None:
        assert clip.unknown_words(text) == words


class TestZeroRows:
    def test_words_are_named(self, demo: OpenClip) -> None:
        assert demo.unknown_words("a blurry dog, blurry cats") == ("blurry", "cats")
        assert demo.unknown_words("eine blaue Katze") == ("eine", "blaue", "Katze")
        assert demo.unknown_words(CHINESE) == (CHINESE,)

    @pytest.mark.parametrize(
        "text",
        ["a blue dog", "A Red Rose, on a green background.", "a dog's hat", "\uff41 dog"],
    )
    def test_what_it_knows(self, demo: OpenClip, text: str) -> None:
        assert demo.unknown_words(text) == ()


class TestOtherTokenizers:
    def test_multilingual(self, clip: OpenClip) -> None:
        """Its tokenizer is not the byte-level one, and nothing is said."""
        assert untrained_words(CHINESE, SimpleNamespace(), clip.model) == ()

    def test_an_encoder_that_does_not_say(self) -> None:
        assert unknown_words(SimpleNamespace(), CHINESE) == ()  # type: ignore[arg-type]

    def test_text_tower_of_its_own(self, clip: OpenClip) -> None:
        """Models with both towers apart keep the table in the text's."""
        model = nn.Module()
        model.text = nn.Module()
        model.text.token_embedding = clip.model.token_embedding  # type: ignore[assignment]
        assert untrained_words(CHINESE, clip.tokenizer, model) == (CHINESE,)

    def test_ensemble(self, clip: OpenClip, demo: OpenClip) -> None:
        both = EnsembleClip([clip, demo], [1.0, 1.0])
        assert both.unknown_words(f"a blurry {CHINESE}") == (CHINESE, "blurry")


class TestWarning:
    def test_once_for_a_prompt(self, demo: OpenClip, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, logger="fusedream_core"):
            encode_target(demo, "a blue dog | a red cat: -0.3")
            assert not caplog.records
            encode_target(demo, "a blurry dog | blurry: -0.3 | sepia: 2")
        (record,) = caplog.records
        assert record.getMessage().startswith("This CLIP was not trained on 'blurry', 'sepia', ")

    def test_many_words(self, demo: OpenClip) -> None:
        (remark,) = prompt_remarks(demo, "q w e r t y u i o p")
        assert "'q', 'w', 'e', 'r', 't', 'y', 'u', 'i' and 2 more" in remark

    def test_syntax_of_other_programs(
        self, clip: OpenClip, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="fusedream_core"):
            target = encode_target(clip, "(red:1.2) dog")
        assert [part.text for part in target.parts] == ["(red:1.2) dog"]  # as it was typed
        assert "'(red:1.2)' is another program's way" in caplog.text
