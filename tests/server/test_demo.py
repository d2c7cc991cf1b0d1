"""The command that the README starts with."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

import demo
import demo_options
from comfy_client import ComfyClient, Run
from comfy_server import SCRIPTS
from workflow import WorkflowError, set_widget

pytestmark = pytest.mark.server

BUDGET = {"num_candidates": 24, "num_steps": 4, "num_augments": 4}


def small_workflow(name: str, path: Path, object_info: dict[str, Any]) -> Path:
    """A shipped workflow with a small budget, as a file."""
    workflow = json.loads((demo.WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        for name, value in BUDGET.items():
            if any(i["name"] == name for i in node.get("inputs", [])):
                set_widget(node, name, value, object_info)
    path.write_text(json.dumps(workflow), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", demo_options.WORKFLOWS)
def test_the_picture_carries_its_workflow(
    client: ComfyClient, object_info: dict[str, Any], tmp_path: Path, name: str
) -> None:
    path = small_workflow(name, tmp_path / "w.json", object_info)
    picture = demo.make_picture(client, path, "a green car", 2**64 - 1)
    assert -1 <= picture.score <= 1
    assert picture.seconds > 0
    embedded = json.loads(Image.open(io.BytesIO(picture.png)).info["workflow"])
    values = [value for node in embedded["nodes"] for value in node.get("widgets_values") or []]
    assert "a green car" in values
    assert 2**64 - 1 in values


def test_a_workflow_without_a_place_for_the_prompt_is_refused() -> None:
    with pytest.raises(WorkflowError, match="no node for the prompt"):
        demo.edit_workflow({"nodes": []}, "a dog", 0, {})


def test_a_run_that_saved_nothing_is_refused() -> None:
    run = Run(prompt_id="1", outputs={"7": {"images": [{"type": "temp"}]}})
    with pytest.raises(WorkflowError, match="saved no picture"):
        demo.saved_image(run)


def test_the_composite_is_the_picture() -> None:
    """Whatever else a workflow saves, and in whatever order."""
    prompt = {
        "1": {"class_type": "FuseDreamCompose", "inputs": {}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 2]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 3]}},
    }
    saved = {id_: {"images": [{"type": "output", "filename": f"{id_}.png"}]} for id_ in "234"}
    run = Run(prompt_id="1", outputs=saved)
    assert demo.made_image(run, prompt)["filename"] == "3.png"
    del prompt["3"], saved["3"]
    with pytest.raises(WorkflowError, match="does not save the picture"):
        demo.made_image(run, prompt)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("A blue dog!", "a-blue-dog-3.png"), ("?", "picture-3.png"), ("x" * 99, "x" * 60 + "-3.png")],
)
def test_the_file_is_named_after_the_prompt(prompt: str, name: str) -> None:
    assert demo.default_path(prompt, 3).name == name


def test_a_composition_does_not_overwrite_the_other_picture() -> None:
    assert demo.default_path("a dog", 3, "composition").name == "a-dog-3-composition.png"
    assert demo.default_path("a dog", 3, "text_to_image").name == "a-dog-3.png"


@pytest.mark.slow
def test_the_command(comfyui: Path, tmp_path: Path) -> None:
    """All of it, with the full budget; the server is gone afterwards."""
    path = tmp_path / "new folder" / "apple.png"
    command = [sys.executable, str(SCRIPTS / "demo.py"), "a red apple", "--out", str(path)]
    command += ["--seed", "1", "--json"]
    environment = {**os.environ, "COMFYUI_DIR": str(comfyui)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == ["image", "workflow", "prompt", "seed", "score", "seconds"]
    assert result["image"] == str(path)
    assert (result["prompt"], result["seed"]) == ("a red apple", 1)
    assert result["workflow"] == "text_to_image"
    assert Image.open(path).size[0] >= 64


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM cannot be caught there")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_server_never_outlives_the_command(comfyui: Path, sent: signal.Signals) -> None:
    environment = {**os.environ, "COMFYUI_DIR": str(comfyui)}
    command = [sys.executable, str(SCRIPTS / "demo.py"), "a dog"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        server = wait_for_child(process.pid)
        process.send_signal(sent)
        said = process.stderr.read()
    assert process.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    assert ("Stopped." in said) == (sent != signal.SIGKILL)
    assert "Traceback" not in said
    server.wait()  # the suite's own limit ends this if the server stays


def wait_for_child(pid: int) -> psutil.Process:
    """The server that the demo starts, once it runs."""
    parent = psutil.Process(pid)
    while parent.is_running():
        for child in parent.children():
            if "comfy_child.py" in " ".join(child.cmdline()):
                return child
        psutil.wait_procs([parent], timeout=0.1)
    pytest.fail("the demo ended before it started its server")


def test_options_have_defaults() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    demo_options.add_arguments(parser)
    options = parser.parse_args([])
    defaults = {"prompt": "a blue dog", "seed": 0, "out": None, "json": False}
    assert vars(options) == {**defaults, "workflow": "text_to_image"}
