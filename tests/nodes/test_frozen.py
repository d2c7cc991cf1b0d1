"""Templates as users saved them at version 0.1.0, which every later version must load.

The files are never edited: those in ``workflows/`` may change, these may not. A widget value is
known by its place alone, so a widget that moves, or an option that goes, breaks them.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import workflow

FROZEN = sorted((Path(__file__).parent / "frozen").glob("*.json"))
FILES = {"gan_name", "clip_name", "lpips_name", "latent_name"}  # what is there differs by machine


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def nodes_of(graph: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes of a workflow, those of its subgraphs included."""
    inner = graph.get("definitions", {}).get("subgraphs", [])
    return [*graph["nodes"], *(node for part in inner for node in part["nodes"])]


def own_nodes(path: Path, pack: SimpleNamespace) -> list[dict[str, Any]]:
    return [node for node in nodes_of(read(path)) if node["type"] in pack.nodes]


def object_info(pack: SimpleNamespace) -> dict[str, Any]:
    """What ComfyUI's ``/object_info`` says of the pack, after its way through JSON."""
    described = {node_id: node.GET_NODE_INFO_V1() for node_id, node in pack.nodes.items()}
    return dict(json.loads(json.dumps(described)))


def test_all_are_here() -> None:
    assert [path.stem for path in FROZEN] == [
        "compose_then_refine",
        "composition",
        "morph_between_prompts",
        "rank_images_with_augclip",
        "start_from_a_picture",
        "text_to_image",
        "text_to_image_biggan256",
        "text_to_image_patience",
        "text_to_image_subgraph",
    ]


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: path.stem)
class TestFrozen:
    def test_every_value_is_still_valid(self, pack: SimpleNamespace, path: Path) -> None:
        info, checked = object_info(pack), pack.module("nodes._node").checked
        for node in own_nodes(path, pack):
            values = workflow.widget_values(node, info)
            kind = pack.nodes[node["type"]]
            given = {
                name: [value] if name in kind.whole else value
                for name, value in values.items()
                if name not in FILES
            }
            assert checked(kind, given) == given
            assert all(isinstance(values[name], str) for name in FILES & values.keys())

    def test_every_value_is_at_its_place(self, pack: SimpleNamespace, path: Path) -> None:
        """The file names the widgets beside their values; new ones may only follow them."""
        info = object_info(pack)
        for node in own_nodes(path, pack):
            saved = [socket["name"] for socket in node["inputs"] if "widget" in socket]
            known = list(workflow.widget_values(node, info))
            assert known[: len(saved)] == saved, node["type"]
            marks = sum(value == "fixed" for value in node.get("widgets_values") or [])
            assert len(node.get("widgets_values") or []) == len(saved) + marks, node["type"]

    def test_every_socket_is_still_there(self, pack: SimpleNamespace, path: Path) -> None:
        for node in own_nodes(path, pack):
            schema = pack.nodes[node["type"]].define_schema()
            kinds = {entry.id: entry.get_io_type().split(",") for entry in schema.inputs}
            for socket in node["inputs"]:
                assert set(socket["type"].split(",")) <= set(kinds[socket["name"]]), socket["name"]
            outputs = [(output.display_name, output.io_type) for output in schema.outputs]
            saved = [(output["name"], output["type"]) for output in node["outputs"]]
            assert outputs[: len(saved)] == saved, node["type"]


def test_patience_runs(
    pack: SimpleNamespace,
    gan: object,
    clip: object,
    target: object,
    basis: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A value for early stopping passes ComfyUI's own checks of a prompt, and is ignored."""
    execution = pytest.importorskip("execution")
    path = Path(__file__).parent / "frozen" / "text_to_image_patience.json"
    (node,) = (n for n in own_nodes(path, pack) if n["type"] == "FuseDreamOptimize")
    values = workflow.widget_values(node, object_info(pack))
    assert values["patience"] == 3
    given = {key: [value] for key, value in values.items()}
    given |= {"num_steps": [3], "num_augments": [2]}
    given |= {"gan": [gan], "clip": [clip], "target": [target], "basis": [basis]}
    work = execution.get_output_data(
        "prompt", "1", pack.nodes["FuseDreamOptimize"], given, hidden_inputs={}
    )
    trace = asyncio.run(work)[0][4][0]
    assert len(trace.values) == 3
    assert sum("patience" in message for message in caplog.messages) == 1
