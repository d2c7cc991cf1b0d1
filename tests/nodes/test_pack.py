"""Loading the pack: fast, silent, lazy, and the same ids for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Workflows are saved with these names, and with widget values in this order.
# Append; never rename, remove or reorder.
INTERFACE = {
    "FuseDreamLoadGAN": (["gan_name", "precision"], ["FUSEDREAM_GAN"]),
    "FuseDreamLoadCLIP": (["clip_name", "architecture", "precision"], ["FUSEDREAM_CLIP"]),
    "FuseDreamEncodePrompt": (["clip", "text"], ["FUSEDREAM_TARGET"]),
    "FuseDreamSeedSearch": (
        [
            "gan",
            "clip",
            "target",
            "seed",
            "num_candidates",
            "num_basis",
            "truncation",
            "classes",
            "max_per_class",
            "preset",
            "bank",
        ],
        ["FUSEDREAM_BASIS", "IMAGE", "STRING"],
    ),
    "FuseDreamOptimize": (
        [
            "gan",
            "clip",
            "target",
            "basis",
            "seed",
            "num_steps",
            "num_augments",
            "preset",
            "selector",
            "patience",
        ],
        ["IMAGE", "FUSEDREAM_LATENT", "FLOAT", "STRING", "FUSEDREAM_TRACE"],
    ),
    "FuseDreamAugCLIPScore": (
        ["clip", "target", "images", "num_best", "num_augments", "seed", "threshold"],
        ["STRING", "IMAGE", "IMAGE", "FLOAT", "STRING", "FLOAT", "IMAGE", "IMAGE"],
    ),
    "FuseDreamDecodeLatent": (["gan", "latent"], ["IMAGE"]),
    "FuseDreamSeedBank": (
        ["gan", "clip", "num_candidates", "truncation", "seed"],
        ["FUSEDREAM_BANK"],
    ),
    "FuseDreamMergeCLIP": (["gan", "clip_a", "clip_b", "share_b"], ["FUSEDREAM_CLIP"]),
    "FuseDreamSaveLatent": (["latent", "filename_prefix"], ["STRING"]),
    "FuseDreamLoadLatent": (["latent_name"], ["FUSEDREAM_LATENT", "STRING"]),
    "FuseDreamLatentToBasis": (
        ["gan", "clip", "target", "latent"],
        ["FUSEDREAM_BASIS", "IMAGE", "STRING"],
    ),
    "FuseDreamInterpolateLatents": (
        ["gan", "first", "last", "num_frames"],
        ["IMAGE", "FUSEDREAM_LATENT"],
    ),
    "FuseDreamInvertImage": (
        ["gan", "clip", "lpips", "image", "seed", "num_steps"],
        ["IMAGE", "FUSEDREAM_LATENT", "FLOAT", "FUSEDREAM_TRACE"],
    ),
    "FuseDreamImagePrompt": (["clip", "images", "text", "text_share"], ["FUSEDREAM_TARGET"]),
    "FuseDreamPlotTrace": (["trace", "width", "height"], ["IMAGE"]),
    "FuseDreamContactSheet": (["images", "labels", "columns", "tile"], ["IMAGE"]),
    "FuseDreamLoadLPIPS": (["lpips_name"], ["FUSEDREAM_LPIPS"]),
    "FuseDreamCompose": (
        [
            "gan",
            "clip",
            "target",
            "foreground",
            "background",
            "seed",
            "scale",
            "position",
            "num_steps",
            "num_augments",
            "preset",
            "consistency",
            "blend",
            "blend_strength",
            "lpips",
            "foreground_target",
            "background_target",
        ],
        ["IMAGE", "MASK", "IMAGE", "IMAGE", "FUSEDREAM_LATENT", "FLOAT", "STRING", "STRING"],
    ),
    "FuseDreamPoissonBlend": (  # its two pictures were the other way round; both have no widget
        ["background", "foreground", "position", "scale", "blend", "blend_strength", "mask"],
        ["IMAGE", "MASK"],
    ),
}

IMPORT_SCRIPT = """
import asyncio, importlib.util, json, sys, warnings
sys.path.insert(0, {comfyui!r})
from comfy_api.latest import io
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("pack_x", {init!r})
module = importlib.util.module_from_spec(spec)
sys.modules["pack_x"] = module
import torch
rng = torch.get_rng_state()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    spec.loader.exec_module(module)
    async def load():
        return await (await module.comfy_entrypoint()).get_node_list()
    for node in asyncio.run(load()):
        node.GET_SCHEMA()
