"""Speed: ours and the peers' algorithms side by side, in one run on one machine.

    python scripts/dev.py bench speed [PART ...] [--rounds 5] [--threads N]

``generator``: the package's BigGAN-deep against ours, at the released models' shapes with random
weights. ``step``: a step of the reference code's AugCLIP, written from its description, against
ours, at 256 px with a ViT-B-32 of random weights, and their peak memory. ``equal_noise``: the same
on the demo pair, and with as many copies as give equal noise of the gradient. ``noise``: how much
of that noise other ways of drawing the changes would save. ``search``: the reference code's search,
ours from nothing, and ours on a seed bank, on the demo pair; and how many of the best by AugCLIP,
of CLIP's first 200, are among its first few. ``batches``: eight prompts as one batch against one
after the other. ``startup``: the import, the demo models and a picture.

Each comparison runs in turn for some rounds; given are medians, and the ratio's median and range.
A bound is what the products and sums of a call would take at the speed of a large matrix product.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fusedream_core as core
from _measures import peak_memory
from _peers import LAYERS, package_generator, reference_copies
from fusedream_core.config import DEFAULT, REFERENCE_CODE
from fusedream_core.gan.lean import LeanNetwork
from fusedream_core.optimize import optimize
from fusedream_core.rng import make_generator

PROMPTS = (
    "a red apple",
    "a blue dog",
    "a pink pig",
    "a green frog",
    "an orange fox",
    "a yellow bus",
    "a white rabbit on a red background",
    "a purple house",
)
Row = dict[str, Any]


def compare(name: str, calls: dict[str, Callable[[], object]], rounds: int) -> list[Row]:
    """Time calls in turn; the first is what the others are compared with."""
    seconds: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        call()  # the first call sets things up
    for _ in range(rounds):
        for label, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[label].append(time.perf_counter() - begin)
    first = next(iter(calls))
    rows = []
    for label, own in seconds.items():
        ratios = [a / b for a, b in zip(seconds[first], own, strict=True)]
        rows.append(
            {
                "what": name,
                "which": label,
                "seconds": statistics.median(own),
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
            }
        )
    return rows


# --- generator ------------------------------------------------------------------------------------


def generator(rounds: int) -> list[Row]:
    """Package against lean, without and with gradients, batch 1; lean in bfloat16 too."""
    rows = []
    for resolution in LAYERS:
        network = package_generator(resolution)
        lean = LeanNetwork(copy.deepcopy(network))
        half = copy.deepcopy(lean)
        half.compute_in(torch.bfloat16)
        latent = 0.3 * torch.randn(1, 256, generator=make_generator(0))
        ways = {"package": network.generator, "lean": lean, "lean, bfloat16": half}
        with torch.no_grad():
            exact = network.generator(latent, 1.0)
            apart = {
                name: float((exact - way(latent, 1.0)).abs().max()) for name, way in ways.items()
            }

        def forward(decode: Callable[..., Tensor], latent: Tensor = latent) -> None:
            with torch.no_grad():
                decode(latent, 1.0)

        def both(decode: Callable[..., Tensor], latent: Tensor = latent) -> None:
            leaf = latent.clone().requires_grad_()
            decode(leaf, 1.0).sum().backward()

        for kind, run in (("forward", forward), ("forward and backward", both)):
            calls = {name: partial(run, way) for name, way in ways.items()}
            found = compare(f"BigGAN-deep-{resolution}, {kind}", calls, rounds)
            bound = flops_of(partial(run, lean)) / flops_per_second()
            for row in found:
                row["largest difference"] = apart[row["which"]]
                if row["which"] == "lean":
                    row["bound"] = bound
            rows += found
    return rows


@functools.cache
def flops_per_second() -> float:
    """What this machine can do, with as many threads as the rest: a large product in float32."""
    square = torch.rand(2048, 2048)
    square @ square
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        square @ square
        seconds.append(time.perf_counter() - begin)
    return 2 * 2048**3 / min(seconds)


def flops_of(call: Callable[[], object]) -> int:
    """Products and sums of a call, by torch's count of its convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


# --- a step of AugCLIP ----------------------------------------------------------------------------


