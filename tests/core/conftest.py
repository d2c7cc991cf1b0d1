"""Models small enough to run thousands of times: random weights, files in the real formats."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusedream_core import (
    Basis,
    BigGan,
    Latent,
    OpenClip,
    Target,
    encode_target,
    load_biggan,
    load_open_clip_folder,
    make_generator,
)
from fusedream_core.optimize.problems import Problems

TINY_GAN: dict[str, Any] = {
    "output_dim": 16,
    "z_dim": 6,
    "class_embed_dim": 6,
    "channel_width": 4,
    "num_classes": 5,
    "layers": [[True, 16, 8], [False, 8, 4], [True, 4, 2], [False, 2, 1]],
    "attention_layer_position": 1,
    "eps": 1e-4,
    "n_stats": 6,
}
CLASS_NAMES = ["dog", "cat", "apple", "crane", "crane"]
TINY_CLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 16,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    },
    "preprocess_cfg": {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
    },
}


@pytest.fixture(params=["each problem by itself", "all together"])
def grouping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which problems of a batch go through the networks together: as on a CPU, as elsewhere."""

    def all_rows(_: Problems, problems: Sequence[int]) -> list[list[int]]:
        return [list(range(len(problems)))]

    if request.param == "all together":
        monkeypatch.setattr(Problems, "_groups", all_rows)
    return str(request.param)


def make_package_gan(seed: int = 0, **settings: object) -> nn.Module:
    """The package's own model with every tensor set: its constructor leaves some as they lie."""
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig

    generator = make_generator(seed)
    with torch.random.fork_rng(devices=[]):
        network = BigGAN(BigGANConfig(**{**TINY_GAN, **settings}))
    state = network.state_dict()
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("running_vars", "bn.weight")):
            tensor.copy_(noise.abs() + 0.5)
        elif name.endswith(("bias", "running_means")):
            tensor.copy_(0.2 * noise)  # small, so that few units are dead
        else:
            tensor.copy_(noise)
    for name in [name for name in state if name.endswith("weight_orig")]:
        left, _, right = torch.linalg.svd(state[name].flatten(1), full_matrices=False)
        state[name.replace("_orig", "_u")].copy_(left[:, 0])
        state[name.replace("_orig", "_v")].copy_(right[0])
    return network.eval()


@pytest.fixture
def package_gan() -> Callable[..., nn.Module]:
    """Makes the package's model with random weights, see ``make_package_gan``."""
    return make_package_gan


@pytest.fixture(scope="session")
def gan_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator's folder: 16 px, dim_z 6, 5 classes."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("gan")
    config = {**TINY_GAN, "class_names": CLASS_NAMES, "truncation": 0.6}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(make_package_gan().state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP's folder: 16 px, 12 features, texts of up to 6 tokens."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CLIP), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = CLIP(**TINY_CLIP["model_cfg"]).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def gan(gan_dir: Path) -> BigGan:
    return load_biggan(gan_dir)


@pytest.fixture(scope="session")
def clip(clip_dir: Path) -> OpenClip:
    return load_open_clip_folder(clip_dir)


@pytest.fixture(scope="session")
def gan64(gan: BigGan) -> BigGan:
    """The same generator in float64, for comparisons that must be exact."""
    return copy.deepcopy(gan).double()


@pytest.fixture(scope="session")
def clip64(clip: OpenClip) -> OpenClip:
    return copy.deepcopy(clip).double()


@pytest.fixture
def rng() -> torch.Generator:
    return make_generator(7)


@pytest.fixture
def images(rng: torch.Generator) -> Tensor:
    """Four images of 16 px in [-1, 1]."""
    return torch.rand(4, 3, 16, 16, generator=rng) * 2 - 1


@pytest.fixture(scope="session")
def targets64(clip64: OpenClip) -> list[Target]:
    return [encode_target(clip64, text) for text in ("a blue dog", "a red apple", "a cat")]


@pytest.fixture
def bases64(gan64: BigGan) -> list[Basis]:
    """Three bases of three latents each, of three classes."""
    generator = make_generator(11)
    bases = []
    for _ in range(3):
        z = gan64.sample_z(3, truncation=0.6, generator=generator)
        classes = torch.randperm(5, generator=generator)[:3]
        latent = Latent(z, gan64.embed(classes), 0.6)
        bases.append(Basis(latent, torch.zeros(3), classes, gan64.gan_id, "prompt"))
    return bases


@pytest.fixture(autouse=True)
def _global_generators_untouched() -> Iterator[None]:
    """No test, and so nothing in the core, may move a global random generator."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002
