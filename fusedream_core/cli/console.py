"""What the command line says, shows and hears: text, progress bars, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

from ..types import StepInfo

if TYPE_CHECKING:
    from types import FrameType

    from tqdm import tqdm

# In the order of a run; an image of a later kind of stage is better than any of an earlier one.
_KINDS = (
    ("search", "rerank", "invert", "start", "pair"),
    ("optimize", "race", "compose"),
    ("select",),
)
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]


def say(text: str, stream: TextIO | None) -> OSError | ValueError | None:
    """Write a line; what was to be said is not worth the work that it tells of.

    What the stream's encoding does not have, and bytes that are no text, are written as escapes.

    Args:
        text: The line.
        stream: Where to; None, as Python has it where it was closed from the start, is silent.

    Returns:
        What hinders the writing, as where the disk is full or nobody reads. Nothing more is then
        written to that stream.
    """
    if stream is None:
        return None
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    except (OSError, ValueError) as error:  # the latter where it is closed
        silence(stream)
        return error
    return flush(stream)


def flush(stream: TextIO | None) -> OSError | ValueError | None:
    """Write what a stream still holds. Returns what hinders it; then nothing more is written."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError) as error:
        silence(stream)
        return error
    return None


def silence(stream: TextIO | None) -> None:
    """Let what is still written to a stream go nowhere, so that Python's end does not fail too."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            if stream is not None:
                os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


class StoppedError(KeyboardInterrupt):
    """The run was asked to stop, by Ctrl-C or by the system."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """While it lasts, Ctrl-C and a request to end raise ``StoppedError``; but for threads.

    The end of a terminal is such a request, and so is a break in Windows' console.
    """

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise StoppedError(number)

    with _handling(stop):
        yield


@contextmanager
def unstoppable() -> Iterator[None]:
    """While it lasts, nothing stops: for what is done in moments."""
    with _handling(signal.SIG_IGN):
        yield


@contextmanager
def _handling(handler: object) -> Iterator[None]:
    """Handle these signals in one way; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in heard:  # what was to be ignored, as in the background, stays so
        signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, old in heard.items():
            signal.signal(number, old)


class Watch:
    """A callback that shows a bar for each stage, and remembers the best image so far.

    Attributes:
        best: The last stage's best report, by the score of the image in it; None before any.
        last: The last report; None before any.
    """

    def __init__(self) -> None:
        self.best: StepInfo | None = None
        self.last: StepInfo | None = None
        self._bars: dict[str, tqdm[NoReturn]] = {}
        self._shows = True

    def __call__(self, info: StepInfo) -> None:
        """Show and remember."""
        if info.stage == "review":
            return
        self.last = info
        if self.best is None or _worth(info) >= _worth(self.best):
            self.best = info
        self._draw(lambda: self._show(info))

    def _show(self, info: StepInfo) -> None:
        """Move the bar of the stage."""
        from tqdm import tqdm

        if info.stage not in self._bars:
            self._bars[info.stage] = tqdm(total=info.total, desc=info.stage)
        bar = self._bars[info.stage]
        bar.set_postfix(score=f"{float(info.score.max()):.4f}", refresh=False)
        bar.update(info.step - bar.n)
        if info.step == info.total:
            bar.close()

    def close(self) -> None:
        """Leave the bars as they are, so that what is said next has a line of its own."""
        for bar in self._bars.values():
            self._draw(bar.close)

    def _draw(self, act: Callable[[], object]) -> None:
        """Change what is shown; nothing any more where it fails, as where the terminal is gone."""
        if not self._shows or sys.stderr is None:
            return
        try:
            act()
        except (OSError, ValueError):
            self._shows = False
            silence(sys.stderr)


def _worth(info: StepInfo) -> tuple[int, float]:
    """How good an image is: by its stage, then by its score."""
    kind = next((kind for kind, stages in enumerate(_KINDS) if info.stage in stages), 0)
    return kind, float(info.score.max())
