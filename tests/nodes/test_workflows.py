"""The example workflows agree with the nodes; that they run is shown on a real server."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
CORE_NODES = {
    "CLIPTextEncode",
    "CheckpointLoaderSimple",
    "GrowMask",
    "ImageBatch",
    "ImageInvert",
    "ImageScale",
    "ImageToMask",
    "KSampler",
    "LoadImage",
    "MarkdownNote",
    "MaskComposite",
    "MaskPreview",
    "MaskToImage",
    "PreviewAny",
    "PreviewImage",
    "SaveImage",
    "SetLatentNoiseMask",
    "VAEDecode",
    "VAEEncode",
}
NAMES = sorted(path.name for path in WORKFLOWS.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_nodes_lie_wholly_in_their_groups(name: str) -> None:
    """A node that grew once stuck out of the frame around it."""
    workflow = json.loads((WORKFLOWS / name).read_text(encoding="utf-8"))
    for group in workflow.get("groups", []):
        left, top, width, height = group["bounding"]
        for node in workflow["nodes"]:
            (x, y), (own_width, own_height) = node["pos"], node["size"]
            if left <= x < left + width and top <= y < top + height:
                assert x + own_width <= left + width, node["type"]
                assert y + own_height <= top + height, node["type"]


def test_all_are_here() -> None:
    assert NAMES == [
        "compose_then_refine.json",
        "composition.json",
        "morph_between_prompts.json",
        "rank_images_with_augclip.json",
        "start_from_a_picture.json",
        "text_to_image.json",
        "text_to_image_biggan256.json",
    ]


@pytest.mark.parametrize("name", NAMES)
class TestWorkflow:
    @pytest.fixture
    def graph(self, name: str) -> dict[str, Any]:
        return json.loads((WORKFLOWS / name).read_text(encoding="utf-8"))

    def test_known_nodes(self, pack: SimpleNamespace, graph: dict[str, Any]) -> None:
        assert graph["version"] == 0.4
        assert {node["type"] for node in graph["nodes"]} <= set(pack.nodes) | CORE_NODES

    def test_links_are_sound(self, graph: dict[str, Any]) -> None:
        nodes = {node["id"]: node for node in graph["nodes"]}
        assert graph["last_node_id"] == max(nodes)
        assert graph["last_link_id"] == max(link[0] for link in graph["links"])
        for link_id, source, slot, destination, entry, kind in graph["links"]:
            output = nodes[source]["outputs"][slot]
            socket = nodes[destination]["inputs"][entry]
            assert link_id in output["links"]
            assert socket["link"] == link_id
            assert output["type"] == kind
            assert socket["type"] in (kind, "*")

    def test_widgets_fit_the_schema(
        self, pack: SimpleNamespace, graph: dict[str, Any], name: str
    ) -> None:
        linked = ("lpips",) if "biggan" in name else ("lpips", "bank")
        own = {"start_from_a_picture": {"text": "orange", "text_share": 0.4, "num_steps": 40}}
        changed = own.get(name.removesuffix(".json"), {})
        muted = {"FuseDreamLoadLatent"} if "morph" in name else set()
        composes = any(node["type"] == "FuseDreamCompose" for node in graph["nodes"])
        search = pack.module("fusedream_core.config").CompositionRecipe().search
        wide = {name: getattr(search, name) for name in ("num_basis", "max_per_class")}
        for node in graph["nodes"]:
            if node["type"] not in pack.nodes:
                continue
            schema = pack.nodes[node["type"]].define_schema()
            values = list(node.get("widgets_values") or [])
            if node["type"] in muted:
                assert node["mode"] == 2
                continue
            for entry in schema.inputs:
                sockets = [socket for socket in node["inputs"] if socket["name"] == entry.id]
                assert len(sockets) == 1, (node["type"], entry.id)
                if not hasattr(entry, "default"):
                    wanted = not entry.optional or entry.id in linked
                    assert (sockets[0]["link"] is not None) == wanted, (node["type"], entry.id)
                    continue
                value = values.pop(0)
                if composes and node["type"] == "FuseDreamSeedSearch" and entry.id in wide:
                    assert value == wide[entry.id], entry.id
                elif entry.id.endswith("_name"):
                    assert value in entry.options or "biggan" in name, entry.id
                    assert pack.nodes[node["type"]].validate_inputs(**{entry.id: value}) is True
                elif node["type"] != "FuseDreamInvertImage" and entry.id in changed:
                    assert value == changed[entry.id], entry.id
                elif (node["type"], entry.id) == ("FuseDreamContactSheet", "tile"):
                    assert value == 128
                elif entry.id != "text":  # what a fresh node would hold, so that nothing drifts
                    assert value == entry.default, (node["type"], entry.id)
                if getattr(entry, "control_after_generate", None):
                    assert values.pop(0) == "fixed"
            assert not values, node["type"]

    def test_seeds_stay(self, graph: dict[str, Any]) -> None:
        for node in graph["nodes"]:
            names = {socket["name"] for socket in node["inputs"]}
            unchanging = node["type"] in ("FuseDreamAugCLIPScore", "FuseDreamSeedBank")
            if "seed" in names and not unchanging:
                assert "fixed" in node["widgets_values"], node["type"]
            assert "randomize" not in (node.get("widgets_values") or [])

    def test_outputs_fit_the_schema(self, pack: SimpleNamespace, graph: dict[str, Any]) -> None:
        for node in graph["nodes"]:
            if node["type"] in pack.nodes:
                outputs = pack.nodes[node["type"]].define_schema().outputs
                expected = [(output.display_name, output.io_type) for output in outputs]
                assert [(o["name"], o["type"]) for o in node["outputs"]] == expected

    def test_nothing_overlaps(self, graph: dict[str, Any]) -> None:
        title = 30
        boxes = [
            (
                n["pos"][0],
                n["pos"][1] - title,
                n["pos"][0] + n["size"][0],
                n["pos"][1] + n["size"][1],
            )
            for n in graph["nodes"]
        ]
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                assert apart, (a, b)

    def test_tells_what_to_try(self, graph: dict[str, Any]) -> None:
        notes = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
        assert len(notes) == 1
        assert len(notes[0]["widgets_values"][0]) > 100


@pytest.mark.parametrize("name", ["composition.json", "compose_then_refine.json"])
def test_both_pictures_come_from_one_search(name: str) -> None:
    graph = json.loads((WORKFLOWS / name).read_text(encoding="utf-8"))
    (compose,) = (node for node in graph["nodes"] if node["type"] == "FuseDreamCompose")
    links = {socket["name"]: socket["link"] for socket in compose["inputs"]}
    sources = {link[0]: link[1:3] for link in graph["links"]}
    assert sources[links["foreground"]] == sources[links["background"]]


def test_the_composite_is_all_that_is_saved() -> None:
    graph = json.loads((WORKFLOWS / "composition.json").read_text(encoding="utf-8"))
    kinds = {node["id"]: node["type"] for node in graph["nodes"]}
    saved = [link for link in graph["links"] if kinds[link[3]] == "SaveImage"]
    assert [(kinds[source], slot) for _, source, slot, *_ in saved] == [("FuseDreamCompose", 0)]
