"""Ctrl-C during the import of the command line, which takes seconds: one line, no traceback.

This is imported first; it has no effect if another program imports the package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


def exit_at_once(number: int, _: FrameType | None) -> NoReturn:
    """End the process at once, as no work has begun."""
    with contextlib.suppress(OSError):  # standard error may be closed
        os.write(2, b"Stopped.\n")
    os._exit(128 + number)


def end_startup() -> None:
    """Restore Python's handler of Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is exit_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# sys.argv is only -m while Python looks for the module of that option.
_is_command = sys.argv[:1] == ["-m"] and "fusedream_core" in sys.orig_argv
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, exit_at_once)