def step_calls(num: int) -> dict[str, Callable[[], object]]:
    """One step's gradient at a picture of 256 px, under a ViT-B-32 of random weights."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    clip = core.OpenClip(model, open_clip.get_tokenizer("ViT-B-32"), clip_id="random")
    target = core.encode_target(clip, "a blue dog")
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    draws = make_generator(0)

    def reference() -> None:
        leaf = image.clone().requires_grad_()
        copies = reference_copies(leaf, num, 224, draws)
        pixels = ((copies + 1) / 2 - clip.mean) / clip.std
        features = F.normalize(model.encode_image(pixels), dim=-1)
        (features @ target.features).mean().backward()

    def ours(clip_batch: int | None) -> None:
        leaf = image.clone().requires_grad_()
        params = core.sample_params(num, 256, 256, config=DEFAULT.augment, generator=draws)
        score = core.aug_clip_score(leaf, target, clip, params=params, clip_batch=clip_batch)
        score.mean.sum().backward()

    return {
        "reference code": reference,
        "ours": lambda: ours(None),
        "ours, 10 copies at once": lambda: ours(10),
    }


def peak_of_step(which: str, num: int) -> float:
    """How much the resident memory of a fresh process rises above its models', in MB."""
    torch.set_num_threads(1)
    call = step_calls(num)[which]
    before = peak_memory()
    call()
    return peak_memory() - before


def step(rounds: int) -> list[Row]:
    """The reference code's 50 copies, forward and backward, against ours."""
    num = REFERENCE_CODE.augment.num_augments
    calls = step_calls(num)
    rows = compare(f"AugCLIP step, {num} copies, 256 px, ViT-B-32", calls, rounds)
    rows[1]["bound"] = flops_of(calls["ours"]) / flops_per_second()
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        for row in rows:
            row["peak MB"] = pool.submit(peak_of_step, row["which"], num).result()
    return rows


# --- noise of the gradient ------------------------------------------------------------------------


