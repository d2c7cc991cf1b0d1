"""What a GPU is asked first: models of real shape, compositions, peak memory and equal bits.

    python scripts/dev.py bench real [PART ...] [--device cuda] [--rows FILE] [--small]

``step``: from latents through BigGAN-deep-256 and AugCLIP on a ViT-B/32 and back, at 1, 8 and 32
latents and as many copies of each as the reference code has, which takes them one after another.
``generator``: the package's BigGAN-deep against ours at 128, 256 and 512 px. ``composition``:
compositions one by one and as a batch. ``memory``: what a step needs beside the weights. ``bits``:
whether the same step has the same gradient each time. All weights of real shape are random.

Every row is appended to the file of ``--rows`` as soon as it is there, one JSON object a line, so
that a run that is cut short keeps what it has. ``--small`` takes models of no size, to try the
command itself; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import fusedream_core as core
from _measures import forget_peak, peak_memory
from _peers import package_generator, reference_copies
from _speed_runs import compositions, generator
from _table import HEAD, line
from _timing import Row, compare
from fusedream_core.config import DEFAULT, REFERENCE_CODE
from fusedream_core.determinism import deterministic
from fusedream_core.models.gan.biggan_deep import DeepNetwork
from fusedream_core.rng import make_generator

AT_ONCE = 256  # copies that CLIP encodes at once, on any card
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 1,
    },
}

PREPROCESS = {
    "size": 32,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
    "fill_color": 0,
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is.

    Attributes:
        gan: The resolution of the step's generator.
        width: Channels of the generators' last layers.
        resolutions: Of the generators that are compared.
        batches: Latents of a step.
        copies: Of each picture in a step.
        small_clip: Whether the CLIP is one of no size.
        rounds: Of each comparison.
        repeats: Of a gradient that is to be the same.
        composition: Pairs and steps of the compositions.
    """

    gan: int = 256
    width: int = 128
    resolutions: tuple[int, ...] = (128, 256, 512)
    batches: tuple[int, ...] = (1, 8, 32)
    copies: int = REFERENCE_CODE.augment.num_augments
    small_clip: bool = False
    rounds: int = 3
    repeats: int = 6
    composition: tuple[int, int] = (3, 6)


SMALL = Sizes(
    gan=128,
    width=4,
    resolutions=(128,),
    batches=(1, 2),
    copies=2,
    small_clip=True,
    rounds=1,
    repeats=1,
    composition=(1, 1),
)


class Step:
    """A step's gradient at latents, the reference code's way and ours."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        import open_clip

        torch.manual_seed(0)
        self.sizes, self.device = sizes, device
        self.network = package_generator(sizes.gan, sizes.width).to(device)
        self.fused = DeepNetwork(copy.deepcopy(self.network))
        if sizes.small_clip:
            model = open_clip.model.CLIP(**TINY_CLIP)
            model.visual.preprocess_cfg = PREPROCESS
        else:
            model = open_clip.create_model("ViT-B-32", pretrained=None)
        self.model = model.eval().requires_grad_(False).to(device)
        tokenizer = open_clip.get_tokenizer("ViT-B-32")
        self.clip = core.OpenClip(copy.deepcopy(self.model), tokenizer, clip_id="random").to(device)
        self.target = core.encode_target(self.clip, "a blue dog")
        clip = "a CLIP of no size" if sizes.small_clip else "ViT-B-32"
        self.name = f"BigGAN-deep-{sizes.gan}, {clip}"

    def cast(self, dtype: torch.dtype) -> None:
        """Let ours compute in a precision."""
        self.fused.to(dtype)
        self.clip.to(dtype)

    def latents(self, batch: int) -> Tensor:
        """Latents and classes side by side, with a gradient."""
        drawn = 0.3 * torch.randn(batch, 256, generator=make_generator(0))
        return drawn.to(self.device).requires_grad_()

    def reference(self, batch: int) -> Tensor:
        """One picture after another, the copies of each at once."""
        draws = torch.Generator(self.device).manual_seed(0)
        leaf, side = self.latents(batch), self.clip.image_size[0]
        for latent in leaf.split(1):
            image = self.network.generator(latent, 1.0)
            copies = reference_copies(image, self.sizes.copies, side, draws)
            pixels = ((copies + 1) / 2 - self.clip.mean) / self.clip.std
            features = F.normalize(self.model.encode_image(pixels), dim=-1)
            (features @ self.target.features).mean().backward()
        return leaf.grad  # type: ignore[return-value]

    def ours(self, batch: int) -> Tensor:
        """All pictures at once."""
        leaf, size = self.latents(batch), self.sizes.gan
        params = core.sample_params(
            self.sizes.copies, size, size, config=DEFAULT.augment, generator=make_generator(0)
        )
        images = self.fused(leaf, 1.0)
        score = core.aug_clip_score(
            images, self.target, self.clip, params=params, clip_batch=AT_ONCE
        )
        score.mean.sum().backward()
        return leaf.grad  # type: ignore[return-value]


def peak_of(call: Callable[[], object], device: torch.device) -> float:
    """How much memory a call takes beside what is there, in MB."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    forget_peak()
    resident = peak_memory()
    call()
    return peak_memory() - resident


