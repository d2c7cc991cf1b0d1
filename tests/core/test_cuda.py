"""What only a real CUDA device can show: equal bits, half precision, and memory that runs out."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    DEFAULT,
    Bank,
    BigGan,
    CompositionRecipe,
    Lpips,
    OpenClip,
    Recipe,
    generate,
    generate_composition,
    load_demo,
    load_demo_bank,
    load_demo_lpips,
    load_open_clip_folder,
    make_generator,
)

from ..elsewhere import full_precision, needs_cuda
from .conftest import TINY_CLIP

pytestmark = needs_cuda
CUDA = torch.device("cuda")
SHORT = replace(DEFAULT, optimize=replace(DEFAULT.optimize, num_steps=20))


@pytest.fixture(scope="module")
def pair() -> tuple[BigGan, OpenClip]:
    gan, clip = load_demo()
    return gan.to(CUDA), clip.to(CUDA)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return load_demo_bank()


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return load_demo_lpips().to(CUDA)


def generated(pair: tuple[BigGan, OpenClip], bank: Bank, recipe: Recipe = SHORT) -> Tensor:
    return generate("a blue dog", gan=pair[0], clip=pair[1], bank=bank, recipe=recipe).images


@contextmanager
def at_most(spare_bytes: int) -> Iterator[None]:
    """While it lasts, PyTorch gets so much more memory than it has, and no more."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(CUDA) + spare_bytes) / total
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class TestSameSeedSameImage:
    def test_text_to_image(self, pair: tuple[BigGan, OpenClip], bank: Bank) -> None:
        assert torch.equal(generated(pair, bank), generated(pair, bank))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_in_half_precision(
        self, pair: tuple[BigGan, OpenClip], bank: Bank, dtype: torch.dtype
    ) -> None:
        gan, clip = copy.deepcopy(pair)
        gan.to(dtype)
        clip.to(dtype)
        assert torch.equal(generated((gan, clip), bank), generated((gan, clip), bank))

    def test_composition(self, pair: tuple[BigGan, OpenClip], bank: Bank, lpips: Lpips) -> None:
        recipe = CompositionRecipe()
        steps = replace(recipe.compose.optimize, num_steps=8)
        recipe = replace(recipe, compose=replace(recipe.compose, optimize=steps))
        made = [
            generate_composition(
                "a dog and a house",
                gan=pair[0],
                clip=pair[1],
                perceptual=lpips,
                bank=bank,
                recipe=recipe,
                foreground_prompt="a dog",
            ).images
            for _ in range(2)
        ]
        assert torch.equal(*made)


TOWERS: dict[str, dict[str, Any]] = {  # of 196 tokens and more
    "open_clip": {"layers": 2, "width": 256, "head_width": 32, "patch_size": 8},
    "timm": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "token",
        "timm_proj": "linear",
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tower", TOWERS)
def test_many_tokens_have_the_same_gradient_twice(
    tower: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Where the fused forms of attention have not."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    side = 224 if tower == "timm" else 112
    model = TINY_CLIP["model_cfg"] | {"vision_cfg": {"image_size": side, **TOWERS[tower]}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = {name: value.contiguous() for name, value in CLIP(**model).state_dict().items()}
    config = json.dumps(TINY_CLIP | {"model_cfg": model})
    (tmp_path / "open_clip_config.json").write_text(config, encoding="utf-8")
    save_file(state, tmp_path / "open_clip_model.safetensors")
    clip = load_open_clip_folder(tmp_path).to(CUDA)
    clip.to(dtype)
    images = torch.rand(8, 3, side, side, generator=make_generator(0)).mul(2).sub(1).to(CUDA)

    def gradient() -> Tensor:
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(clip.encode_images(leaf)[:, 0].sum(), leaf)[0]

    first = gradient()
    assert bool(first.any())
    assert all(torch.equal(first, gradient()) for _ in range(8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_makes_the_same_image(
    pair: tuple[BigGan, OpenClip], bank: Bank, dtype: torch.dtype
) -> None:
    z, y = bank.sample_z(pair[0])[:4], pair[0].embed(bank.class_index[:4])
    gan = copy.deepcopy(pair[0])
    gan.to(dtype)
    with torch.no_grad(), full_precision():
        exact, coarse = (one.decode(z, y, truncation=bank.truncation) for one in (pair[0], gan))
    assert coarse.dtype == torch.float32
    assert float((exact - coarse).abs().mean()) < 0.02


def test_goes_on_with_less_at_once_when_memory_runs_out(
    pair: tuple[BigGan, OpenClip], bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    """The real error of the real allocator, at a real limit."""
    steps = replace(DEFAULT.optimize, num_steps=2, num_starts=1)
    copies = replace(DEFAULT.augment, num_augments=1024)
    recipe = replace(DEFAULT, optimize=steps, augment=copies)
    with full_precision():
        expected = generated(pair, bank, recipe)
        with at_most(512 * 2**20), caplog.at_level(logging.WARNING):
            found = generated(pair, bank, recipe)
    assert "Out of memory" in caplog.text
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)
