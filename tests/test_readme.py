"""What the README shows of the library runs as it stands there."""

from __future__ import annotations

import doctest
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

README = Path(__file__).resolve().parents[1] / "README.md"


def write_tiny_pair(root: Path) -> None:
    """A BigGAN and a CLIP of no size, where the README has the real ones."""
    from open_clip.model import CLIP
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig
    from safetensors.torch import save_file

    gan = root / "models" / "gan" / "biggan-deep-256"
    clip = root / "models" / "open_clip" / "ViT-B-32-quickgelu-openai"
    gan.mkdir(parents=True)
    clip.mkdir(parents=True)
    settings: dict[str, Any] = {
        "output_dim": 16,
        "z_dim": 6,
        "class_embed_dim": 6,
        "channel_width": 4,
        "num_classes": 5,
        "layers": [[True, 16, 8], [False, 8, 4], [True, 4, 2], [False, 2, 1]],
        "attention_layer_position": 1,
    }
    tower = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 12, "vision_cfg": tower, "text_cfg": text}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, encoder = BigGAN(BigGANConfig(**settings)), CLIP(**model)
    network.generator.bn.weight.data.fill_(1.0)  # the package leaves these two unset
    network.generator.bn.bias.data.zero_()
    (gan / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.save(network.state_dict(), gan / "pytorch_model.bin")
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (clip / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(state, clip / "open_clip_model.safetensors")


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(README), module_relative=False, verbose=False)
    assert found.attempted >= 6
    assert found.failed == 0
    with Image.open("red-fox.png") as picture:
        assert picture.size == (16, 16)
    shutil.rmtree(tmp_path / "models")
