"""Pictures from the command line: generate "a blue dog" -o out.png, or compose; and models."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .catalogue import catalogue, find_model
from .clip.base import ImageTextEncoder
from .clip.loading import load_open_clip_folder
from .config import (
    DEFAULT,
    PAPER,
    REFERENCE_CODE,
    CompositionRecipe,
    OptimizeConfig,
    Recipe,
    SearchConfig,
)
from .download import cached_folder, download_model
from .errors import FuseDreamError
from .gan.base import Gan
from .gan.biggan import load_biggan
from .pipeline import GenerationResult, generate, generate_composition
from .types import Callback, StepInfo

_PRESETS = {"default": DEFAULT, "paper": PAPER, "reference": REFERENCE_CODE}


def _make_progress() -> Callback:
    """A callback that shows a bar for each stage on standard error."""
    from tqdm import tqdm

    bars: dict[str, tqdm[NoReturn]] = {}

    def show(info: StepInfo) -> None:
        if info.stage == "review":
            return
        if info.stage not in bars:
            bars[info.stage] = tqdm(total=info.total, desc=info.stage)
        bar = bars[info.stage]
        bar.set_postfix(score=f"{float(info.score.max()):.4f}", refresh=False)
        bar.update(info.step - bar.n)
        if info.step == info.total:
            bar.close()

    return show


def _png_path(text: str) -> Path:
    """A path that a PNG can be written to; missing folders are made then."""
    path = Path(text)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a .png file")
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise argparse.ArgumentTypeError(f"{folder} is a file, so {text!r} cannot be in it")
    return path


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m fusedream_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("generate", help="make a picture")
    two = commands.add_parser("compose", help="make a picture of two things, one pasted on another")
    for command in (one, two):
        command.add_argument("prompt", help="what to show, as 'a blue dog:1 | blurry:-0.3'")
        command.add_argument(
            "-o",
            "--out",
            type=_png_path,
            default=Path("fusedream.png"),
            help="PNG to write (%(default)s)",
        )
        command.add_argument("--seed", type=int, default=0, help="0 to 2**64 - 1 (%(default)s)")
        command.add_argument("--candidates", type=int, help="random latents that are searched")
        command.add_argument("--steps", type=int, help="steps of the optimisation")
        command.add_argument("--gan", help="file or folder of a BigGAN (default: the demo pair)")
        command.add_argument("--clip", help="folder of an open_clip model, with --gan")
    commands.add_parser("models", help="list the models that can be downloaded")
    three = commands.add_parser("download", help="download a model")
    three.add_argument("name", help="its name in the list of models")
    three.add_argument(
        "--to",
        type=Path,
        default=Path("models"),
        help="folder of model folders, such as ComfyUI's (%(default)s)",
    )
    one.add_argument(
        "--preset", choices=_PRESETS, default="default", help="settings to begin with (%(default)s)"
    )
    two.add_argument("--foreground", help="what the pasted picture is to show by itself")
    two.add_argument("--background", help="what the picture below it is to show by itself")
    return parser.parse_args(arguments)


def _make_recipe(options: argparse.Namespace) -> Recipe:
    """The preset with the changes that were asked for."""
    recipe = _PRESETS[options.preset]
    return dataclasses.replace(
        recipe,
        search=_search(recipe.search, options),
        optimize=_steps(recipe.optimize, options),
    )


def _make_composition_recipe(options: argparse.Namespace) -> CompositionRecipe:
    """The default composition with the changes that were asked for."""
    recipe = CompositionRecipe()
    steps = _steps(recipe.compose.optimize, options)
    return dataclasses.replace(
        recipe,
        search=_search(recipe.search, options),
        compose=dataclasses.replace(recipe.compose, optimize=steps),
    )


def _search(config: SearchConfig, options: argparse.Namespace) -> SearchConfig:
    """The search's settings with the number of candidates that was asked for."""
    if options.candidates is None:
        return config
    return dataclasses.replace(config, num_candidates=options.candidates)


def _steps(config: OptimizeConfig, options: argparse.Namespace) -> OptimizeConfig:
    """The optimisation's settings with the number of steps that was asked for."""
    return config if options.steps is None else dataclasses.replace(config, num_steps=options.steps)


def _models(options: argparse.Namespace) -> tuple[Gan | None, ImageTextEncoder | None]:
    """The models that were asked for; None where they were not."""
    gan = None if options.gan is None else load_biggan(options.gan)
    return gan, None if options.clip is None else load_open_clip_folder(options.clip)


def _run(options: argparse.Namespace) -> GenerationResult:
    """Make the picture."""
    progress = _make_progress()
    gan, clip = _models(options)
    if options.command == "generate":
        return generate(
            options.prompt,
            seed=options.seed,
            gan=gan,
            clip=clip,
            recipe=_make_recipe(options),
            callback=progress,
        )
    return generate_composition(
        options.prompt,
        seed=options.seed,
        gan=gan,
        clip=clip,
        recipe=_make_composition_recipe(options),
        foreground_prompt=options.foreground,
        background_prompt=options.background,
        callback=progress,
    )


def _make(options: argparse.Namespace) -> str:
    """Make and save the picture. Returns a line about it."""
    result = _run(options)
    result.save(options.out)
    where = f"  {result.composition.placement.name}" if result.composition else ""
    return (
        f"{options.out}  AugCLIP {float(result.score.mean):.4f} "
        f"+- {float(result.score.stderr):.4f}{where}  {result.seconds:.1f} s"
    )


def _list(_: argparse.Namespace) -> str:
    """The catalogue as lines."""
    return "\n".join(
        f"{model.name:26} {model.folder:10} {model.megabytes:5} MB  {model.licence:28} "
        f"{model.title}{'; ' * bool(model.note)}{model.note}"
        for model in catalogue()
    )


def _download(options: argparse.Namespace) -> str:
    """Download a model. Returns where it is."""
    model = find_model(options.name)
    folder = cached_folder(model) or download_model(model, options.to / model.folder)
    return f"{folder}  {model.title}  {model.licence}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, or 2 after a one-sentence error."""
    options = _parse(arguments)
    action = {"models": _list, "download": _download}.get(options.command, _make)
    try:
        said = action(options)
    except (FuseDreamError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