def drawn(kind: str, num: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers ``(num, 8)`` for the eight numbers of a change, in one of several ways."""
    if kind == "antithetic":
        half = torch.rand(num // 2, 8, generator=generator)
        return torch.cat([half, 1 - half])
    if kind == "stratified":
        cells = [torch.randperm(num, generator=generator) for _ in range(8)]
        return (torch.stack(cells, 1) + torch.rand(num, 8, generator=generator)) / num
    if kind == "Sobol":
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return torch.quasirandom.SobolEngine(8, scramble=True, seed=seed).draw(num)
    return torch.rand(num, 8, generator=generator)


def params_from(numbers: Tensor, side: int) -> core.AugmentParams:
    """The default's changes of square pictures, from uniform numbers."""
    config = DEFAULT.augment
    reach, box = int(side * config.translation + 0.5), side // 2

    def real(column: int, low: float, high: float) -> Tensor:
        return (low + (high - low) * numbers[:, column])[None]

    def whole(columns: tuple[int, int], low: int, high: int) -> Tensor:
        both = torch.stack([numbers[:, column] for column in columns], -1)
        return (low + (both * (high - low + 1)).long().clamp(max=high - low))[None]

    zoom = real(5, 1 - config.resize, 1 + config.resize)
    return core.AugmentParams(
        num=len(numbers),
        image_size=(side, side),
        box_size=(box, box),
        brightness=real(0, -config.brightness, config.brightness),
        saturation=real(1, 1 - config.saturation, 1 + config.saturation),
        contrast=real(2, 1 - config.contrast, 1 + config.contrast),
        shift=whole((3, 4), -reach, reach),
        size=(zoom[..., None] * torch.tensor([side, side])).long(),
        box=whole((6, 7), 0, side) - box // 2,
    )


def equal_noise(rounds: int) -> list[Row]:
    """A step on the demo pair: the reference code's 50 copies, and ours with the same noise.

    The noise of a gradient falls as one over the number of copies; how many of ours are as good as
    50 of theirs is measured first.
    """
    gan, clip = core.load_demo()
    num, side = REFERENCE_CODE.augment.num_augments, clip.image_size[0]
    target = core.encode_target(clip, PROMPTS[1])
    image = core.generate(PROMPTS[1], gan=gan, clip=clip, bank=core.load_demo_bank()).images
    draws = make_generator(1)

    def reference(num: int) -> Tensor:
        leaf = image.clone().requires_grad_()
        copies = reference_copies(leaf, num, side, draws)
        pixels = ((copies + 1) / 2 - clip.mean) / clip.std
        features = F.normalize(clip.model.encode_image(pixels), dim=-1)
        return torch.autograd.grad((features @ target.features).mean(), leaf)[0]

    def ours(num: int) -> Tensor:
        leaf = image.clone().requires_grad_()
        size = image.shape[-1]
        params = core.sample_params(num, size, size, config=DEFAULT.augment, generator=draws)
        score = core.aug_clip_score(leaf, target, clip, params=params)
        return torch.autograd.grad(score.mean.sum(), leaf)[0]

    spread = [
        float(torch.stack([way(16) for _ in range(8 * rounds)]).var(dim=0).sum())
        for way in (reference, ours)
    ]
    enough = max(1, math.ceil(num * spread[1] / spread[0]))
    calls: dict[str, Callable[[], object]] = {
        f"reference code, {num} copies": lambda: reference(num),
        f"ours, {num} copies": lambda: ours(num),
        f"ours, {enough} copies, as much noise": lambda: ours(enough),
    }
    return compare("AugCLIP step at a picture, demo pair", calls, rounds)


def noise(rounds: int) -> list[Row]:
    """Variance of the gradient at a picture, by the way of drawing; independent draws are 1."""
    gan, clip = core.load_demo()
    kinds, num, repeats = ("independent", "antithetic", "stratified", "Sobol"), 16, 8 * rounds
    ratios: dict[str, list[float]] = {kind: [] for kind in kinds}
    for prompt in PROMPTS[:3]:
        target = core.encode_target(clip, prompt)
        image = core.generate(prompt, gan=gan, clip=clip, bank=core.load_demo_bank()).images
        leaf = image.clone().requires_grad_()
        variance = {}
        for kind in kinds:
            draws = make_generator(1)
            gradients = []
            for _ in range(repeats):
                params = params_from(drawn(kind, num, draws), image.shape[-1])
                score = core.aug_clip_score(leaf, target, clip, params=params).mean.sum()
                gradients.append(torch.autograd.grad(score, leaf)[0].flatten())
            variance[kind] = float(torch.stack(gradients).var(dim=0).sum())
        for kind in kinds:
            ratios[kind].append(variance[kind] / variance["independent"])
    return [
        {
            "what": f"variance of the gradient, {num} copies, demo pair",
            "which": kind,
            "ratio": statistics.mean(own),
            "low": min(own),
            "high": max(own),
        }
        for kind, own in ratios.items()
    ]


# --- search ---------------------------------------------------------------------------------------


def search(rounds: int) -> list[Row]:
    """What a search's parts take, each timed; from them, searches of 10,000 as sums.

    A cold search of 10,000 would take minutes a round, and it is the same work for each candidate.
    """
    gan, clip = core.load_demo()
    bank, target = core.load_demo_bank(), core.encode_target(clip, PROMPTS[1])
    part, total = 200, 10_000

    def find(recipe: core.Recipe, num: int, ranking: str, bank: core.Bank | None = None) -> None:
        config = replace(recipe.search, num_candidates=num, ranking=ranking, num_reranked=None)
        core.search_basis(
            gan,
            clip,
            [target],
            config=config,
            augment=recipe.augment,
            generator=make_generator(0),
            bank=bank,
        )

    rows = compare(
        f"seed search of {part}, plain CLIP",
        {
            "reference code": lambda: find(REFERENCE_CODE, part, "clip"),
            "ours, from nothing": lambda: find(DEFAULT, part, "clip"),
        },
        rounds,
    )
    each = rows[1]["seconds"] / part
    looks = {
        "the bank alone": lambda: find(DEFAULT, total, "clip", bank),
        "the bank, 40 ranked by AugCLIP": lambda: find(DEFAULT, 40, "aug_clip", bank),
    }
    warm = compare(f"seed search of {total:,}", looks, rounds)
    bare, ranked = (row["seconds"] for row in warm)
    per_rank = (ranked - bare) / 40
    rows += [row | {"ratio": None} for row in warm]
    for num in (20, 40, 100, 500):
        with_bank, without = bare + num * per_rank, total * each + num * per_rank
        rows.append(
            {
                "what": f"seed search of {total:,}, {num} ranked by AugCLIP, summed from the above",
                "which": f"from nothing {without:.0f} s, on the bank {with_bank:.1f} s",
                "ratio": without / with_bank,
            }
        )
    return [*rows, *recall(gan, clip, bank)]


def recall(gan: core.Gan, clip: core.ImageTextEncoder, bank: core.Bank) -> list[Row]:
    """Of the five best by AugCLIP, how many are among the best few by plain CLIP."""
    looked_at, top, prompts = 400, 5, PROMPTS
    counts = (10, 20, 40, 80)
    hits: dict[int, list[float]] = {count: [] for count in counts}
    z = bank.sample_z(gan)
    params = core.sample_params(16, 128, 128, config=DEFAULT.augment, generator=make_generator(2))
    with torch.no_grad():
        for prompt in prompts:
            target = core.encode_target(clip, prompt)
            order = (bank.features.float() @ target.features).argsort(descending=True)[:looked_at]
            scores = torch.cat(
                [
                    core.aug_clip_score(
                        gan.decode(
                            z[rows], gan.embed(bank.class_index[rows]), truncation=bank.truncation
                        ),
                        target,
                        clip,
                        params=params,
                    ).mean
                    for rows in order.split(10)
                ]
            )
            best = set(scores.topk(top).indices.tolist())
            for count in counts:
                hits[count].append(len(best & set(range(count))) / top)
    return [
        {
            "what": f"best {top} by AugCLIP of the first {looked_at} by CLIP",
            "which": f"found among the first {count}",
            "ratio": statistics.mean(own),
            "low": min(own),
            "high": max(own),
        }
        for count, own in hits.items()
    ]


# --- batches, start-up ----------------------------------------------------------------------------


def batches(rounds: int) -> list[Row]:
    """Some prompts as one batch against one after the other; the results are compared too."""
    gan, clip = core.load_demo()
    bank = core.load_demo_bank()
    targets = [core.encode_target(clip, prompt) for prompt in PROMPTS]
    config = replace(DEFAULT.optimize, num_steps=4)
    bases = core.search_basis(
        gan,
        clip,
        targets,
        config=DEFAULT.search,
        augment=DEFAULT.augment,
        generator=make_generator(0),
        bank=bank,
    )
    rows = []
    for num in (1, 2, 4, 8):

        def run(first: int, last: int) -> core.OptimizeResult:
            return optimize(
                gan,
                clip,
                targets[first:last],
                bases[first:last],
                config=config,
                augment=DEFAULT.augment,
                generators=[make_generator(row) for row in range(first, last)],
            )

        singles = torch.cat([run(row, row + 1).images for row in range(num)])
        apart = float((run(0, num).images - singles).abs().max())
        calls: dict[str, Callable[[], object]] = {
            "one by one": lambda num=num: [run(row, row + 1) for row in range(num)],
            "one batch": lambda num=num: run(0, num),
        }
        found = compare(f"{num} prompts, 4 steps", calls, rounds)
        rows += [row | {"largest difference": apart} for row in found]
    return rows


def startup(rounds: int) -> list[Row]:
    """A fresh process: the import, the models, a whole picture, and its peak memory."""
    script = (
        "import re, time; begin = time.perf_counter(); import torch;"
        "torched = time.perf_counter(); import fusedream_core as core;"
        "imported = time.perf_counter(); pair = core.load_demo(); bank = core.load_demo_bank();"
        "loaded = time.perf_counter();"
        "core.generate('a blue dog', gan=pair[0], clip=pair[1], bank=bank);"
        "made = time.perf_counter();"
        "print(torched - begin, imported - torched, loaded - imported, made - loaded,"
        "int(re.search('VmHWM:\\\\s*(\\\\d+)', open('/proc/self/status').read())[1]) / 1024)"
    )
    runs = [
        [
            float(number)
            for number in subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True
            ).stdout.split()
        ]
        for _ in range(rounds)
    ]
    names = ("import torch", "import fusedream_core", "load the demo models", "make a picture")
    rows: list[Row] = [
        {"what": "start-up", "which": name, "seconds": statistics.median(column)}
        for name, column in zip(names, zip(*runs, strict=True), strict=False)
    ]
    rows[-1]["peak MB"] = max(run[-1] for run in runs)
    return rows


# --- the table ------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""

    def cell(row: Row, key: str, form: str) -> str:
        return format(row[key], form) if key in row else ""

    lines = [
        "| what | which | s | bound s | ratio | peak MB | largest difference |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row.get("ratio") is not None else ""
        if ratio and "low" in row:
            ratio += f" ({row['low']:.2f}-{row['high']:.2f})"
        lines.append(
            f"| {row['what']} | {row['which']} | {cell(row, 'seconds', '.3f')} | "
            f"{cell(row, 'bound', '.3f')} | {ratio} | "
            f"{cell(row, 'peak MB', '.0f')} | {cell(row, 'largest difference', '.0e')} |"
        )
    return "\n".join(lines)


PARTS: dict[str, Callable[[int], list[Row]]] = {
    "generator": generator,
    "step": step,
    "equal_noise": equal_noise,
    "noise": noise,
    "search": search,
    "batches": batches,
    "startup": startup,
}


def main() -> None:
    """Parse the arguments, run the parts that are asked for, print the table."""
    parser = argparse.ArgumentParser(description="Speed against the peers' algorithms.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="end with one JSON line of all rows")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for part in args.parts or PARTS:
        rows += PARTS[part](args.rounds)
    print(table(rows))
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
