"""Composition on the demo models: two objects in one picture, its cost, and its seams.

    python scripts/dev.py bench composition [objects pruning seams] [--seeds 3] [--go-on]

``objects``: how often the judge finds both things of a prompt, in composites and in single pictures
that took as many passes of generator and CLIP. ``pruning``: what the default's halving keeps of the
score that brute force over all 18 configurations reaches, and at what share of the passes.
``seams``: how much steeper pictures are across the paste's border than elsewhere, by consistency
and blending. Pictures go to the output folder; ``--go-on`` keeps those that are there and were made
by the same settings, generator and CLIP.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from _measures import JUDGE_FOLDER, OUTPUT, Counter, Judge, mean, percent, share
from fusedream_core import (
    BigGan,
    CompositionRecipe,
    GenerationResult,
    OpenClip,
    Recipe,
    generate,
    generate_composition,
    load_demo,
)
from fusedream_core.config import ALL, DEFAULT, BlendMode, Consistency
from fusedream_core.images import to_pil

HERE = Path(__file__).resolve().parent
FOLDER = OUTPUT / "composition"
OURS = CompositionRecipe()
PRUNING_PROMPTS, SEAM_PROMPTS, FIGURE_PROMPTS = 6, 3, 6


@dataclass(frozen=True)
class Task:
    """One picture that is to be made."""

    kind: str
    prompt: str
    seed: int
    recipe: CompositionRecipe | Recipe


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    task: Task
    images: Tensor
    score: float
    passes: int
    seconds: float
    placement: str
    seam: float


def run(task: Task, go_on: bool) -> Outcome:
    """Make one picture on one thread, counting passes, or take that of an earlier run."""
    torch.set_num_threads(1)
    gan, clip = load_demo()
    made_by = repr((task.prompt, task.seed, task.recipe, gan.gan_id, clip.clip_id)).encode()
    path = FOLDER / f"{hashlib.sha256(made_by).hexdigest()[:16]}.pt"
    if not (go_on and path.is_file()):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make(task, gan, clip), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return Outcome(task, **torch.load(path, weights_only=True))


def make(task: Task, gan: BigGan, clip: OpenClip) -> dict[str, Any]:
    """The picture of a task and its numbers: all of an outcome but the task."""
    gan, clip = Counter(gan, "decode"), Counter(clip, "encode_images")
    call: Callable[..., GenerationResult] = (
        generate if isinstance(task.recipe, Recipe) else generate_composition
    )
    begin = time.perf_counter()
    result = call(task.prompt, seed=task.seed, gan=gan, clip=clip, recipe=task.recipe)
    seconds = time.perf_counter() - begin
    made = result.composition
    return {
        "images": result.images,
        "score": float(result.score.mean),
        "passes": gan.passes + clip.passes,
        "seconds": seconds,
        "placement": made.placement.name if made else "",
        "seam": steepness_of_seam(made.images, made.mask) if made else 0.0,
    }


def steepness_of_seam(images: Tensor, mask: Tensor) -> float:
    """Mean jump between neighbours on two sides of the mask's edge, over the mean jump elsewhere.

    1 means that the seam is no steeper than the picture is on average.
    """
    across, elsewhere = [], []
    for dim in (-2, -1):
        jumps = images.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        edge = mask.diff(dim=dim) != 0
        across.append(jumps[edge])
        elsewhere.append(jumps[~edge])
    return float(torch.cat(across).mean() / torch.cat(elsewhere).mean())


def as_saved(images: Tensor) -> Tensor:
    """Pictures as they are in a file: eight bits a channel."""
    saved = np.stack([np.asarray(picture) for picture in to_pil(images)])
    return torch.from_numpy(saved).movedim(-1, 1) / 127.5 - 1


@dataclass(frozen=True)
class Runner:
    """How tasks are run: in parallel, in order, anew or not."""

    workers: int
    go_on: bool

    def __call__(self, tasks: Sequence[Task], title: str) -> list[Outcome]:
        """Run them all."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            made = pool.map(run, tasks, [self.go_on] * len(tasks))
            return list(tqdm(made, total=len(tasks), desc=title))


def composed(**changes: Any) -> CompositionRecipe:  # noqa: ANN401 - settings of many types
    """The default with other settings of the composition."""
    return dataclasses.replace(OURS, compose=dataclasses.replace(OURS.compose, **changes))


def single_recipe(passes: int, go_on: bool) -> Recipe:
    """The default for single pictures, stretched to a number of passes.

    Candidates and steps grow alike; what does not grow is found by doubling them.
    """
    prompt = "a dog and a church"
    once, twice = (run(Task("single", prompt, 0, stretched(by)), go_on).passes for by in (1, 2))
    return stretched((passes - (2 * once - twice)) / (twice - once))


