"""Files of real models' names, shapes and types, with random values."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

_TO_16, _LAST = [(16, 16), (16, 16), (16, 16), (16, 8), (8, 8)], [(4, 4), (4, 2), (2, 2), (2, 1)]
_BLOCKS = [*_TO_16, (8, 8), (8, 8), (8, 4), *_LAST]


def write_biggan_deep_256(folder: Path) -> None:
    """BigGAN-deep-256 as the package's authors publish it: a pickle of 224 MB, here alone."""
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig

    layers = [[index % 2 == 1, *widths] for index, widths in enumerate(_BLOCKS)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = BigGAN(BigGANConfig(output_dim=256, layers=layers)).eval()
        for name, tensor in network.state_dict().items():
            if name.endswith("running_vars"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_means", "bias")):
                tensor.normal_(0, 0.1)
            elif name.endswith(("bn.weight", "gamma")):
                tensor.fill_(0.5)
        with torch.no_grad():
            network.train()(torch.randn(1, 128), torch.eye(1000)[:1], 1.0)  # finds its vectors
    folder.mkdir(parents=True)
    torch.save(
        network.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False
    )


def write_vit_b_32_quickgelu(folder: Path) -> None:
    """OpenAI's ViT-B/32 as the Hub has it for open_clip: 605 MB."""
    import open_clip
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-32-quickgelu")
    known = open_clip.get_pretrained_cfg("ViT-B-32-quickgelu", "openai")
    preprocess = {name: known[name] for name in ("mean", "std", "interpolation", "resize_mode")}
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-32-quickgelu"),
        "preprocess_cfg": preprocess,
    }
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
