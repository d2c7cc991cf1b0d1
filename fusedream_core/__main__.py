"""Entry point of the command line: ``python -m fusedream_core generate "a blue dog"``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from .cli.arguments import parse
from .cli.console import StoppedError, flush, say
from .cli.making import make
from .errors import FuseDreamError
from .models.catalogue import catalogue, find_model
from .models.download import cached_folder, download_model
from .output import why_not_written
from .starting import end_startup


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
        The exit code: 0, also if standard output is closed; 1 if the work is done but standard
        output cannot be written; 2 after an error; 128 plus the signal's number after a stop (130
        for Ctrl-C).
    """
    try:
        end_startup()
        options = parse(arguments)
        action = {"models": _list, "download": _download}.get(options.command, make)
        line = action(options)
    except (FuseDreamError, OSError) as error:
        say(str(error), sys.stderr)
        return 2
    except StoppedError as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:  # in a command without images, as a download
        say("Stopped.", sys.stderr)
        return 128 + signal.SIGINT
    failure = say(line, sys.stdout)
    if failure is None or isinstance(failure, BrokenPipeError):
        return 0
    reason = f"standard output cannot be written ({why_not_written(failure)})"
    say(f"All is done, but {reason}: {line.splitlines()[0]}", sys.stderr)
    return 1


def _run() -> int:
    """Run the command line as a process of its own, whose streams may be closed."""
    try:
        return main()
    finally:
        flush(sys.stdout)  # argparse's output


if __name__ == "__main__":
    sys.exit(_run())