def stretched(factor: float) -> Recipe:
    """The default for single pictures with more candidates and steps."""
    candidates = DEFAULT.search.candidates_on(load_demo()[0].device)
    return dataclasses.replace(
        DEFAULT,
        search=dataclasses.replace(DEFAULT.search, num_candidates=round(factor * candidates)),
        optimize=dataclasses.replace(
            DEFAULT.optimize, num_steps=round(factor * DEFAULT.optimize.num_steps)
        ),
    )


def objects(prompts: list[dict[str, Any]], seeds: int, run_all: Runner) -> dict[str, Any]:
    """Both objects found: composites beside single pictures of equal compute."""
    judge = Judge.load(JUDGE_FOLDER)
    passes = run(Task("composed", prompts[0]["prompt"], 0, OURS), run_all.go_on).passes
    kinds: dict[str, CompositionRecipe | Recipe] = {
        "single": single_recipe(passes, run_all.go_on),
        "composed": OURS,
    }
    tasks = [
        Task(kind, entry["prompt"], seed, recipe)
        for seed in range(seeds)
        for entry in prompts
        for kind, recipe in kinds.items()
    ]
    outcomes = run_all(tasks, "objects")
    wanted = {entry["prompt"]: set(entry["objects"]) for entry in prompts}
    rows = {}
    for kind in kinds:
        own = [outcome for outcome in outcomes if outcome.task.kind == kind]
        found = [judge.find(as_saved(outcome.images))[0] for outcome in own]
        rows[kind] = {
            "both": share([wanted[o.task.prompt] <= f for o, f in zip(own, found, strict=True)]),
            "one": share(
                [bool(wanted[o.task.prompt] & f) for o, f in zip(own, found, strict=True)]
            ),
            "others": mean(
                [float(len(f - wanted[o.task.prompt])) for o, f in zip(own, found, strict=True)]
            ),
            "aug_clip": mean([o.score for o in own]),
            "passes": mean([o.passes for o in own]),
            "seconds": mean([o.seconds for o in own]),
        }
        sheet(own, found, wanted, FOLDER / f"objects-{kind}.png")
    firsts = {
        kind: [o for o in outcomes if o.task.kind == kind and o.task.seed == 0][:FIGURE_PROMPTS]
        for kind in kinds
    }
    figure(firsts, FOLDER / "figure.png")
    print("| | passes | both objects | at least one | others | AugCLIP | s |")
    print("|---|---:|---|---|---:|---|---:|")
    for kind, row in rows.items():
        score = row["aug_clip"]
        cells = [
            kind,
            f"{row['passes']['value']:,.0f}",
            percent(row["both"]),
            percent(row["one"]),
            f"{row['others']['value']:.2f}",
            f"{score['value']:.3f} ({score['low']:.3f}-{score['high']:.3f})",
            f"{row['seconds']['value']:.1f}",
        ]
        print("| " + " | ".join(cells) + " |")
    return rows


def pruning(prompts: list[dict[str, Any]], run_all: Runner) -> dict[str, Any]:
    """The default's score and passes over those of brute force."""
    kinds = {"brute force": composed(rungs=((ALL, 1.0),)), "pruned": OURS}
    chosen = [entry["prompt"] for entry in prompts[:PRUNING_PROMPTS]]
    tasks = [Task(kind, prompt, 0, recipe) for prompt in chosen for kind, recipe in kinds.items()]
    outcomes = {(o.task.prompt, o.task.kind): o for o in run_all(tasks, "pruning")}
    rows: dict[str, Any] = {}
    print(
        "| prompt | brute force | pruned | score kept | share of passes |\n|---|---|---|---:|---:|"
    )
    for prompt in chosen:
        full, cut = (outcomes[prompt, kind] for kind in kinds)
        rows[prompt] = {"score": cut.score / full.score, "passes": cut.passes / full.passes}
        print(
            f"| {prompt} | {full.score:.3f}, {full.placement}, {full.passes:,} | {cut.score:.3f}, "
            f"{cut.placement}, {cut.passes:,} | {100 * rows[prompt]['score']:.1f} % | "
            f"{100 * rows[prompt]['passes']:.1f} % |"
        )
    total = {
        key: sum(getattr(outcomes[p, "pruned"], key) for p in chosen)
        / sum(getattr(outcomes[p, "brute force"], key) for p in chosen)
        for key in ("score", "passes")
    }
    print(f"| all | | | {100 * total['score']:.1f} % | {100 * total['passes']:.1f} % |")
    return rows | {"all": total}


