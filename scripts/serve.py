"""Run ComfyUI with this pack until Ctrl-C, for the browser; ``dev.py serve`` is what one types.

Models, inputs, outputs and settings live in ``.cache/serve`` of the checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import demo_options
import environment
from comfy_server import ComfyServer, ServerError, terminate_as_interrupt

BASE = environment.CACHE / "serve"


def main() -> int:
    """Start, tell where, wait."""
    parser = argparse.ArgumentParser(prog="dev.py serve")
    demo_options.add_serve_arguments(parser)
    port = parser.parse_args().port
    comfyui = Path(os.environ[environment.COMFYUI_VARIABLE])
    environment.say("Starting ComfyUI ...")
    try:
        with terminate_as_interrupt(), ComfyServer(comfyui, BASE, port=port) as server:
            environment.say(f"ComfyUI is at {server.url} (models and outputs in {BASE}).")
            environment.say("The workflows are under Templates > fusedream. Ctrl-C stops it.")
            return server.wait()
    except ServerError as error:
        environment.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        environment.say("Stopped.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
