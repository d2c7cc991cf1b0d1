"""The generator against the package's; searches, batches and the start of the program."""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

import fusedream_core as core
from _peers import LAYERS, package_generator
from _timing import PROMPTS, Row, compare, demo_on, flops_of, flops_per_second
from fusedream_core.config import DEFAULT, REFERENCE_CODE
from fusedream_core.models.gan.biggan_deep import DeepNetwork
from fusedream_core.optimize.optimize import optimize
from fusedream_core.rng import make_generator

PAIRS = ("a dog and a church", "a cat and a butterfly", "a red apple and a house")


def generator(
    rounds: int,
    device: torch.device,
    resolutions: Iterable[int] = tuple(LAYERS),
    channel_width: int = 128,
) -> list[Row]:
    """Package against fused, without and with gradients, batch 1; fused in bfloat16 too."""
    rows = []
    for resolution in resolutions:
        network = package_generator(resolution, channel_width).to(device)
        fused = DeepNetwork(copy.deepcopy(network))
        half = copy.deepcopy(fused)
        half.to(torch.bfloat16)
        latent = 0.3 * torch.randn(1, 256, generator=make_generator(0)).to(device)
        ways = {"package": network.generator, "fused": fused, "fused, bfloat16": half}
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
            bound = flops_of(partial(run, fused)) / flops_per_second(device)
            for row in found:
                row["largest difference"] = apart[row["which"]]
                if row["which"] == "fused":
                    row["bound"] = bound
            rows += found
    return rows


def search(rounds: int, device: torch.device) -> list[Row]:
    """What a search's parts take, each timed; from them, searches of 10,000 as sums.

    A cold search of 10,000 would take minutes a round, and it is the same work for each candidate.
    """
    gan, clip = demo_on(device)
    bank, target = core.load_demo_bank(), core.encode_target(clip, PROMPTS[1])
    part, total = 200, 10_000

    def find(recipe: core.Recipe, ranking: str, bank: core.Bank | None = None) -> None:
        config = replace(recipe.search, num_candidates=part, ranking=ranking, num_reranked=40)
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
            "reference code": lambda: find(REFERENCE_CODE, "clip"),
            "ours, without a bank": lambda: find(DEFAULT, "clip"),
        },
        rounds,
    )
    each = rows[1]["seconds"] / part
    looks = {
        "the bank alone": lambda: find(DEFAULT, "clip", bank),
        "the bank, 40 ranked by AugCLIP": lambda: find(DEFAULT, "aug_clip", bank),
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
                "which": f"without a bank {without:.0f} s, on the bank {with_bank:.1f} s",
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
            order = (bank.features.float() @ target.features.cpu()).argsort(descending=True)[
                :looked_at
            ]
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


def batches(rounds: int, device: torch.device) -> list[Row]:
    """Some prompts as one batch against one after the other; the results are compared too."""
    gan, clip = demo_on(device)
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


def compositions(
    rounds: int, device: torch.device, num_pairs: int = len(PAIRS), num_steps: int = 6
) -> list[Row]:
    """Some compositions as one batch against one after the other; results are compared too."""
    pairs = PAIRS[:num_pairs]
    gan, clip = demo_on(device)
    perceptual = core.load_demo_lpips().to(device)
    recipe = core.CompositionRecipe()
    config = replace(recipe.compose, optimize=replace(recipe.compose.optimize, num_steps=num_steps))
    targets = [core.encode_target(clip, prompt) for prompt in pairs]
    bases = core.search_basis(
        gan,
        clip,
        targets,
        config=recipe.search,
        augment=recipe.augment,
        generator=make_generator(0),
        bank=core.load_demo_bank(),
    )

    def run(first: int, last: int) -> list[core.ComposeResult]:
        return core.compose(
            gan,
            clip,
            targets[first:last],
            bases[first:last],
            bases[first:last],
            config=replace(config, batch_size=6),
            augment=recipe.augment,
            generators=[make_generator(row) for row in range(first, last)],
            perceptual=perceptual,
        )

    each = range(len(pairs))
    singles = torch.cat([run(row, row + 1)[0].images for row in each])
    together = torch.cat([one.images for one in run(0, len(pairs))])
    apart = float((together - singles).abs().max())
    calls: dict[str, Callable[[], object]] = {
        "one by one": lambda: [run(row, row + 1) for row in each],
        "one batch": lambda: run(0, len(pairs)),
    }
    found = compare(f"{len(pairs)} compositions, {num_steps} steps", calls, rounds)
    return [row | {"largest difference": apart} for row in found]


def startup(rounds: int, device: torch.device) -> list[Row]:
    """A fresh process: the import, the models, a whole picture, and its peak memory."""
    script = (
        "import re, time; begin = time.perf_counter(); import torch;"
        "torched = time.perf_counter(); import fusedream_core as core;"
        "imported = time.perf_counter(); bank = core.load_demo_bank();"
        f"pair = [model.to('{device}') for model in core.load_demo()];"
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
