"""Our nodes among diffusion nodes, with a checkpoint of SD 1.5's shape and random values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_client import ComfyClient, Prompt
from comfy_server import PACK, ComfyServer
from workflow import to_prompt

from .conftest import make_prompt, pixels

NAME = "random_sd15.safetensors"
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def checkpoint(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / NAME
    command = [sys.executable, str(HERE / "make_checkpoint.py"), str(comfyui), str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def client(start: Callable[..., ComfyServer], checkpoint: Path, tmp_path: Path) -> ComfyClient:
    folder = tmp_path / "base" / "models" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / NAME).symlink_to(checkpoint)
    return ComfyClient(start().url)


def diffusion(latent: list[Any]) -> Prompt:
    """A checkpoint that samples one step from a latent, and decodes."""
    sampler = {
        **{"model": ["ckpt", 0], "positive": ["text", 0], "negative": ["text", 0]},
        **{"latent_image": latent, "seed": 1, "steps": 1, "cfg": 1.0, "denoise": 0.5},
        **{"sampler_name": "euler", "scheduler": "normal"},
    }
    return {
        "ckpt": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": NAME}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["ckpt", 1]}},
        "sample": {"class_type": "KSampler", "inputs": sampler},
        "decode": {
            "class_type": "VAEDecode",
            "inputs": {"samples": ["sample", 0], "vae": ["ckpt", 2]},
        },
    }


def score(images: list[Any]) -> Prompt:
    """The best of a batch by AugCLIP, saved."""
    ranking = {"clip": ["clip", 0], "target": ["target", 0], "images": images, "seed": 0}
    return {
        "clip": {
            "class_type": "FuseDreamLoadCLIP",
            "inputs": {"clip_name": "demo"} | {"architecture": ""},
        },
        "target": {
            "class_type": "FuseDreamEncodePrompt",
            "inputs": {"clip": ["clip", 0], "text": "a dog"},
        },
        "rank": {
            "class_type": "FuseDreamAugCLIPScore",
            "inputs": {**ranking, "num_best": 1, "num_augments": 4},
        },
        "save": {
            "class_type": "SaveImage",
            "inputs": {"images": ["rank", 2], "filename_prefix": "FuseDream"},
        },
    }


class TestMixing:
    def test_the_best_of_a_sampled_batch(self, client: ComfyClient) -> None:
        size = {"width": 64, "height": 96, "batch_size": 3}
        empty = {"empty": {"class_type": "EmptyLatentImage", "inputs": size}}
        prompt = {**empty, **diffusion(["empty", 0]), **score(["decode", 0])}
        assert pixels(client, client.run(prompt).raise_for_status()).shape == (96, 64, 3)

    def test_a_picture_of_ours_is_where_sampling_begins(self, client: ComfyClient) -> None:
        prompt = make_prompt(client)
        (save,) = (i for i, node in prompt.items() if node["class_type"] == "SaveImage")
        image = prompt[save]["inputs"]["images"]
        prompt["encode"] = {
            "class_type": "VAEEncode",
            "inputs": {"pixels": image, "vae": ["ckpt", 2]},
        }
        prompt |= diffusion(["encode", 0])
        prompt[save]["inputs"]["images"] = ["decode", 0]
        assert pixels(client, client.run(prompt).raise_for_status()).shape == (128, 128, 3)

    def test_compose_then_refine(self, client: ComfyClient) -> None:
        path = PACK / "workflows" / "compose_then_refine.json"
        info = client.object_info()
        prompt = to_prompt(json.loads(path.read_text(encoding="utf-8")), info)
        small = {"num_candidates": 24, "num_steps": 4, "num_augments": 2, "steps": 1}
        for node in prompt.values():
            node["inputs"].update({k: v for k, v in small.items() if k in node["inputs"]})
            if node["class_type"] == "CheckpointLoaderSimple":
                node["inputs"]["ckpt_name"] = NAME
            if node["class_type"] == "ImageScale":
                node["inputs"].update(width=128, height=128)
        refined = pixels(client, client.run(prompt).raise_for_status())
        assert refined.shape[2] == 3
        assert refined.std() > 0
