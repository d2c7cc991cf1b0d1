"""Command line: ``python -m fusedream_core generate "a blue dog" -o out.png``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .config import DEFAULT, PAPER, REFERENCE_CODE, Recipe
from .errors import FuseDreamError
from .pipeline import generate
from .types import Callback, StepInfo

_PRESETS = {"default": DEFAULT, "paper": PAPER, "reference": REFERENCE_CODE}


def _make_progress() -> Callback:
    """A callback that shows a bar for each stage on standard error."""
    from tqdm import tqdm

    bars: dict[str, tqdm[NoReturn]] = {}

    def show(info: StepInfo) -> None:
        if info.stage not in bars:
            bars[info.stage] = tqdm(total=info.total, desc=info.stage)
        bar = bars[info.stage]
        bar.set_postfix(score=f"{float(info.score.max()):.4f}", refresh=False)
        bar.update()
        if info.step == info.total:
            bar.close()

    return show


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m fusedream_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate", help="make a picture with the demo pair")
    command.add_argument("prompt", help="what to show, as 'a blue dog:1 | blurry:-0.3'")
    command.add_argument(
        "-o", "--out", type=Path, default=Path("fusedream.png"), help="PNG to write (%(default)s)"
    )
    command.add_argument("--seed", type=int, default=0, help="0 to 2**64 - 1 (%(default)s)")
    command.add_argument(
        "--preset", choices=_PRESETS, default="default", help="settings to begin with (%(default)s)"
    )
    command.add_argument("--candidates", type=int, help="random latents that are searched")
    command.add_argument("--steps", type=int, help="steps of the optimisation")
    return parser.parse_args(arguments)


def _make_recipe(options: argparse.Namespace) -> Recipe:
    """The preset with the changes that were asked for."""
    recipe = _PRESETS[options.preset]
    if options.candidates is not None:
        search = dataclasses.replace(recipe.search, num_candidates=options.candidates)
        recipe = dataclasses.replace(recipe, search=search)
    if options.steps is not None:
        steps = dataclasses.replace(recipe.optimize, num_steps=options.steps)
        recipe = dataclasses.replace(recipe, optimize=steps)
    return recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, or 2 after a one-sentence error."""
    options = _parse(arguments)
    try:
        result = generate(
            options.prompt,
            seed=options.seed,
            recipe=_make_recipe(options),
            callback=_make_progress(),
        )
        result.save(options.out)
    except FuseDreamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"{options.out}  AugCLIP {float(result.score.mean):.4f} "
        f"+- {float(result.score.stderr):.4f}  {result.seconds:.1f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
