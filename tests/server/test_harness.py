"""The harness itself, on nodes that ComfyUI brings: nothing of ours takes part."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_client import ClientError, ComfyClient, ExecutionError, PromptRejectedError
from comfy_server import SCRIPTS, ComfyServer, ServerError, free_port

pytestmark = pytest.mark.server


def red_square(size: int = 16) -> dict[str, Any]:
    """A prompt that saves a red square."""
    fill = {"width": size, "height": size, "batch_size": 1, "color": 0xFF0000}
    save = {"images": ["1", 0], "filename_prefix": "red"}
    return {
        "1": {"class_type": "EmptyImage", "inputs": fill},
        "2": {"class_type": "SaveImage", "inputs": save},
    }


def test_a_prompt_runs_and_its_picture_comes_back(client: ComfyClient) -> None:
    workflow = {"nodes": [], "links": [], "version": 0.4, "extra": {"mark": "ours"}}
    run = client.run(red_square(17), workflow=workflow).raise_for_status()
    assert run.executed == ["1", "2"]
    picture = Image.open(io.BytesIO(client.view(run.outputs["2"]["images"][0])))
    assert picture.size == (17, 17)
    assert picture.convert("RGB").getpixel((8, 8)) == (255, 0, 0)
    assert json.loads(picture.info["workflow"]) == workflow
    assert json.loads(picture.info["prompt"])["1"]["class_type"] == "EmptyImage"


def test_the_same_prompt_again_is_cached(client: ComfyClient) -> None:
    client.run(red_square(18)).raise_for_status()
    again = client.run(red_square(18)).raise_for_status()
    assert again.cached == {"1", "2"}
    assert again.executed == []


def test_an_invalid_prompt_is_refused_with_its_reason(client: ComfyClient) -> None:
    prompt = red_square()
    del prompt["1"]["inputs"]["batch_size"]
    with pytest.raises(PromptRejectedError, match="batch_size") as refusal:
        client.run(prompt)
    assert list(refusal.value.node_errors) == ["1"]


def test_a_failing_node_gives_its_own_message(client: ComfyClient) -> None:
    prompt = red_square()
    # Passes validation, since the link's type fits; fails when it runs: no such file.
    prompt["1"] = {"class_type": "LoadImageOutput", "inputs": {"image": "missing.png [output]"}}
    with pytest.raises((ExecutionError, PromptRejectedError), match=r"missing\.png"):
        client.run(prompt).raise_for_status()


def test_no_server_is_one_sentence() -> None:
    with pytest.raises(ClientError, match="does not answer"):
        ComfyClient(f"http://127.0.0.1:{free_port()}").object_info()


def test_a_server_that_dies_is_reported_with_its_log(comfyui: Path, tmp_path: Path) -> None:
    broken = ComfyServer(comfyui, tmp_path, arguments=["--no-such-argument"])
    with pytest.raises(ServerError, match="no-such-argument"):
        broken.start()
    assert broken.process is None


def test_the_child_leaves_when_its_parent_is_gone(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text("import time; print('up', flush=True); time.sleep(600)")
    command = [sys.executable, str(SCRIPTS / "comfy_child.py"), str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline().strip() == b"up"
        child.stdin.close()
        assert child.wait() == 1  # and not 0, after ten minutes
