"""A headless ComfyUI process with this pack as its only custom node.

Runs inside the virtual environment; used by the demo, ``dev.py serve`` and the tests::

    with ComfyServer(comfyui, base) as server:
        client = ComfyClient(server.url)
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
PACK = SCRIPTS.parent
PACK_NAME = "fusedream"
HELP_PAGES = PACK / "web" / "docs"
LOG_TAIL_LINES = 30
START_SECONDS = 300.0
POLL_SECONDS = 0.1
ANSWER_SECONDS = 60.0
STOP_SECONDS = 10.0


class ServerError(RuntimeError):
    """ComfyUI did not start or did not load the pack; the message ends with its log."""


class ComfyServer:
    """Starts ComfyUI on entry, stops it on exit, whatever happened in between."""

    def __init__(
        self,
        comfyui: Path,
        base: Path,
        *,
        port: int | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """Describe the server; nothing runs before ``with`` or :meth:`start`.

        Args:
            comfyui: ComfyUI's folder.
            base: Folder for its models, inputs, outputs, user settings and log.
            port: Loopback port; a free one if None.
            arguments: Further command-line arguments for ComfyUI.
            environment: Further environment variables for ComfyUI.
            start_seconds: How long starting may take.
        """
        self.comfyui = comfyui
        self.base = base
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = base / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._start_seconds = start_seconds

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What ComfyUI has logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def missing_nodes(self) -> list[str]:
        """The pack's nodes that the running server does not have; every node has a help page."""
        names = sorted(page.stem for page in HELP_PAGES.glob("*.md"))
        return [name for name in names if name not in self._ask(f"/object_info/{name}")]

    def start(self) -> None:
        """Start ComfyUI and wait until it answers.

        Raises:
            ServerError: If it exits, does not answer in time, or did not load the pack.
        """
        self.base.mkdir(parents=True, exist_ok=True)
        link_pack(self.base / "custom_nodes" / PACK_NAME)
        try:
            self._launch()
            self._wait_until_ready()
            self._check_pack()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> int:
        """Wait until ComfyUI ends by itself; returns its exit status."""
        return self.process.wait() if self.process else 0

    def stop(self) -> None:
        """Stop the process, by force if it does not go by itself."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdin:
                process.stdin.close()

    def _launch(self) -> None:
        command = [
            *(sys.executable, str(SCRIPTS / "comfy_child.py"), str(self.comfyui / "main.py")),
            *("--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(self.base)),
            *("--database-url", "sqlite:///:memory:"),
            *("--disable-auto-launch", "--disable-api-nodes"),
            *([] if has_accelerator() else ["--cpu"]),
            *self._arguments,
        ]
        # A session of its own: Ctrl-C in the terminal reaches us, and we stop it in our own way.
        apart = {"creationflags": 0x00000200} if os.name == "nt" else {"start_new_session": True}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.comfyui,
                env={**os.environ, "PYTHONIOENCODING": "utf-8", **self._environment},
                stdin=subprocess.PIPE,  # its end tells the child that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                **apart,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        while not self._answers():
            if self.process is None or self.process.poll() is not None:
                raise ServerError(self._explain("ComfyUI stopped while it was starting."))
            if time.monotonic() > deadline:
                seconds = f"{self._start_seconds:.0f}"
                raise ServerError(self._explain(f"ComfyUI did not start within {seconds} seconds."))
            time.sleep(POLL_SECONDS)

    def _answers(self) -> bool:
        try:
            self._ask("/system_stats")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _check_pack(self) -> None:
        """Ask the server itself whether it has the nodes: its log differs between versions."""
        missing = self.missing_nodes()
        if missing:
            names = ", ".join(missing)
            raise ServerError(self._explain(f"ComfyUI could not load the pack; without {names}."))

    def _ask(self, path: str) -> dict[str, Any]:
        """The server's answer to a request, as JSON."""
        with urllib.request.urlopen(self.url + path, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            return dict(json.load(answer))

    def _explain(self, what: str) -> str:
        tail = "\n".join(self.log.splitlines()[-LOG_TAIL_LINES:])
        return f"{what} The end of its log ({self.log_path}):\n{tail}"


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def has_accelerator() -> bool:
    """Whether PyTorch sees a GPU; without one ComfyUI must be told ``--cpu``."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def link_pack(link: Path) -> None:
    """Put the checkout at ``link``: a symbolic link, a junction on Windows, or else a copy."""
    if link.exists():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        if os.name == "nt":  # symbolic links need a right there that people seldom have
            import _winapi

            _winapi.CreateJunction(str(PACK), str(link))
        else:
            link.symlink_to(PACK, target_is_directory=True)
    except OSError:
        unwanted = shutil.ignore_patterns(".*", "tests", "output", "__pycache__")
        shutil.copytree(PACK, link, ignore=unwanted)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that ``finally`` and ``with`` still run.

    SIGINT is set as well: a shell starts background commands with SIGINT ignored, and Python
    leaves it so.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)
