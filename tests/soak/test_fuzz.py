"""Inputs that nobody thought of: every answer is a result or a clear sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from comfy_client import ClientError, ComfyClient, ExecutionError, Prompt, PromptRejectedError
from comfy_server import ComfyServer

from .conftest import make_prompt

CASES = 300
SIZES = st.integers(1, 70)
WORDS = st.one_of(
    st.sampled_from(["", " ", "a blue dog", "a:|b:-1", "a dog:1e999", "a | a:-1", "x" * 500]),
    st.text(max_size=40),
)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -1, 1, 2, 3, 2**64 - 1, 2**64]),
)
ODD = st.one_of(NUMBERS, WORDS, st.none(), st.booleans(), st.lists(st.integers(), max_size=2))


@pytest.fixture
def client(start: Callable[..., ComfyServer]) -> ComfyClient:
    return ComfyClient(start().url)


def cheap(value: object, most: int) -> object:
    """Numbers that the schema takes, but that take no minutes; -1 may mean a thousand steps."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return most if -1 <= value < 0 or most < value <= 1_000_000 else value
    return value


def sentence(error: ClientError, prompt: Prompt) -> None:
    """Whether an answer says something of the pack's own or of ComfyUI's validation."""
    text = str(error)
    assert text.strip(), prompt
    assert "Traceback" not in text, prompt
    if isinstance(error, ExecutionError):
        # Python's own messages are fragments; ours are sentences with a full stop.
        assert len(text.split()) > 4, (text, prompt)
        assert text.rstrip().endswith((".", "?")), (text, prompt)
    else:
        assert isinstance(error, PromptRejectedError), (text, prompt)


class TestFuzz:
    @pytest.mark.timeout(3000)
    def test_every_answer_is_a_result_or_a_sentence(
        self, client: ComfyClient, tell: Callable[[str], None]
    ) -> None:
        base = make_prompt(client)
        widgets = [
            (id_, name)
            for id_, node in base.items()
            if node["class_type"].startswith("FuseDream")
            for name, value in node["inputs"].items()
            if not isinstance(value, list)
        ]
        counts: dict[str, int] = {"success": 0, "refused": 0, "said": 0}

        @settings(
            max_examples=CASES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(st.tuples(st.sampled_from(widgets), ODD), min_size=1, max_size=3))
        def ask(changes: list[tuple[tuple[str, str], Any]]) -> None:
            prompt = make_copy(base)
            for (id_, name), value in changes:
                most = 40 if name == "num_candidates" else 6
                prompt[id_]["inputs"][name] = cheap(value, most)
            counts[answer(client, prompt)] += 1

        ask()
        tell(str(counts))
        assert counts["success"] > 0
        assert counts["refused"] + counts["said"] > 0

    def test_pictures_of_any_size(self, client: ComfyClient) -> None:
        path = "rank_images_with_augclip"
        base = make_prompt(client, path)

        @settings(max_examples=30, deadline=None, derandomize=True, database=None)
        @given(SIZES, SIZES, st.integers(1, 3))
        def ask(width: int, height: int, number: int) -> None:
            prompt = make_copy(base)
            for node in prompt.values():
                if node["class_type"] == "LoadImage":
                    node["class_type"] = "EmptyImage"
                    size = {"width": width, "height": height, "batch_size": number}
                    node["inputs"] = {**size, "color": 0x336699}
            ended = answer(client, prompt)
            assert ended == ("success" if min(width, height) >= 8 else "said"), (width, height)

        ask()


def make_copy(prompt: Prompt) -> Prompt:
    return {id_: {**node, "inputs": dict(node["inputs"])} for id_, node in prompt.items()}


def answer(client: ComfyClient, prompt: Prompt) -> str:
    """Run a prompt; how it ended."""
    try:
        client.run(prompt, seconds=120).raise_for_status()
    except PromptRejectedError as error:
        sentence(error, prompt)
        return "refused"
    except ExecutionError as error:
        sentence(error, prompt)
        return "said"
    return "success"
