"""Quality of the method on the demo pair, as the independent judge sees it.

    python scripts/dev.py bench quality [--recipes NAME ...] [--seeds 3] [--workers N] [--go-on]

Every recipe makes a picture of each prompt and seed; none is optimised against the judge. The table
tells how often the judge names the object, and object and colour, as the prompt has them; how sure
of both the judge is; and the pictures' scores by the CLIP that was optimised. Intervals are 95 %:
Wilson's for shares, normal for means. Contact sheets go to the output folder, and so does every
finished part of the run: ``--go-on`` takes what is there and was made by the same settings and
weights, and judges it anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

import fusedream_core as core
from _measures import JUDGE_FOLDER, OUTPUT, Counter, Judge, Verdict, mean, percent, share
from fusedream_core import Gan, ImageTextEncoder
from fusedream_core.augclip.augment import sample_params
from fusedream_core.augclip.score import aug_clip_score, clip_score
from fusedream_core.config import DEFAULT, REFERENCE_CODE, AugmentConfig, Recipe
from fusedream_core.images import to_pil
from fusedream_core.models.demo import load_demo
from fusedream_core.optimize.optimize import optimize
from fusedream_core.rng import make_generator
from fusedream_core.search.search import search_basis
from fusedream_core.types import Basis, Target

HERE = Path(__file__).resolve().parent
FOLDER = OUTPUT / "quality"
BATCH = 8  # prompts searched and optimised as one batch
HELD_OUT = AugmentConfig(num_augments=64)
SEARCH_STREAM, OPTIMIZE_STREAM, SCORE_STREAM = 0, 1, 99


@dataclass(frozen=True)
class Contestant:
    """A way to make a picture: a recipe, or a search alone."""

    title: str
    recipe: Recipe
    optimizes: bool = True


def count_passes(contestant: Contestant) -> int:
    """Generator and CLIP image passes, forward and backward, that one picture takes alone."""
    gan, clip = load_demo()
    gan, clip = Counter(gan, "decode"), Counter(clip, "encode_images")
    target = core.encode_target(clip, "a red apple")
    bases = find_bases(contestant, gan, clip, [target], seed=0)
    make_pictures(contestant, gan, clip, [target], bases, [0])
    return gan.passes + clip.passes


def find_bases(
    contestant: Contestant,
    gan: Gan,
    clip: ImageTextEncoder,
    targets: list[Target],
    seed: int,
) -> list[Basis]:
    """The basis of every prompt, from one stream of candidates."""
    recipe = contestant.recipe
    generator = make_generator(seed, SEARCH_STREAM)
    return search_basis(
        gan, clip, targets, config=recipe.search, augment=recipe.augment, generator=generator
    )


def make_pictures(
    contestant: Contestant,
    gan: Gan,
    clip: ImageTextEncoder,
    targets: list[Target],
    bases: list[Basis],
    seeds: list[int],
) -> Tensor:
    """Pictures ``(B, 3, H, W)`` in [-1, 1] of some runs."""
    if not contestant.optimizes:
        best = [basis.latent for basis in bases]
        with torch.no_grad():
            pictures = [gan.decode(b.z[:1], b.y[:1], truncation=b.truncation) for b in best]
        return torch.cat(pictures)
    recipe = contestant.recipe
    generators = [make_generator(seed, OPTIMIZE_STREAM) for seed in seeds]
    return optimize(
        gan,
        clip,
        targets,
        bases,
        config=recipe.optimize,
        augment=recipe.augment,
        generators=generators,
    ).images


def contestants() -> dict[str, Contestant]:
    """All that are compared.

    The reference code's recipe is given four times our passes, in its own proportions.
    """
    one = dataclasses.replace(DEFAULT.search, num_candidates=1, num_basis=1)
    # AugCLIP has no say in it: neither in the start nor in what is returned.
    plain = dataclasses.replace(
        DEFAULT.optimize, objective="clip", selection="last", start="alone", num_starts=1
    )
    lone = dataclasses.replace(plain, num_steps=140)  # as many as ours takes, over all its starts
    ours = Contestant("ours", DEFAULT)
    return {
        "random": Contestant("random latent", Recipe(search=one), optimizes=False),
        "seed": Contestant("best single seed", DEFAULT, optimizes=False),
        "adam": Contestant(
            "Adam on plain CLIP, one random start", Recipe(search=one, optimize=lone)
        ),
        "plain": Contestant(
            "ours, with plain CLIP as objective",
            Recipe(
                search=dataclasses.replace(DEFAULT.search, ranking="clip"),
                optimize=plain,
                augment=DEFAULT.augment,
            ),
        ),
        "reference": Contestant(
            "reference code's recipe, 4 x the passes", reference_recipe(4 * count_passes(ours))
        ),
        "ours": ours,
    }


def reference_recipe(passes: int) -> Recipe:
    """The reference code's recipe, cut to a number of passes.

    Candidates and steps keep its own ratio of 10 : 1.
    """
    steps = 1
    while reference_passes(steps + 1) <= passes:
        steps += 1
    return dataclasses.replace(
        REFERENCE_CODE,
        search=dataclasses.replace(REFERENCE_CODE.search, num_candidates=10 * steps),
        optimize=dataclasses.replace(REFERENCE_CODE.optimize, num_steps=steps),
    )


def reference_passes(steps: int) -> int:
    """Passes of the reference code's recipe at a number of steps.

    Candidates meet both models once. Each step takes one image and its augmented views forward and
    backward.
    """
    return 2 * 10 * steps + 2 * (1 + REFERENCE_CODE.augment.num_augments) * steps


# --- one task: a recipe, a seed, some prompts -----------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Some prompts of one recipe and seed."""

    name: str
    contestant: Contestant
    seed: int
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its pictures, their scores, and the seconds it took."""

    task: Task
    pictures: list[Image.Image]
    clip: list[float]
    aug_clip: list[float]
    seconds: float

    def verdicts(self, judge: Judge) -> list[Verdict]:
        """What the judge sees in the pictures as they are saved: eight bits a channel."""
        saved = np.stack([np.asarray(picture) for picture in self.pictures])
        return judge(torch.from_numpy(saved).movedim(-1, 1) / 127.5 - 1)


def run(task: Task, go_on: bool) -> Outcome:
    """Make and measure the pictures of one task, on one thread, or take those of an earlier run."""
    torch.set_num_threads(1)
    gan, clip = load_demo()
    made_by = repr((task, gan.gan_id, clip.clip_id)).encode()
    path = FOLDER / f"{task.name}-{task.seed}-{hashlib.sha256(made_by).hexdigest()[:12]}.pt"
    if not (go_on and path.is_file()):
        images, numbers = make(task, gan, clip)
        saved = torch.from_numpy(np.stack([np.asarray(picture) for picture in to_pil(images)]))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"pictures": saved, **numbers}, path)
    kept = torch.load(path, weights_only=True)
    pictures = [Image.fromarray(picture) for picture in kept["pictures"].numpy()]
    return Outcome(task, pictures, kept["clip"], kept["aug_clip"], kept["seconds"])


def make(task: Task, gan: Gan, clip: ImageTextEncoder) -> tuple[Tensor, dict[str, Any]]:
    """The pictures of a task, and their scores and the time they took."""
    targets = [core.encode_target(clip, prompt) for prompt in task.prompts]
    begin = time.perf_counter()
    bases = find_bases(task.contestant, gan, clip, targets, task.seed)
    images = make_pictures(task.contestant, gan, clip, targets, bases, [task.seed] * len(targets))
    seconds = time.perf_counter() - begin
    params = sample_params(
        HELD_OUT.num_augments,
        *images.shape[-2:],
        config=HELD_OUT,
        generator=make_generator(0, SCORE_STREAM),
    )
    with torch.no_grad():
        plain = clip_score(images, targets, clip)
        augmented = aug_clip_score(images, targets, clip, params=params, clip_batch=params.num).mean
    numbers = {"clip": plain.tolist(), "aug_clip": augmented.tolist(), "seconds": seconds}
    return images, numbers


# --- the table ------------------------------------------------------------------------------------


def row(
    title: str,
    passes: int,
    outcomes: list[Outcome],
    truths: dict[str, dict[str, str]],
    judge: Judge,
) -> dict[str, Any]:
    """One line of the table."""
    named, colored, ground, sure = [], [], [], []
    for outcome in outcomes:
        for prompt, verdict in zip(outcome.task.prompts, outcome.verdicts(judge), strict=True):
            truth = truths[prompt]
            named.append(verdict.object == truth["object"])
            colored.append(named[-1] and verdict.color == truth.get("color", verdict.color))
            if "background" in truth:
                ground.append(verdict.background == truth["background"])
            sure.append(verdict.probability(truth["object"], truth.get("color")))
    return {
        "recipe": title,
        "passes": passes,
        "pictures": len(named),
        "object": share(named),
        "object_and_color": share(colored),
        "background": share(ground),
        "judge_probability": mean(sure),
        "clip": mean([value for o in outcomes for value in o.clip]),
        "aug_clip": mean([value for o in outcomes for value in o.aug_clip]),
        "seconds": sum(o.seconds for o in outcomes) / len(named),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""

    def number(cell: dict[str, float]) -> str:
        return f"{cell['value']:.3f} ({cell['low']:.3f}-{cell['high']:.3f})"

    lines = [
        "| recipe | passes | object | object and colour | background "
        "| judge's probability | CLIP | AugCLIP | s |",
        "|---|---:|---|---|---|---|---|---|---:|",
    ]
    for r in rows:
        cells = [
            r["recipe"],
            f"{r['passes']:,}",
            percent(r["object"]),
            percent(r["object_and_color"]),
            percent(r["background"]),
        ]
        cells += [
            number(r["judge_probability"]),
            number(r["clip"]),
            number(r["aug_clip"]),
            f"{r['seconds']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def contact_sheet(
    outcomes: list[Outcome],
    truths: dict[str, dict[str, str]],
    judge: Judge,
    path: Path,
    tile: int = 128,
) -> None:
    """Save one sheet of all pictures: prompts from left to right, seeds from top to bottom.

    What the judge sees is written below each picture, green where it is right and red elsewhere.
    """
    columns = list(truths)
    seeds = sorted({o.task.seed for o in outcomes})
    wrapped = 12
    bands = math.ceil(len(columns) / wrapped)
    sheet = Image.new("RGB", (wrapped * tile, bands * len(seeds) * (tile + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for outcome in outcomes:
        for prompt, picture, verdict in zip(
            outcome.task.prompts, outcome.pictures, outcome.verdicts(judge), strict=True
        ):
            band, column = divmod(columns.index(prompt), wrapped)
            x, y = column * tile, (band * len(seeds) + seeds.index(outcome.task.seed)) * (tile + 14)
            sheet.paste(picture.resize((tile, tile)), (x, y))
            truth = truths[prompt]
            right = verdict.object == truth["object"] and verdict.color == truth.get(
                "color", verdict.color
            )
            draw.text(
                (x + 2, y + tile),
                f"{verdict.color} {verdict.object}",
                fill="green" if right else "red",
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main() -> None:
    """Parse the arguments, run all tasks in parallel, print the table."""
    parser = argparse.ArgumentParser(
        description="Quality on the demo pair, by an independent judge."
    )
    parser.add_argument(
        "--recipes", nargs="+", choices=("random", "seed", "adam", "plain", "reference", "ours")
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of all rows")
    parser.add_argument("--go-on", action="store_true", help="keep the parts that are there")
    args = parser.parse_args()
    truths = {
        entry["prompt"]: entry
        for entry in json.loads((HERE / "prompts.json").read_text(encoding="utf-8"))
    }
    chosen = {
        name: c for name, c in contestants().items() if not args.recipes or name in args.recipes
    }
    prompts = tuple(truths)
    tasks = [
        Task(name, c, seed, prompts[first : first + BATCH])
        for name, c in reversed(chosen.items())
        for seed in range(args.seeds)
        for first in range(0, len(prompts), BATCH)
    ]
    with ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = list(
            tqdm(
                pool.map(run, tasks, [args.go_on] * len(tasks)),
                total=len(tasks),
                desc="batches",
            )
        )
    rows, judge = [], Judge.load(JUDGE_FOLDER)
    for name, contestant in chosen.items():
        own = [o for o in outcomes if o.task.name == name]
        rows.append(row(contestant.title, count_passes(contestant), own, truths, judge))
        contact_sheet(own, truths, judge, FOLDER / f"{name}.png")
    print(table(rows))
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
