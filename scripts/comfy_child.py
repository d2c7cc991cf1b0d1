"""Run ComfyUI's ``main.py``, and leave when the process that started it is gone.

A parent that is killed cannot stop its server. Its end of our standard input closes all the same,
on every system, and that is what this waits for.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from pathlib import Path


def leave_with_parent() -> None:
    """End this process when standard input ends."""
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


def main() -> None:
    """Run the script named by the first argument as if Python had been given it."""
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