print(json.dumps(dict(new=sorted(set(sys.modules) - before),
    same_rng=bool(torch.equal(rng, torch.get_rng_state())),
    warnings=[str(w.message) for w in caught])))
"""


@pytest.fixture(scope="module")
def report(comfyui: Path) -> dict[str, object]:
    """What importing the pack did, in a process of its own."""
    script = IMPORT_SCRIPT.format(comfyui=str(comfyui), init=str(ROOT / "__init__.py"))
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "fusedream" not in result.stderr.lower()
    return json.loads(result.stdout.splitlines()[-1])


class TestImport:
    def test_brings_little_that_was_not_there(self, report: dict[str, Any]) -> None:
        """What makes a start slow is what it imports, and that is the same on a busy machine."""
        others = [name for name in report["new"] if name.split(".")[0] != "pack_x"]
        foreign = {name.split(".")[0] for name in others} - sys.stdlib_module_names
        assert foreign <= {"PIL"}  # parts of it, for the charts; ComfyUI has the rest already
        assert len(others) < 20, others

    @pytest.mark.parametrize(
        "heavy",
        [
            "open_clip",
            "lpips",
            "pytorch_pretrained_biggan",
            "comfy.model_management",
            "comfy.model_patcher",
            "torchvision",
            "transformers",
            "huggingface_hub",
            "boto3",
            "requests",
            "scipy",
            "nodes",
        ],
    )
    def test_lazy(self, report: dict[str, object], heavy: str) -> None:
        new = report["new"]
        assert not [name for name in new if name == heavy or name.startswith(heavy + ".")]

    def test_silent(self, report: dict[str, object]) -> None:
        assert report["warnings"] == []

    def test_leaves_random_numbers_alone(self, report: dict[str, object]) -> None:
        assert report["same_rng"]


class TestNodeList:
    def test_literal_mapping_and_entrypoint_agree(self, pack: SimpleNamespace) -> None:
        mapping = pack.module("nodes").NODE_CLASS_MAPPINGS
        assert mapping == pack.nodes
        assert not hasattr(pack.root, "NODE_CLASS_MAPPINGS")  # it would win over the entrypoint

    def test_interface(self, pack: SimpleNamespace) -> None:
        found = {
            node_id: (
                [entry.id for entry in node.define_schema().inputs],
                [output.io_type for output in node.define_schema().outputs],
            )
            for node_id, node in pack.nodes.items()
        }
        assert found == INTERFACE


@pytest.mark.parametrize("node_id", INTERFACE)
class TestSchema:
    def test_described(self, pack: SimpleNamespace, node_id: str) -> None:
        schema = pack.nodes[node_id].GET_SCHEMA()
        assert schema.node_id == node_id
        assert schema.category == "FuseDream"
        assert schema.display_name.endswith("(FuseDream)")
        assert len(schema.description) > 40
        for entry in [*schema.inputs, *schema.outputs]:
            assert entry.tooltip, entry
            assert entry.tooltip.endswith((".", "blurry:-0.3")), entry.tooltip

    def test_serialisable(self, pack: SimpleNamespace, node_id: str) -> None:
        info = json.loads(json.dumps(pack.nodes[node_id].GET_NODE_INFO_V1()))
        assert info["name"] == node_id

    def test_only_loaders_have_a_fingerprint(self, pack: SimpleNamespace, node_id: str) -> None:
        own = "fingerprint_inputs" in vars(pack.nodes[node_id])
        assert own == node_id.startswith("FuseDreamLoad")

    def test_seed_takes_64_bits(self, pack: SimpleNamespace, node_id: str) -> None:
        for entry in pack.nodes[node_id].define_schema().inputs:
            if entry.id == "seed":
                assert (entry.min, entry.max) == (0, 2**64 - 1)


class TestMakeSchema:
    def test_unknown_fields_are_left_out(self, pack: SimpleNamespace) -> None:
        make_schema = pack.module("nodes._types").make_schema
        schema = make_schema(node_id="X", inputs=[], outputs=[], field_of_the_year_3000=1)
        assert schema.node_id == "X"


class TestDefaults:
    def test_widgets_follow_the_core(self, pack: SimpleNamespace) -> None:
        recipe = pack.module("fusedream_core.config").DEFAULT
        widgets = {
            (node_id, entry.id): entry.default
            for node_id, node in pack.nodes.items()
            for entry in node.define_schema().inputs
            if hasattr(entry, "default")
        }
        assert widgets["FuseDreamSeedSearch", "num_basis"] == recipe.search.num_basis
        assert widgets["FuseDreamSeedSearch", "max_per_class"] == recipe.search.max_per_class
        assert widgets["FuseDreamOptimize", "num_steps"] == recipe.optimize.num_steps
        assert widgets["FuseDreamOptimize", "num_augments"] == recipe.augment.num_augments
        assert widgets["FuseDreamOptimize", "patience"] == 0

    def test_new_widgets_of_optimize_come_after_patience(self, pack: SimpleNamespace) -> None:
        """It has no effect, but saved widget values are positional; old clients may send it."""
        schema = pack.nodes["FuseDreamOptimize"].GET_SCHEMA()
        widgets = [entry.id for entry in schema.inputs if hasattr(entry, "default")]
        assert widgets[:5] == ["seed", "num_steps", "num_augments", "preset", "patience"]
        kind, options = schema.get_v1_info(None).input["optional"]["patience"]
        assert kind == "INT"
        assert options["advanced"] is True

    def test_composition_follows_the_core(self, pack: SimpleNamespace) -> None:
        core = pack.module("fusedream_core.config")
        config = core.ComposeConfig()
        expected = {
            "num_steps": config.optimize.num_steps,
            "num_augments": core.CompositionRecipe().augment.num_augments,
            "consistency": config.consistency,
            "blend": config.blend,
            "blend_strength": config.blend_strength,
        }
        inputs = {entry.id: entry for entry in pack.nodes["FuseDreamCompose"].GET_SCHEMA().inputs}
        assert {name: inputs[name].default for name in expected} == expected
        choices = {"consistency": core.Consistency, "blend": core.BlendMode}
        for name, kind in choices.items():
            assert inputs[name].options == list(get_args(kind))

    def test_bypassed_poisson_blend_hands_the_background_on(self, pack: SimpleNamespace) -> None:
        """The frontend takes the input at the output's own place, else the first of its type."""
        schema = pack.nodes["FuseDreamPoissonBlend"].GET_SCHEMA()
        inputs = [(entry.id, entry.io_type) for entry in schema.inputs]
        handed_on = []
        for (own, own_type), output in zip(inputs, schema.outputs, strict=False):
            first = next(name for name, kind in inputs if kind == output.io_type)
            handed_on.append(own if own_type == output.io_type else first)
        assert handed_on == ["background", "mask"]

    def test_all_nodes_blend_alike(self, pack: SimpleNamespace) -> None:
        names = ["blend", "blend_strength"]
        first, second = (
            {entry.id: entry.as_dict() for entry in pack.nodes[node_id].GET_SCHEMA().inputs}
            for node_id in ("FuseDreamCompose", "FuseDreamPoissonBlend")
        )
        assert [first[name] for name in names] == [second[name] for name in names]

    def test_compose_says_how_to_search(self, pack: SimpleNamespace) -> None:
        search = pack.module("fusedream_core.config").CompositionRecipe().search
        said = f"num_basis {search.num_basis}, max_per_class {search.max_per_class}"
        for entry in pack.nodes["FuseDreamCompose"].GET_SCHEMA().inputs:
            if entry.id in ("foreground", "background"):
                assert said in entry.tooltip
