"""One line for each stage of a set-up, with its seconds; all that is said within goes to a log.

Standard library only. Where a person watches, a bar moves in the line of the stage at work.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BAR_CELLS = 24
POLL_SECONDS = 0.2
REASONS = re.compile(r"^(?:ERROR|error|fatal)\b.*", re.MULTILINE)
REASONS_SHOWN = 3


def say(message: str) -> None:
    """Tell the person at the keyboard, on stderr: stdout belongs to results."""
    print(message, file=sys.stderr, flush=True)


class Stage:
    """One line of the terminal."""

    def __init__(self, title: str, *, watched: bool) -> None:
        """Describe a stage; :func:`stage` begins and ends it.

        Args:
            title: What is done, the line's first words.
            watched: Whether a person watches, for whom the line moves.
        """
        self.title, self._watched = title, watched
        self._begin, self._width = time.monotonic(), 0

    def begin(self) -> None:
        """Show the title."""
        self._draw("")

    def show(self, done: int, total: int | None, what: str = "") -> None:
        """Move the bar; without a total it only counts."""
        if not self._watched:
            return
        filled = BAR_CELLS * min(done, total) // total if total else 0
        bar = f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}]"
        self._draw(f"{bar} {done}{f'/{total}' if total else ''} {what[:30]}")

    def end(self, word: str = "") -> None:
        """Leave the line as it is to stay: the title and the seconds."""
        seconds = f"{time.monotonic() - self._begin:.0f} s"
        self._draw(f"{word} {seconds}".strip(), last=True)

    def _draw(self, rest: str, *, last: bool = False) -> None:
        line = f"{self.title} ... {rest}"
        if self._watched:
            # A line that wraps could not be drawn over.
            line = line[: shutil.get_terminal_size().columns - 1].ljust(self._width)
            self._width, line = len(line), "\r" + line
        elif not last:
            return
        sys.stderr.write(line + ("\n" if last else ""))
        sys.stderr.flush()


@contextmanager
def stage(title: str) -> Iterator[Stage]:
    """A stage, from its begin to its end or to what makes it fail."""
    line = Stage(title, watched=sys.stderr.isatty())
    line.begin()
    try:
        yield line
    except BaseException:
        line.end("failed after")
        raise
    line.end()


def run_logged(
    command: list[str | Path], log: Path, on_line: Callable[[str], None] | None = None
) -> tuple[int, str]:
    """Run a command with all that it says appended to a log.

    Args:
        command: The program and its arguments.
        log: The file.
        on_line: Given each line as it comes.

    Returns:
        The exit status, and what the command named as its reasons for failing.
    """
    said: list[str] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ {' '.join(map(str, command))}\n")
        file.flush()
        with subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None  # noqa: S101 - asked for above
            for text in process.stdout:
                file.write(text)
                said.append(text)
                if on_line:
                    on_line(text.rstrip())
    return process.returncode, reasons("".join(said))


def reasons(said: str) -> str:
    """The lines in which a program says why it failed; else its last line."""
    found = [match.group(0).strip() for match in REASONS.finditer(said)]
    last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
    return "\n".join((found or last)[-REASONS_SHOWN:])


class PipProgress:
    """Moves a stage's bar by what pip says, and by what appears in the folder it installs into."""

    def __init__(self, line: Stage, packages: Path) -> None:
        """Follow one run of pip.

        Args:
            line: The stage.
            packages: The folder ``site-packages``.
        """
        self._line, self._packages = line, packages
        self._found: set[str] = set()
        self._total = 0
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._follow, daemon=True)

    def __call__(self, text: str) -> None:
        """Take one line of pip's."""
        collected = re.match(r"\s*Collecting ([\w.-]+)", text)
        installing = re.match(r"Installing collected packages: (.*)", text)
        if collected:
            self._found.add(collected[1])
            self._line.show(len(self._found), None, f"found, {collected[1]}")
        elif installing:
            self._total = len(installing[1].split(", "))
            self._watch.start()

    def close(self) -> None:
        """End it, whatever became of pip."""
        self._stop.set()
        if self._watch.is_alive():
            self._watch.join()

    def _follow(self) -> None:
        """Count the packages that are new since pip began to install."""
        before = self._installed()
        while not self._stop.wait(POLL_SECONDS):
            new = self._installed() - before
            self._line.show(len(new), self._total, "installed")

    def _installed(self) -> set[str]:
        return {path.name for path in self._packages.glob("*.dist-info")}
