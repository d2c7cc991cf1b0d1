"""How many steps of how many views: the forward passes and the quality of some settings.

    python scripts/dev.py bench steps [--prompts 12]

Every second dev prompt, seed 0, searched on the demo pair's seed bank. Passes are of generator and
CLIP, forward and backward, in the optimisation alone. AugCLIP is measured on 256 held-out views;
the judge was optimised against by nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

import fusedream_core as core
from _measures import JUDGE_FOLDER, Counter, Judge, mean, percent, share
from fusedream_core import AugmentConfig, optimize, search_basis
from fusedream_core.config import DEFAULT, OptimizeConfig
from fusedream_core.pipeline.generate import OPTIMIZE_STREAM, SEARCH_STREAM
from fusedream_core.rng import make_generator

HERE = Path(__file__).resolve().parent
SETTINGS = (  # views of a step, share of them in the first, steps, and y's learning rate
    (8, 1.0, 80, 0.02),
    (12, 0.25, 80, 0.02),
    (8, 0.5, 100, 0.02),
    (8, 0.25, 120, 0.02),
    (4, 1.0, 100, 0.02),
    (4, 1.0, 140, 0.02),
    (6, 0.5, 100, 0.02),
    (6, 0.5, 100, 0.04),
    (4, 1.0, 120, 0.04),
    (8, 0.5, 80, 0.04),
)
BATCH = 6  # prompts at once


def _settings() -> Iterator[tuple[str, OptimizeConfig, int]]:
    """For each of SETTINGS: the first cells of its row, the settings, the views."""
    for copies, first, steps, lr_y in SETTINGS:
        change = {"num_steps": steps, "lr_y": lr_y, "first_augments": first}
        config = dataclasses.replace(DEFAULT.optimize, **change)
        yield f"{copies} | {first:g} | {steps} | {lr_y:g}", config, copies


def main() -> None:
    """Run all settings and print a row for each."""
    parser = argparse.ArgumentParser(description="Steps and views on the demo models.")
    parser.add_argument("--prompts", type=int, default=12, help="of 12 (default: all)")
    options = parser.parse_args()
    count = options.prompts
    names, rows = "views | at first | steps | lr_y", list(_settings())
    entries = json.loads((HERE / "prompts.json").read_text(encoding="utf-8"))[::2][:count]
    gan, clip = core.load_demo()
    bank, judge = core.load_demo_bank(), Judge.load(JUDGE_FOLDER)
    targets = [core.encode_target(clip, entry["prompt"]) for entry in entries]
    bases = search_basis(
        gan,
        clip,
        targets,
        config=DEFAULT.search,
        augment=DEFAULT.augment,
        generator=make_generator(0, SEARCH_STREAM),
        bank=bank,
    )
    held_out = core.sample_params(
        256, gan.resolution, gan.resolution, config=DEFAULT.augment, generator=make_generator(77)
    )
    print(f"| {names} | passes | AugCLIP | object and colour | judge's probability |")
    print("|" + "---:|" * (names.count("|") + 2) + "---|---|---:|")
    for cells, config, copies in tqdm(rows):
        counted = Counter(gan, "decode"), Counter(clip, "encode_images")
        images = torch.cat(
            [
                optimize(
                    *counted,
                    targets[row : row + BATCH],
                    bases[row : row + BATCH],
                    config=config,
                    augment=AugmentConfig(num_augments=copies),
                    generators=[
                        make_generator(0, OPTIMIZE_STREAM) for _ in bases[row : row + BATCH]
                    ],
                ).images
                for row in range(0, len(targets), BATCH)
            ]
        )
        with torch.no_grad():
            scores = [
                core.aug_clip_score(image[None], target, clip, params=held_out, clip_batch=32).mean
                for image, target in zip(images, targets, strict=True)
            ]
        verdicts = judge(images)
        right = [
            verdict.object == entry["object"] and verdict.color == entry.get("color", verdict.color)
            for verdict, entry in zip(verdicts, entries, strict=True)
        ]
        sure = [
            verdict.probability(entry["object"], entry.get("color"))
            for verdict, entry in zip(verdicts, entries, strict=True)
        ]
        passes = sum(counter.passes for counter in counted) / len(targets)
        score = mean([float(one) for one in scores])
        print(
            f"| {cells} | {passes:,.0f} | "
            f"{score['value']:.4f} ({score['low']:.3f}-{score['high']:.3f}) | "
            f"{percent(share(right))} | {sum(sure) / len(sure):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
