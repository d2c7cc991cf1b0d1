"""Text output, progress bars and signals of the command line."""

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

# Stages in order; an image of a later group ranks above any of an earlier one.
_KINDS = (
    ("search", "rerank"),
    ("invert",),  # whose scores are distances, below 0
    ("start", "pair"),
    ("optimize", "race", "compose"),
    ("select",),
)
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]


def say(text: str, stream: TextIO | None) -> OSError | ValueError | None:
    """Write a line; a failure is returned, not raised, so that it does not stop the work.

    Characters outside of the stream's encoding are written as escapes.

    Args:
        text: The line.
        stream: The stream; None, Python's value for a stream that is closed, writes nothing.

    Returns:
        The error, for example of a full disk or a closed pipe, or None. After an error the stream
        leads nowhere.
    """
    if stream is None:
        return None
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    except (OSError, ValueError) as error:  # ValueError of a closed stream
        silence(stream)
        return error
    return flush(stream)


def flush(stream: TextIO | None) -> OSError | ValueError | None:
    """Flush a stream. Returns the error, if any; the stream then leads nowhere."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError) as error:
        silence(stream)
        return error
    return None


def silence(stream: TextIO | None) -> None:
    """Redirect a stream to the null device, so that Python does not fail at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            if stream is not None:
                os.dup2(null, stream.fileno())
        finally:
            os.close(null)


class StoppedError(KeyboardInterrupt):
    """A signal, such as Ctrl-C, stopped the run."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise ``StoppedError`` on Ctrl-C and termination signals, in the main thread only.

    These include a closed terminal, and Ctrl-Break on Windows.
    """

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise StoppedError(number)

    with _handling(stop):
        yield


@contextmanager
def unstoppable() -> Iterator[None]:
    """Ignore stop signals, for short work."""
    with _handling(signal.SIG_IGN):
        yield


@contextmanager
def _handling(handler: object) -> Iterator[None]:
    """Set one handler for all stop signals, in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in handled:  # ignored signals, as of background jobs, stay ignored
        signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, old in handled.items():
            signal.signal(number, old)


class Watch:
    """A callback that shows a progress bar per stage and stores the best image.

    Attributes:
        best: Report with the best image of the last group of stages; None before any.
        last: Latest report; None before any.
    """

    def __init__(self) -> None:
        self.best: StepInfo | None = None
        self.last: StepInfo | None = None
        self._bars: dict[str, tqdm[NoReturn]] = {}
        self._is_shown = True

    def __call__(self, info: StepInfo) -> None:
        """Update the bar and the best report."""
        self.last = info
        if self.best is None or _rank(info) >= _rank(self.best):
            self.best = info
        self._draw(lambda: self._show(info))

    def _show(self, info: StepInfo) -> None:
        """Update the bar of the stage."""
        from tqdm import tqdm

        if info.stage not in self._bars:
            self._bars[info.stage] = tqdm(total=info.total, desc=info.stage)
        bar = self._bars[info.stage]
        bar.set_postfix(score=f"{float(info.score.max()):.4f}", refresh=False)
        bar.update(info.step - bar.n)
        if info.step == info.total:
            bar.close()

    def close(self) -> None:
        """Close the bars, so that the next output starts a new line."""
        for bar in self._bars.values():
            self._draw(bar.close)

    def _draw(self, draw: Callable[[], object]) -> None:
        """Draw; after a failure, as of a closed terminal, nothing more is drawn."""
        if not self._is_shown or sys.stderr is None:
            return
        try:
            draw()
        except (OSError, ValueError):
            self._is_shown = False
            silence(sys.stderr)


def _rank(info: StepInfo) -> tuple[int, float]:
    """Return the sort key of an image: group of its stage, then score."""
    kind = next((kind for kind, stages in enumerate(_KINDS) if info.stage in stages), 0)
    return kind, float(info.score.max())
