"""The arguments of ``dev.py``'s commands, checked before any set-up. Standard library only."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

MAX_SEED = 2**64 - 1
WORKFLOWS = ("text_to_image", "composition")  # those that make a picture from a prompt alone


def prompt(text: str) -> str:
    """A prompt with at least one visible character."""
    if not text.strip(" \t\r\n|"):  # a bar parts two pieces of a prompt
        raise argparse.ArgumentTypeError("the prompt is empty; say what the picture should show")
    try:
        return os.fsencode(text).decode("utf-8").strip()  # whatever the locale has made of it
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!a} holds something that is no character; type it again, in UTF-8"
        ) from error


def seed(text: str) -> int:
    """A seed that ComfyUI accepts."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MAX_SEED}")
    return value


def png_path(text: str) -> Path:
    """A path for the picture."""
    path = Path(text).expanduser().resolve()
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!a} is not the name of a .png file")
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise argparse.ArgumentTypeError(f"{folder} is a file, so {text!a} cannot be in it")
    try:
        try_output(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{text!a} cannot be written ({reason})") from error
    return path


def try_output(path: Path) -> None:
    """Write a file and take it away again; one that is there stays as it is.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        with path.open("r+b"):
            return
    opened = os.fstat(handle)
    os.close(handle)
    present = path.stat() if path.exists() else None  # another process may have replaced it
    if present is not None and os.path.samestat(opened, present) and present.st_size == 0:
        path.unlink()


def port(text: str) -> int:
    """A TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the server to a parser."""
    parser.add_argument("--port", type=port, default=8188, help="(default: %(default)s)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the demo to a parser."""
    parser.add_argument(
        "prompt",
        nargs="?",
        type=prompt,
        default="a blue dog",
        help="what the picture is to show (default: %(default)s)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="same seed, same picture (default 0)")
    parser.add_argument(
        "--workflow",
        choices=WORKFLOWS,
        default=WORKFLOWS[0],
        help="composition makes one picture of two things (default: %(default)s)",
    )
    parser.add_argument("--out", type=png_path, help="the PNG to write (default: in output/)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