def step(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Steps at equal copies, and their peak memory."""
    full, half = Step(sizes, device), Step(sizes, device)
    half.cast(torch.bfloat16)
    for batch in sizes.batches:
        calls: dict[str, Callable[[], object]] = {
            "reference code, one by one": partial(full.reference, batch),
            "ours": partial(full.ours, batch),
            "ours, bfloat16": partial(half.ours, batch),
        }
        name = f"step, {batch} x {sizes.copies} copies, {full.name}"
        with deterministic():
            rows = compare(name, calls, sizes.rounds)
            for row, call in zip(rows, calls.values(), strict=True):
                yield row | {"peak MB": peak_of(call, device)}


def generators(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """The package's generator against ours at each resolution."""
    for resolution in sizes.resolutions:
        yield from generator(sizes.rounds, device, (resolution,), sizes.width)


def composition(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Compositions of the demo pair, one by one and as a batch."""
    pairs, steps = sizes.composition
    yield from compositions(sizes.rounds, device, pairs, steps)


def memory(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Forward and backward through each generator, and through the CLIP."""
    for resolution in sizes.resolutions:
        lean = DeepNetwork(package_generator(resolution, sizes.width).to(device))
        latent = torch.zeros(1, 256, device=device)
        for dtype in (torch.float32, torch.bfloat16):
            lean.to(dtype)

            def both(lean: DeepNetwork = lean, latent: Tensor = latent) -> None:
                lean(latent.clone().requires_grad_(), 1.0).sum().backward()

            both()
            yield {
                "what": f"BigGAN-deep-{resolution}, forward and backward",
                "which": str(dtype).removeprefix("torch."),
                "peak MB": peak_of(both, device),
            }


def bits(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Whether a step's gradient is the same each time, in each precision."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        one = Step(sizes, device)
        one.cast(dtype)
        with deterministic():
            first = one.ours(2)
            equal = [torch.equal(first, one.ours(2)) for _ in range(sizes.repeats)]
        yield {
            "what": f"gradient of a step, {one.name}",
            "which": f"{str(dtype).removeprefix('torch.')}: {sum(equal)} of {sizes.repeats} equal",
            "equal": all(equal),
        }


PARTS: dict[str, Callable[[Sizes, torch.device], Iterator[Row]]] = {
    "step": step,
    "generator": generators,
    "composition": composition,
    "memory": memory,
    "bits": bits,
}


def main() -> None:
    """Parse the arguments, run the parts that are asked for, print and keep each row."""
    parser = argparse.ArgumentParser(description="Models of real shape on one device.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rows", type=Path, help="a file to append each row to, as JSON")
    parser.add_argument("--small", action="store_true", help="models of no size, to try it")
    args = parser.parse_args()
    print(HEAD)
    for part in args.parts or PARTS:
        for row in PARTS[part](SMALL if args.small else Sizes(), args.device):
            print(line(row), flush=True)
            if args.rows:
                with args.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
