"""Ctrl-C while the command line is being imported, which takes seconds: one line, no traceback.

This is imported before all else; it does nothing where the package is imported by another program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


def end(number: int, _: FrameType | None) -> NoReturn:
    """End the process at once, as nothing has begun."""
    with contextlib.suppress(OSError):  # nobody may be there to read it
        os.write(2, b"Stopped.\n")
    os._exit(128 + number)


def started() -> None:
    """From here on Ctrl-C is the caller's to handle, as usual."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# While Python looks for the module of -m, that is all there is of the arguments.
_is_command = sys.argv[:1] == ["-m"] and "fusedream_core" in sys.orig_argv
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end)
