"""Tests that take long, on servers of their own; run them with ``python scripts/dev.py soak``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import environment
from comfy_client import ComfyClient, Prompt
from comfy_server import PACK, ComfyServer, terminate_as_interrupt
from workflow import to_prompt

collect_ignore_glob = [] if os.environ.get("FUSEDREAM_SOAK") else ["test_*.py"]

BUDGET = {"num_candidates": 24, "num_steps": 4, "num_augments": 2}


@pytest.fixture(scope="session")
def comfyui() -> Path:
    found = environment.find_comfyui()
    if found is None:
        pytest.skip("no ComfyUI: run the tests with `python scripts/dev.py soak`")
    return found


@pytest.fixture
def start(comfyui: Path, tmp_path: Path) -> Iterator[Callable[..., ComfyServer]]:
    """Starts servers, and stops those that are left."""
    started: list[ComfyServer] = []

    def make(*arguments: str, base: str = "base") -> ComfyServer:
        (tmp_path / base / "input").mkdir(parents=True, exist_ok=True)
        shutil.copy(comfyui / "input" / "example.png", tmp_path / base / "input")
        server = ComfyServer(
            comfyui, tmp_path / base, arguments=arguments, environment={"HF_HUB_OFFLINE": "1"}
        )
        server.start()
        started.append(server)
        return server

    with terminate_as_interrupt():
        yield make
    for server in started:
        server.stop()


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a figure that is to be reported."""

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {text}\n")

    return say


def make_prompt(
    client: ComfyClient, name: str = "text_to_image", *, bank: bool = False, **values: object
) -> Prompt:
    """A shipped workflow with a small budget, and without the seed bank unless that is wanted."""
    graph = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    prompt = to_prompt(graph, client.object_info())
    if bank:
        return _set(prompt, values)
    for id_ in [i for i, node in prompt.items() if node["class_type"] == "FuseDreamSeedBank"]:
        del prompt[id_]
    for node in prompt.values():
        inputs = node["inputs"]
        if isinstance(inputs.get("bank"), list):
            del inputs["bank"]
    return _set(prompt, values)


def _set(prompt: Prompt, values: dict[str, object]) -> Prompt:
    """The prompt with a small budget, but for what is given."""
    for node in prompt.values():
        inputs = node["inputs"]
        inputs.update({k: v for k, v in {**BUDGET, **values}.items() if k in inputs})
    return prompt


def resident(server: ComfyServer) -> float:
    """Resident memory of a server in MB."""
    assert server.process is not None
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


def pixels(client: ComfyClient, run: Any) -> Any:  # noqa: ANN401 - arrays
    import io

    import numpy as np
    from PIL import Image

    import demo

    return np.asarray(Image.open(io.BytesIO(client.view(demo.saved_image(run)))))
