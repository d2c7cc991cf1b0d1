"""Memory of the real models: files of their shapes with random weights, each in its own process.

    python scripts/dev.py bench models [NAME ...]

Peak resident memory above that of the imports, weights included: of a forward pass, and of a step
of the optimisation, forward and backward. A GAN makes one picture; a CLIP, with both of its towers,
encodes as many augmented views as a step of the default has.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor, nn
from tqdm import tqdm

from _measures import forget_peak, peak_memory
from _peers import package_generator
from fusedream_core.config import DEFAULT
from fusedream_core.models.catalogue import catalogue
from fusedream_core.models.clip.fuse import fuse_image_tower
from fusedream_core.models.gan.biggan_deep import DeepNetwork
from fusedream_core.models.gan.biggan_original import (
    BlockWeights,
    NormWeights,
    OriginalNetwork,
    OriginalWeights,
)
from fusedream_core.rng import make_generator

_ORIGINAL = {  # channels after each block in units of 96, and the block before attention
    128: ((16, 8, 4, 2, 1), 3),
    256: ((16, 8, 8, 4, 2, 1), 4),
    512: ((16, 8, 8, 4, 2, 1, 1), 3),
}
_ARCHITECTURES = {  # open_clip's names of the catalogue's models
    "ViT-B-32-quickgelu-openai": "ViT-B-32-quickgelu",
    "ViT-B-32-laion2b": "ViT-B-32",
    "ViT-B-32-256-datacomp": "ViT-B-32-256",
    "ViT-B-16-quickgelu-openai": "ViT-B-16-quickgelu",
    "ViT-B-16-datacomp": "ViT-B-16",
    "ViT-L-14-quickgelu-openai": "ViT-L-14-quickgelu",
    "ViT-L-14-datacomp": "ViT-L-14",
    "RN50-quickgelu-openai": "RN50-quickgelu",
    "ViT-B-32-SigLIP2-256": "ViT-B-32-SigLIP2-256",
    "ViT-B-16-SigLIP2": "ViT-B-16-SigLIP2",
    "MobileCLIP2-S0": "MobileCLIP2-S0",
    "MobileCLIP2-B": "MobileCLIP2-B",
    "ViT-L-14-FARE2": "ViT-L-14",
}
Run = Callable[[Tensor], Tensor]


def original_network(resolution: int, unit: int = 96) -> OriginalNetwork:
    """The original BigGAN at a released shape."""
    generator = make_generator(0)
    units, after = _ORIGINAL[resolution]
    chunk = 16 if resolution == 512 else 20

    def layer(*shape: int) -> tuple[Tensor, Tensor]:
        weight = torch.randn(shape, generator=generator) / shape[1] ** 0.5
        return weight, torch.zeros(shape[0])

    def norm(width: int, condition: int | None = 128 + chunk) -> NormWeights:
        shape = (width,) if condition is None else (width, condition)
        gain, offset = (0.05 * torch.randn(shape, generator=generator) for _ in "ab")
        return NormWeights(torch.zeros(2, width), torch.ones(2, width), gain, offset)

    width, blocks = 16 * unit, []
    for factor in units:
        wide = factor * unit
        blocks.append(
            BlockWeights(
                norm(width),
                layer(wide, width, 3, 3),
                norm(wide),
                layer(wide, wide, 3, 3),
                layer(wide, width, 1, 1),
            )
        )
        width = wide
    seen = units[after] * unit
    sizes = ((seen // 8, seen), (seen // 8, seen), (seen // 2, seen), (seen, seen // 2))
    theta, phi, g, out = (layer(*size)[0] for size in sizes)
    return OriginalNetwork(
        OriginalWeights(
            classes=torch.zeros(1000, 128),
            first=layer(256 * unit, chunk),
            blocks=tuple(blocks),
            attentions={after: (theta, phi, g, out)},
            last=norm(width, None),
            rgb=layer(3, width, 3, 3),
            eps=1e-4,
        )
    )


def gan_and_latent(name: str) -> tuple[Run, Tensor]:
    """A network, and what it makes a picture of."""
    kind, resolution = name.rsplit("-", 1)
    network: DeepNetwork | OriginalNetwork
    if kind == "biggan-deep":
        network = DeepNetwork(package_generator(int(resolution)))  # type: ignore[arg-type]
    else:
        network = original_network(int(resolution))
    latent = torch.randn(1, network.dim_z + 128, generator=make_generator(0))
    return lambda latent: network(latent, 1.0), latent


def tower_and_pictures(name: str) -> tuple[Run, Tensor]:
    """A CLIP's image tower, and the views of a step."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        model: nn.Module = open_clip.create_model(_ARCHITECTURES[name]).eval()
    visual: nn.Module = model.visual  # type: ignore[assignment]
    fuse_image_tower(visual)
    size = visual.preprocess_cfg["size"]  # type: ignore[index]
    height, width = (size, size) if isinstance(size, int) else size
    run: Run = model.encode_image  # type: ignore[assignment]
    return run, torch.zeros(DEFAULT.augment.num_augments, 3, height, width)


def measure(name: str) -> list[float]:
    """MB above the imports': the peak of a forward pass, and that of a step."""
    import open_clip  # noqa: F401 - its memory is not the model's

    torch.set_num_threads(1)
    make = gan_and_latent if name.startswith("biggan") else tower_and_pictures
    forget_peak()
    before = peak_memory()
    run, given = make(name)
    gc.collect()
    peaks = []
    for step in (False, True):
        forget_peak()
        leaf = given.clone().requires_grad_(step)
        with torch.set_grad_enabled(step):
            made = run(leaf)
            if step:
                made.sum().backward()
        del made
        peaks.append(peak_memory() - before)
    return peaks


def main() -> None:
    """Measure the models that are asked for, and print a table."""
    names = [model.name for model in catalogue() if model.folder != "lpips"]
    parser = argparse.ArgumentParser(description="Memory of the real models.")
    parser.add_argument("models", nargs="*", choices=[*names, []], help="default: all")
    chosen = parser.parse_args().models or names
    print("| model | forward MB | step MB |\n|---|---:|---:|")
    for name in tqdm(chosen):
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            forward, step = pool.submit(measure, name).result()
        print(f"| {name} | {forward:,.0f} | {step:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
