"""Make a picture from a sentence: start ComfyUI, queue the workflow, save the PNG, stop ComfyUI.

Runs inside the virtual environment; ``dev.py demo`` is what a person types.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

import demo_options
import environment
from comfy_client import ClientError, ComfyClient, Run
from comfy_server import ComfyServer, ServerError, terminate_as_interrupt
from stages import say, stage
from workflow import WorkflowError, nodes_with_widget, set_widget, to_prompt

WORKFLOWS = environment.ROOT / "workflows"
OUTPUT = environment.ROOT / "output"
PROMPT_NODE = "FuseDreamEncodePrompt"
# The nodes that make the picture. Their first output is what must be saved.
PICTURE_NODES = ("FuseDreamOptimize", "FuseDreamCompose")
OFFLINE = {"HF_HUB_OFFLINE": "1"}  # the demo models are in the repository: nothing to download


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the demo made."""

    png: bytes
    score: float
    seconds: float


def edit_workflow(
    workflow: dict[str, Any], prompt: str, seed: int, object_info: dict[str, Any]
) -> None:
    """Write prompt and seed into a workflow that makes a picture from a prompt, in place.

    Raises:
        WorkflowError: If the workflow has no place for them.
    """
    prompt_nodes = [node for node in workflow["nodes"] if node["type"] == PROMPT_NODE]
    seed_nodes = list(nodes_with_widget(workflow, "seed", object_info))
    if not prompt_nodes or not seed_nodes:
        raise WorkflowError("The workflow has no node for the prompt or for the seed.")
    for node in prompt_nodes:
        set_widget(node, "text", prompt, object_info)
    for node in seed_nodes:
        set_widget(node, "seed", seed, object_info)


def make_picture(client: ComfyClient, path: Path, prompt: str, seed: int) -> Picture:
    """Queue a workflow that makes a picture from a prompt, and wait for the picture."""
    object_info = client.object_info()
    workflow = json.loads(path.read_text(encoding="utf-8"))
    edit_workflow(workflow, prompt, seed, object_info)
    queued = to_prompt(workflow, object_info)
    started = time.perf_counter()
    with progress_bar(queued) as on_event:
        run = client.run(queued, workflow=workflow, on_event=on_event).raise_for_status()
    seconds = time.perf_counter() - started
    png = client.view(made_image(run, queued))
    return Picture(png=png, score=read_score(run, queued, object_info), seconds=seconds)


@contextmanager
def progress_bar(prompt: dict[str, Any]) -> Iterator[Any]:
    """A bar for the node at work, named after it; yields what to tell of events."""
    # disable=None: no bar where nobody watches, in a log file for instance.
    with tqdm(total=1, desc="Starting", leave=False, dynamic_ncols=True, disable=None) as bar:

        def on_event(kind: str, data: dict[str, Any]) -> None:
            if kind == "executing" and data.get("node"):
                bar.set_description_str(prompt[data["node"]]["_meta"]["title"])
                bar.reset(total=1)
            elif kind == "progress":
                bar.total = data["max"]
                bar.update(data["value"] - bar.n)

        yield on_event


def saved_image(run: Run) -> dict[str, str]:
    """Where the server keeps the picture that the workflow saved.

    Raises:
        WorkflowError: If it saved none.
    """
    images = [image for output in run.outputs.values() for image in output.get("images", [])]
    saved = [image for image in images if image["type"] == "output"]
    if not saved:
        raise WorkflowError("The workflow saved no picture.")
    return saved[-1]


def made_image(run: Run, prompt: dict[str, Any]) -> dict[str, str]:
    """Where the server keeps the picture that FuseDream made, whatever else was saved.

    Raises:
        WorkflowError: If it was not saved.
    """
    for node_id in run.outputs:
        source = prompt[node_id]["inputs"].get("images")
        if prompt[node_id]["class_type"] != "SaveImage" or source is None:
            continue
        if prompt[source[0]]["class_type"] in PICTURE_NODES and source[1] == 0:
            return saved_image(replace(run, outputs={node_id: run.outputs[node_id]}))
    raise WorkflowError("The workflow does not save the picture that FuseDream made.")


def read_score(run: Run, prompt: dict[str, Any], object_info: dict[str, Any]) -> float:
    """The AugCLIP score, from the node that shows it as text.

    Raises:
        WorkflowError: If none does.
    """
    for node_id, output in run.outputs.items():
        source = prompt[node_id]["inputs"].get("source")
        if prompt[node_id]["class_type"] != "PreviewAny" or source is None:
            continue
        kind = prompt[source[0]]["class_type"]
        if kind in PICTURE_NODES and object_info[kind]["output"][source[1]] == "FLOAT":
            return float(output["text"][0])
    raise WorkflowError("The workflow does not show the score.")


def default_path(prompt: str, seed: int, workflow: str = demo_options.WORKFLOWS[0]) -> Path:
    """A file name that tells what is in the picture and, where not as usual, how it was made."""
    slug = re.sub(r"\W+", "-", prompt.lower()).strip("-_")[:60]
    slug = slug.encode()[:150].decode(errors="ignore") or "picture"  # a name has 255 bytes at most
    how = "" if workflow == demo_options.WORKFLOWS[0] else f"-{workflow}"
    return OUTPUT / f"{slug}-{seed}{how}.png"


def run_demo(options: argparse.Namespace) -> dict[str, Any]:
    """Make the picture and save it; returns what the JSON line says."""
    comfyui = Path(os.environ[environment.COMFYUI_VARIABLE])
    path: Path = options.out or default_path(options.prompt, options.seed, options.workflow)
    workflow = WORKFLOWS / f"{options.workflow}.json"
    demo_options.try_output(path)
    with (
        tempfile.TemporaryDirectory(prefix="fusedream-", ignore_cleanup_errors=True) as base,
        ExitStack() as stack,
    ):
        with stage("Starting ComfyUI"):
            server = stack.enter_context(ComfyServer(comfyui, Path(base), environment=OFFLINE))
        say(f'Making "{options.prompt}" with seed {options.seed} ...')
        picture = make_picture(ComfyClient(server.url), workflow, options.prompt, options.seed)
    path = save_picture(picture.png, path)
    return {
        "image": str(path),
        "workflow": options.workflow,
        "prompt": options.prompt,
        "seed": options.seed,
        "score": picture.score,
        "seconds": round(picture.seconds, 2),
    }


def save_picture(png: bytes, path: Path) -> Path:
    """Write a picture; where that fails, into the folder for temporary files. Returns where."""
    try:
        path.write_bytes(png)
    except OSError as error:
        handle, name = tempfile.mkstemp(prefix="fusedream-", suffix=".png")
        with os.fdopen(handle, "wb") as stream:
            stream.write(png)
        say(f"{path} could not be written ({error.strerror}); it is kept elsewhere.")
        return Path(name)
    return path


def main() -> int:
    """Parse, run, report; 0 if there is a picture."""
    parser = argparse.ArgumentParser(prog="dev.py demo")
    demo_options.add_arguments(parser)
    options = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):  # a terminal may not have all letters of a prompt
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with terminate_as_interrupt():
            result = run_demo(options)
    except (ClientError, ServerError, WorkflowError, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    print(f"Picture:       {result['image']}")
    print(f"AugCLIP score: {result['score']:.4f}")
    print(f"Seconds:       {result['seconds']}")
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
