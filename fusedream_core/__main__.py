"""Entry point of the command line: ``python -m fusedream_core generate "a blue dog"``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .cli.arguments import parse
from .cli.console import StoppedError, say
from .cli.making import make
from .errors import FuseDreamError
from .models.catalogue import catalogue, find_model
from .models.download import cached_folder, download_model


def _list(_: argparse.Namespace) -> str:
    """Return the catalogue, one model per line."""
    return "\n".join(
        f"{model.name:26} {model.folder:10} {model.megabytes:5} MB  {model.licence:28} "
        f"{model.title}{'; ' * bool(model.note)}{model.note}"
        for model in catalogue()
    )


def _download(options: argparse.Namespace) -> str:
    """Download a model. Returns a line with its folder."""
    model = find_model(options.name)
    folder = cached_folder(model) or download_model(model, options.to / model.folder)
    return f"{folder}  {model.title}  {model.licence}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0; 2 after an error; 128 plus the signal's number after a stop (130 for
        Ctrl-C).
    """
    options = parse(arguments)
    action = {"models": _list, "download": _download}.get(options.command, make)
    try:
        line = action(options)
    except (FuseDreamError, OSError) as error:
        say(str(error), sys.stderr)
        return 2
    except StoppedError as stopped:
        return 128 + stopped.number
    say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
