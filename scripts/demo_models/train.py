"""Train what the demo needs: generator, CLIP, perceptual distance, and the two that judge them.

    python scripts/dev.py train-demo [--only gan clip bank lpips judge finder]

Checkpoints go to the output folder each minute, and an interrupted run goes on from them. What is
finished is exported into the checkout: what users get to ``fusedream_core/assets/demo``, the judge
of single objects and the finder of several to ``scripts/demo_models``. Budgets are minutes on one
core; give each of two shells one ``--only`` to use two. ``--go-on MINUTES`` improves the generator,
CLIP, judge and finder that are there, instead of making new ones; after a new CLIP or generator the
seed bank (``--only bank``) is to be made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import art

if TYPE_CHECKING:
    from fusedream_core import StepInfo

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parent.parent / "fusedream_core" / "assets" / "demo"
JUDGE_FOLDER = HERE / "judge_weights"
FINDER_FOLDER = HERE / "finder_weights"


def load(cache: Path, sets: tuple[str, ...]) -> list[torch.Tensor]:
    """The atlases of some art sets, each ``(num_classes, 128, 128, 4)`` uint8."""
    return [torch.from_numpy(art.load_atlas(cache, name)) for name in sets]


def log(line: str) -> None:
    """Write one line of progress, at once even where the output is a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def train_gan(out: Path, scale: float, extra: float | None) -> None:
    """Train and export the generator, on one art set."""
    import gan_training as task
    from gan_net import export

    (atlas,) = load(out, art.GAN_SETS)
    run = task.GanRun()
    run.minutes *= scale
    if extra:
        run = task.GanRun(extra, lr=1e-3, start=ASSETS / "gan")
    names = list(art.CLASSES)
    export(task.train(atlas, names, out, run, log), names, ASSETS / "gan")


def train_clip(out: Path, scale: float, extra: float | None) -> None:
    """Train and export CLIP, on several art sets."""
    import clip_training as task

    run = task.ClipRun()
    run.minutes *= scale
    if extra:
        start = ASSETS / "clip"
        run = task.ClipRun(extra, lr=6e-4, naming_weight=0.0, hold_out_share=0.0, start=start)
    task.export(
        *task.train(load(out, art.CLIP_SETS), list(art.CLASSES), out, run, log), ASSETS / "clip"
    )


def train_bank(out: Path, scale: float, extra: float | None) -> None:
    """Let the CLIP that is there look at the pictures of the generator that is there, for good."""
    from fusedream_core import build_bank, load_demo, save_bank

    def tell(info: StepInfo) -> None:
        if info.step % 200 == 0:
            log(f"bank {info.step} of {info.total} batches")

    save_bank(build_bank(*load_demo(), callback=tell), ASSETS / "bank.safetensors")


def train_lpips(out: Path, scale: float, extra: float | None) -> None:
    """Train and export the perceptual distance, on CLIP's art."""
    import lpips_training as task

    if extra:
        raise SystemExit("The distance has no way to go on; train it anew with --only lpips.")
    run = task.LpipsRun()
    run.minutes *= scale
    task.export(task.train(load(out, art.CLIP_SETS), out, run, log), ASSETS / "lpips")


def train_judge(out: Path, scale: float, extra: float | None) -> None:
    """Train and export the judge, on art that the others never see."""
    import judge_training as task

    run = task.JudgeRun()
    run.minutes *= scale
    if extra:
        run = task.JudgeRun(extra, lr=1.5e-3, start=JUDGE_FOLDER)
    own, unseen = load(out, art.JUDGE_SETS), load(out, art.GAN_SETS)
    task.export(task.train(own, unseen, list(art.CLASSES), out, run, log), JUDGE_FOLDER)


def train_finder(out: Path, scale: float, extra: float | None) -> None:
    """Train and export the finder of several objects, on the judge's art."""
    import finder_training as task

    run = task.FinderRun()
    run.minutes *= scale
    if extra:
        run = task.FinderRun(extra, lr=1e-3, start=FINDER_FOLDER)
    own, unseen = load(out, art.JUDGE_SETS), load(out, art.GAN_SETS)
    finder = task.train(own, unseen, list(art.CLASSES), out, run, log)
    task.export(finder, FINDER_FOLDER)
    scores = task.scores(finder, task.generator_scenes(ASSETS / "gan", unseen[0]))
    log(f"finder on composites of the generator's pictures {task.rounded(scores)}")


TASKS = {
    "gan": train_gan,
    "clip": train_clip,
    "bank": train_bank,
    "lpips": train_lpips,
    "judge": train_judge,
    "finder": train_finder,
}


def main() -> None:
    """Parse the arguments and run the trainings one after the other."""
    parser = argparse.ArgumentParser(description="Train the demo models.")
    parser.add_argument(
        "--only", nargs="+", choices=TASKS, default=list(TASKS), help="which of the six"
    )
    parser.add_argument(
        "--minutes-scale", type=float, default=1.0, help="factor on every budget of time"
    )
    parser.add_argument(
        "--go-on", type=float, metavar="MINUTES", help="improve what is there for so long"
    )
    parser.add_argument("--out", type=Path, default=HERE.parent.parent / ".cache" / "demo_models")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        TASKS[name](args.out, args.minutes_scale, args.go_on)


if __name__ == "__main__":
    main()
