"""Run ComfyUI with this pack until Ctrl-C, for the browser; ``dev.py serve`` is what one types.

Models, inputs, outputs and settings live in ``.cache/serve`` of the checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import demo_options
import environment
from comfy_server import ComfyServer, ServerError, terminate_as_interrupt
from stages import say, stage

BASE = environment.CACHE / "serve"


def main() -> int:
    """Start, tell where, wait."""
    parser = argparse.ArgumentParser(prog="dev.py serve")
    demo_options.add_serve_arguments(parser)
    port = parser.parse_args().port
    comfyui = Path(os.environ[environment.COMFYUI_VARIABLE])
    try:
        with terminate_as_interrupt(), ExitStack() as stack:
            with stage("Starting ComfyUI"):
                server = stack.enter_context(ComfyServer(comfyui, BASE, port=port))
            say(f"ComfyUI is at {server.url} (models and outputs in {BASE}).")
            say("The workflows are under Templates > fusedream. Ctrl-C stops it.")
            return server.wait()
    except ServerError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
