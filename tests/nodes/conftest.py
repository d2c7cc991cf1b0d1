"""The pack inside the real ComfyUI code, in this process, on models small enough for any CPU."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

TINY_GAN = {
    "output_dim": 32,
    "z_dim": 16,
    "class_embed_dim": 16,
    "channel_width": 8,
    "num_classes": 6,
    "layers": [[True, 16, 8], [True, 8, 4], [True, 4, 2], [False, 2, 1]],
    "attention_layer_position": 1,
    "eps": 1e-4,
    "n_stats": 3,
    "class_names": ["dog", "cat", "apple", "car", "rose", "fish"],
    "truncation": 0.5,
}
TINY_CLIP = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
}


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI importable, on the CPU, with an empty base directory; its code's folder."""
    given = os.environ.get("COMFYUI_DIR")
    if not given or not (Path(given) / "comfy_api").is_dir():
        pytest.skip("no ComfyUI: COMFYUI_DIR is not set (scripts/dev.py test sets it)")
    base = tmp_path_factory.mktemp("comfyui_base")
    arguments, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(base)]
    sys.path.insert(0, given)
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
    finally:
        sys.argv = arguments
    return Path(given)


@pytest.fixture(scope="session")
def pack(comfyui: Path) -> SimpleNamespace:
    """The pack, loaded as ComfyUI's ``load_custom_node`` does it.

    ``pack.nodes`` are the node classes by id; ``pack.module("nodes._models")`` is a module of it.
    """
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    root = importlib.util.module_from_spec(spec)
    sys.modules[name] = root
    spec.loader.exec_module(root)

    async def list_nodes() -> list[type]:
        extension = await root.comfy_entrypoint()
        return await extension.get_node_list()

    def module(path: str) -> ModuleType:
        return importlib.import_module(f"{name}.{path}")

    nodes = {node.GET_SCHEMA().node_id: node for node in asyncio.run(list_nodes())}
    return SimpleNamespace(root=root, nodes=nodes, module=module)


@pytest.fixture(scope="session")
def run(pack: SimpleNamespace) -> Callable[..., tuple[Any, ...]]:
    """Execute a node the way ComfyUI does, under inference mode, its widgets at their defaults.

    What comes out is what the next node would be given: records without their wrapping, and of a
    list of one its only value. A node of lists may be given single values, as by a node before it
    that makes no lists.
    """
    kept = pack.module("nodes._node").Kept

    def run_node(node_id: str, **inputs: object) -> tuple[Any, ...]:
        node = pack.nodes[node_id]
        widgets = {
            entry.id: entry.default
            for entry in node.define_schema().inputs
            if getattr(entry, "default", None) is not None
        }
        given = widgets | inputs
        if node.INPUT_IS_LIST:
            given = {k: v if isinstance(v, list) else [v] for k, v in given.items()}
        with torch.inference_mode():
            values = node.EXECUTE_NORMALIZED(**given).args
        pairs = zip(values, node.OUTPUT_IS_LIST, strict=True)
        single = [v[0] if is_list and len(v) == 1 else v for v, is_list in pairs]
        return tuple(v.record if isinstance(v, kept) else v for v in single)

    return run_node


def write_tiny_gan(folder: Path, seed: int = 0) -> Path:
    """A BigGAN-deep folder with random weights, 32 px."""
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY_GAN), encoding="utf-8")
    settings = {k: v for k, v in TINY_GAN.items() if k not in ("class_names", "truncation")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BigGAN(BigGANConfig(**settings))
    network.generator.bn.weight.data.fill_(1.0)  # the package leaves these two unset
    network.generator.bn.bias.data.zero_()
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    for name in [name for name in state if name.endswith("weight_orig")]:
        # The spectral norm of each weight; random, it makes pictures of black and white alone,
        # through which there is no gradient.
        left, _, right = torch.linalg.svd(state[name].flatten(1), full_matrices=False)
        state[name.replace("_orig", "_u")] = left[:, 0].contiguous()
        state[name.replace("_orig", "_v")] = right[0].contiguous()
    save_file(state, folder / "model.safetensors")
    return folder


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """An open_clip local-dir with random weights, 32 px."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CLIP), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CLIP(**TINY_CLIP["model_cfg"])
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def write_tiny_lpips(path: Path, make_lpips: Callable[[str], torch.nn.Module]) -> Path:
    """An LPIPS over SqueezeNet with random weights, all in one file."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = make_lpips("squeeze").state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith("lins.")}
    save_file(state, path)
    return path


@pytest.fixture(scope="session")
def tiny_models(pack: SimpleNamespace) -> Path:
    """``gan/{tiny,other}``, ``open_clip/{tiny,other}`` and an LPIPS in ComfyUI's model folder."""
    import folder_paths

    models = Path(folder_paths.models_dir)
    for seed, name in enumerate(("tiny", "other")):
        write_tiny_gan(models / "gan" / name, seed)
        write_tiny_clip(models / "open_clip" / name, seed)
    make_lpips = pack.module("fusedream_core.models.lpips").make_lpips
    write_tiny_lpips(models / "lpips" / "tiny.safetensors", make_lpips)
    return models


@pytest.fixture(scope="session")
def gan(run: Callable[..., Any], tiny_models: Path) -> Any:  # noqa: ANN401
    return run("FuseDreamLoadGAN", gan_name="tiny")[0]


@pytest.fixture(scope="session")
def clip(run: Callable[..., Any], tiny_models: Path) -> Any:  # noqa: ANN401
    return run("FuseDreamLoadCLIP", clip_name="tiny")[0]


@pytest.fixture(scope="session")
def lpips(run: Callable[..., Any], tiny_models: Path) -> Any:  # noqa: ANN401
    return run("FuseDreamLoadLPIPS", lpips_name="tiny.safetensors")[0]


@pytest.fixture(scope="session")
def target(run: Callable[..., Any], clip: object) -> Any:  # noqa: ANN401
    return run("FuseDreamEncodePrompt", clip=clip, text="a blue dog")[0]


@pytest.fixture(scope="session")
def basis(run: Callable[..., Any], gan: object, clip: object, target: object) -> Any:  # noqa: ANN401
    search = {"num_candidates": 40, "num_basis": 3}
    return run("FuseDreamSeedSearch", gan=gan, clip=clip, target=target, **search)[0]


@pytest.fixture(autouse=True)
def _global_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test, and so no node, may move a global random generator or leave a Cancel behind."""
    import random

    import numpy as np

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    if "comfy.model_management" in sys.modules:
        sys.modules["comfy.model_management"].interrupt_current_processing(False)
