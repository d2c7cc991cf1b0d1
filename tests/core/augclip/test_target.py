from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F

from fusedream_core import OpenClip, PromptError, PromptPart, encode_target


class TestEncodeTarget:
    def test_one_text(self, clip: OpenClip) -> None:
        target = encode_target(clip, "a blue dog")
        torch.testing.assert_close(target.features, clip.encode_text(["a blue dog"])[0])
        assert (target.clip_id, target.prompt) == (clip.clip_id, "a blue dog")

    def test_weighted_sum(self, clip: OpenClip) -> None:
        target = encode_target(clip, "a blue dog:2 | blurry:-0.3")
        dog, blurry = clip.encode_text(["a blue dog", "blurry"])
        torch.testing.assert_close(target.features, F.normalize(2 * dog - 0.3 * blurry, dim=0))
        assert target.parts == (PromptPart("a blue dog", 2.0), PromptPart("blurry", -0.3))

    def test_long_text_warns(self, clip: OpenClip, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, logger="fusedream_core"):
            encode_target(clip, "a dog")
            assert not caplog.records
            encode_target(clip, "a b c d e f g h")
        assert "longer than CLIP's context" in caplog.text

    def test_exception(self, clip: OpenClip) -> None:
        with pytest.raises(PromptError, match="cancel each other"):
            encode_target(clip, "a dog | a dog:-1")
        with pytest.raises(PromptError, match="prompt is empty"):
            encode_target(clip, "  ")

    def test_no_gradient_is_kept(self, clip: OpenClip) -> None:
        with torch.enable_grad():
            assert not encode_target(clip, "a dog").features.requires_grad
