"""The one command for everything: demo, tests, server, benchmarks, training, lint.

Works with nothing but Python 3.10 or newer: the first run makes a virtual environment, installs
what is needed and gets ComfyUI; later runs start at once.

    python scripts/dev.py demo "a blue dog"
    python scripts/dev.py test
    python scripts/dev.py serve

Two environment variables are read: COMFYUI_DIR, a ComfyUI to use instead of the downloaded one, and
FUSEDREAM_VENV, a virtual environment to use instead of .venv.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

if sys.version_info < (3, 10):  # noqa: UP036 - said before anything fails on newer syntax
    raise SystemExit("FuseDream needs Python 3.10 or newer.")

import demo_options
import environment
from environment import ROOT, SCRIPTS, SetupError
from stages import say

BENCH = SCRIPTS / "bench"
NODES_TESTS = ROOT / "tests" / "nodes"
TRAIN = SCRIPTS / "demo_models" / "train.py"


def run(command: list[str], comfyui: Path | None = None) -> int:
    """Run a command in the checkout, hand signals on to it, and return its exit status."""
    child_environment = dict(os.environ)
    # Whatever is on the path outside has no business in the virtual environment.
    child_environment.pop("PYTHONPATH", None)
    # Threads that wait for each other by spinning take the core that they wait for, where another
    # program has one: what takes seconds then takes minutes. So they sleep after a short while.
    child_environment.setdefault("GOMP_SPINCOUNT", "3000")
    if comfyui:
        child_environment[environment.COMFYUI_VARIABLE] = str(comfyui)
    with subprocess.Popen(command, cwd=ROOT, env=child_environment) as child:

        def hand_on(number: int, frame: FrameType | None) -> None:
            child.terminate()

        signal.signal(signal.SIGTERM, hand_on)
        # Ctrl-C reaches the child by itself; this process waits until it has cleaned up.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        return child.wait()


def run_script(script: Path, arguments: list[str], *extras: str) -> int:
    """Run one of our scripts in the virtual environment."""
    venv, comfyui = environment.prepare(*extras)
    python = environment.venv_command(venv, "python")
    return run([str(python), str(script), *arguments], comfyui)


def demo(arguments: list[str]) -> int:
    """Make a picture from a sentence in a real ComfyUI server."""
    parser = argparse.ArgumentParser(prog="dev.py demo", description=demo.__doc__)
    demo_options.add_arguments(parser)
    parser.parse_args(arguments)
    return run_script(SCRIPTS / "demo.py", arguments)


def test(arguments: list[str]) -> int:
    """Run the tests, those on a real ComfyUI server included; arguments go to pytest.

    Without arguments the nodes' tests run on the oldest ComfyUI as well.
    """
    venv, comfyui = environment.prepare("dev")
    # The command, not `python -m pytest`: that would put the checkout on the path.
    pytest = str(environment.venv_command(venv, "pytest"))
    status = run([pytest, *arguments], comfyui)
    if status or arguments:
        return status
    python = environment.venv_command(venv, "python")
    oldest = environment.download_comfyui(python, environment.OLDEST_VERSION)
    say(f"The nodes' tests on ComfyUI {environment.OLDEST_VERSION}:")
    return run([pytest, str(NODES_TESTS)], oldest)


def soak(arguments: list[str]) -> int:
    """Run the long tests: faults, many prompts in a row, odd inputs; arguments go to pytest."""
    venv, comfyui = environment.prepare("dev")
    os.environ["FUSEDREAM_SOAK"] = "1"
    pytest = str(environment.venv_command(venv, "pytest"))
    return run([pytest, str(SCRIPTS.parent / "tests" / "soak"), *arguments], comfyui)


def serve(arguments: list[str]) -> int:
    """Start ComfyUI with this pack, for the browser."""
    parser = argparse.ArgumentParser(prog="dev.py serve", description=serve.__doc__)
    demo_options.add_serve_arguments(parser)
    parser.parse_args(arguments)
    return run_script(SCRIPTS / "serve.py", arguments)


def bench(arguments: list[str]) -> int:
    """Run one of the benchmarks in scripts/bench."""
    parser = argparse.ArgumentParser(prog="dev.py bench", description=bench.__doc__)
    names = sorted(path.stem for path in BENCH.glob("[!_]*.py"))
    parser.add_argument("name", choices=names, help="each tells its own options with --help")
    name = parser.parse_args(arguments[:1]).name
    return run_script(BENCH / f"{name}.py", arguments[1:])


def gpu(arguments: list[str]) -> int:
    """Ask a GPU all that it is to be asked, in minutes: tests, flags, speed, memory, bits."""
    return run_script(SCRIPTS / "gpu.py", arguments, "dev")


def train_demo(arguments: list[str]) -> int:
    """Train the demo models again; arguments go to the training script."""
    if not TRAIN.is_file():
        raise SetupError("The training script is not part of this copy.")
    return run_script(TRAIN, arguments, "train")


def lint(arguments: list[str]) -> int:
    """Check style with ruff and the types of the core with mypy."""
    argparse.ArgumentParser(prog="dev.py lint", description=lint.__doc__).parse_args(arguments)
    venv, _ = environment.prepare("dev")
    ruff = str(environment.venv_command(venv, "ruff"))
    mypy = str(environment.venv_command(venv, "mypy"))
    commands = [[ruff, "check"], [ruff, "format", "--check"], [mypy]]
    return max([run(command) for command in commands])


def locales(arguments: list[str]) -> int:
    """Write the English texts of the nodes for the frontend, from their schemas."""
    argparse.ArgumentParser(prog="dev.py locales", description=locales.__doc__).parse_args(
        arguments
    )
    return run_script(SCRIPTS / "locales.py", arguments)


def thumbnails(arguments: list[str]) -> int:
    """Make the pictures that ComfyUI shows beside the templates."""
    return run_script(SCRIPTS / "thumbnails.py", arguments)


def architecture(arguments: list[str]) -> int:
    """Draw the rooms of the core, and print its two loops into docs/architecture.md."""
    return run([sys.executable, str(SCRIPTS / "architecture.py"), *arguments])


COMMANDS = {
    "demo": demo,
    "test": test,
    "soak": soak,
    "serve": serve,
    "bench": bench,
    "gpu": gpu,
    "train-demo": train_demo,
    "lint": lint,
    "locales": locales,
    "thumbnails": thumbnails,
    "architecture": architecture,
}


def first_line(command: Callable[[list[str]], int]) -> str:
    """What a command does, in one line."""
    return str(command.__doc__).splitlines()[0]


def main(arguments: list[str]) -> int:
    """Dispatch to a command."""
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = "\n".join(f"  {name:<14}{first_line(command)}" for name, command in COMMANDS.items())
    parser.epilog = f"commands:\n{commands}\n"
    parser.add_argument("command", choices=COMMANDS)
    chosen = parser.parse_args(arguments[:1]).command
    try:
        return COMMANDS[chosen](arguments[1:])
    except SetupError as error:
        say(f"error: {error}")
        return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