def seams(prompts: list[dict[str, Any]], run_all: Runner) -> dict[str, Any]:
    """Steepness across the seam and score, for each consistency with each blending."""
    settings: list[tuple[Consistency, BlendMode]] = [
        (consistency, blend)
        for consistency in ("none", "whole", "patch", "seam")
        for blend in ("none", "poisson")
    ]
    settings += [("seam", "feather"), ("seam", "mixed")]
    tasks = [
        Task(
            f"{consistency}, {blend}",
            entry["prompt"],
            0,
            composed(consistency=consistency, blend=blend),
        )
        for entry in prompts[-SEAM_PROMPTS:]
        for consistency, blend in settings
    ]
    outcomes = run_all(tasks, "seams")
    rows = {}
    print("| consistency | blend | jump at the seam | AugCLIP |\n|---|---|---|---|")
    for consistency, blend in settings:
        own = [o for o in outcomes if o.task.kind == f"{consistency}, {blend}"]
        row = {"seam": mean([o.seam for o in own]), "aug_clip": mean([o.score for o in own])}
        rows[f"{consistency}, {blend}"] = row
        told = [f"{c['value']:.2f} ({c['low']:.2f}-{c['high']:.2f})" for c in row.values()]
        print(f"| {consistency} | {blend} | {told[0]} | {told[1]} |")
    names = [f"{consistency}, {blend}" for consistency, blend in settings]
    grid(
        [[o for o in outcomes if o.task.kind == name] for name in names],
        names,
        FOLDER / "seams.png",
    )
    return rows


# --- pictures -------------------------------------------------------------------------------------


def sheet(
    outcomes: list[Outcome], found: list[set[str]], wanted: dict[str, set[str]], path: Path
) -> None:
    """All pictures of one kind, a seed a row, with what the judge finds in each below it."""
    seeds = sorted({o.task.seed for o in outcomes})
    side = 128
    canvas = Image.new("RGB", (side * len(wanted), (side + 14) * len(seeds)), "white")
    draw = ImageDraw.Draw(canvas)
    columns = list(wanted)
    for outcome, names in zip(outcomes, found, strict=True):
        x = side * columns.index(outcome.task.prompt)
        y = (side + 14) * seeds.index(outcome.task.seed)
        canvas.paste(to_pil(outcome.images)[0].resize((side, side)), (x, y))
        right = wanted[outcome.task.prompt] <= names
        draw.text((x + 2, y + side), ", ".join(sorted(names)), fill="green" if right else "red")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def figure(rows: dict[str, list[Outcome]], path: Path) -> None:
    """Kinds of picture below each other, a prompt a column, as in figure 9 of the paper."""
    side, line, margin = 192, 16, 70
    prompts = [outcome.task.prompt for outcome in next(iter(rows.values()))]
    canvas = Image.new("RGB", (margin + side * len(prompts), line + side * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for column, prompt in enumerate(prompts):
        draw.text((margin + side * column + 4, 2), prompt, fill="black")
    for number, (kind, row) in enumerate(rows.items()):
        draw.text((4, line + side * number + side // 2), kind, fill="black")
        for column, outcome in enumerate(row):
            picture = to_pil(outcome.images)[0].resize((side, side), Image.Resampling.BICUBIC)
            canvas.paste(picture, (margin + side * column, line + side * number))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def grid(rows: list[list[Outcome]], names: list[str], path: Path) -> None:
    """Rows of pictures, each with its name before it."""
    side, margin = 128, 110
    canvas = Image.new("RGB", (margin + side * len(rows[0]), side * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        draw.text((4, side * number + side // 2), name, fill="black")
        for column, outcome in enumerate(row):
            picture = to_pil(outcome.images)[0].resize((side, side))
            canvas.paste(picture, (margin + side * column, side * number))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def main() -> None:
    """Parse the arguments and run the parts that are asked for."""
    parser = argparse.ArgumentParser(description="Composition on the demo models.")
    parts = ("objects", "pruning", "seams")
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="of the objects part")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of all rows")
    parser.add_argument("--go-on", action="store_true", help="keep the pictures that are there")
    args = parser.parse_args()
    prompts = json.loads((HERE / "composition_prompts.json").read_text(encoding="utf-8"))
    runner, results = Runner(args.workers, args.go_on), {}
    for part in args.parts or parts:
        if part == "objects":
            results[part] = objects(prompts, args.seeds, runner)
        elif part == "pruning":
            results[part] = pruning(prompts, runner)
        else:
            results[part] = seams(prompts, runner)
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
