"""The arguments of the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

from ..compose.placement import POSITIONS
from ..config import BlendMode, Consistency

PRESETS = ("default", "paper", "reference")
COMPOSITION_PRESETS = ("default", "paper")

_ABOUT = 'Images from the command line: generate "a blue dog" -o out.png, or compose; and models.'
_AGAIN = "make this image again; without -o, NAME.png is made as NAME-again.png"
_RESUME = (
    "continue a stopped run; it is beside the image, as NAME.fusedream.safetensors for NAME.png, "
    "and is deleted when the image is saved"
)


class _Parser(argparse.ArgumentParser):
    """A parser with one-sentence errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:]}; see '{self.prog} --help'.\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line. Missing options are None."""
    parser = _Parser(prog="python -m fusedream_core", description=_ABOUT)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("generate", help="make an image")
    two = commands.add_parser("compose", help="make an image of two things, one pasted on another")
    deciding = {"generate": _add_run(one), "compose": _add_run(two)}
    _add_single(one, deciding["generate"])
    _add_composition(deciding["compose"])
    commands.add_parser("models", help="list the models that can be downloaded")
    three = commands.add_parser("download", help="download a model")
    three.add_argument("name", help="its name in the list of models")
    three.add_argument(
        "--to",
        type=Path,
        default=Path("models"),
        help="folder of model folders, such as ComfyUI's (./models, in the current folder)",
    )
    options = parser.parse_args(arguments)
    if options.command in deciding:
        command = one if options.command == "generate" else two
        _check(command, options, deciding[options.command]._group_actions)
    return options


def _add_run(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of both commands. Returns the group that determines the image."""
    command.add_argument(
        "prompt",
        nargs="?",
        type=_text,
        help="what the image shows, as 'a blue dog:1 | blurry:-0.3'",
    )
    command.add_argument(
        *("-o", "--out"),
        type=_png_path,
        help="PNG to write (fusedream.png; NAME-again.png of --from NAME.png)",
    )
    command.add_argument("--device", help="such as cuda, cuda:1 or cpu (the first accelerator)")
    again = command.add_argument_group("instead of a prompt")
    again.add_argument("--from", dest="source", metavar="PNG", type=Path, help=_AGAIN)
    again.add_argument("--resume", metavar="FILE", type=Path, help=_RESUME)
    command.add_argument(
        "--save-every", type=_count, metavar="N", help="save the run to a file every N steps"
    )
    models = command.add_argument_group("models (without --gan and --clip: the demo pair)")
    models.add_argument("--gan", type=Path, help="file or folder of a BigGAN")
    models.add_argument("--clip", type=Path, help="folder of a CLIP, or file of its weights")
    models.add_argument("--architecture", help="of a CLIP's file, such as ViT-B-32-quickgelu")
    models.add_argument("--bank", type=Path, help="file of a seed bank of both")
    models.add_argument("--lpips", type=Path, help="file of a perceptual distance")
    recipe = command.add_argument_group("settings (those of the preset where not given)")
    recipe.add_argument("--seed", type=_whole, help="0 to 2**64 - 1 (0)")
    recipe.add_argument("--candidates", type=_whole, help="random latents in the search")
    recipe.add_argument("--basis", type=_whole, help="number of best latents that are kept")
    recipe.add_argument("--classes", type=_names, help="allowed classes, comma-separated: dog, cat")
    recipe.add_argument("--truncation", type=_number, help="above 0 (plain) to 1 (varied)")
    recipe.add_argument("--steps", type=_whole, help="steps of the optimisation")
    recipe.add_argument("--augments", type=_whole, help="augmented views per step")
    return recipe


def _add_single(command: argparse.ArgumentParser, recipe: argparse._ArgumentGroup) -> None:
    """Add the options of a single image."""
    recipe.add_argument("--preset", choices=PRESETS, help="settings to begin with (default)")
    command.add_argument("--selector", type=Path, help="a second CLIP, which chooses the result")
    command.add_argument("--selector-architecture", help="of that CLIP's file")
    command.add_argument("--start-image", type=Path, help="an image to start from")


def _add_composition(recipe: argparse._ArgumentGroup) -> None:
    """Add the options of a composition."""
    recipe.add_argument(
        "--preset", choices=COMPOSITION_PRESETS, help="settings to begin with (default)"
    )
    recipe.add_argument("--foreground", type=_text, help="what the pasted image shows")
    recipe.add_argument("--background", type=_text, help="what the image below it shows")
    recipe.add_argument("--scale", type=_number, help="of the pasted image, above 0 to 1")
    recipe.add_argument("--position", choices=POSITIONS, help="its position")
    recipe.add_argument(
        "--consistency", choices=get_args(Consistency), help="where both images must match"
    )
    recipe.add_argument("--blend", choices=get_args(BlendMode), help="how the border is blended")


def _check(
    command: argparse.ArgumentParser,
    options: argparse.Namespace,
    deciding: Sequence[argparse.Action],
) -> None:
    """Refuse contradictory options."""
    whole = {"a prompt": options.prompt, "--from": options.source, "--resume": options.resume}
    given = [name for name, value in whole.items() if value is not None]
    if len(given) != 1:
        which = " and ".join(given) or "none of them"
        command.error(f"give one of a prompt, --from and --resume, not {which}")
    if options.prompt is None:
        for action in deciding:
            if getattr(options, action.dest) is not None:
                command.error(
                    f"{action.option_strings[0]} cannot be given with {given[0]}, which has its "
                    "own settings"
                )
    if options.resume is not None and getattr(options, "start_image", None) is not None:
        command.error("--start-image cannot be given with --resume, which has the image")
    for model, architecture in (("clip", "architecture"), ("selector", "selector_architecture")):
        if getattr(options, architecture, None) is not None and getattr(options, model) is None:
            flag = architecture.replace("_", "-")
            command.error(f"--{flag} is that of a file, which is missing; give --{model}")


def _text(text: str) -> str:
    """Decode a prompt as UTF-8, independent of the locale."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text  # refused later, with the position


def _png_path(text: str) -> Path:
    """Parse the name of a PNG file; writing is checked later."""
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a .png file")
    return path


def _whole(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error


def _count(text: str) -> int:
    """Parse a whole number of at least 1."""
    if _whole(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _number(text: str) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error


def _names(text: str) -> tuple[str, ...]:
    """Parse comma-separated names."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no class")
    return names
