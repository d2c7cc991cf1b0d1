"""One real ComfyUI server for the whole session, and prompts to run on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import environment
from comfy_client import ComfyClient
from comfy_server import ComfyServer, terminate_as_interrupt

OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """ComfyUI's folder; ``dev.py test`` always provides one."""
    found = environment.find_comfyui()
    if found is None:
        pytest.skip("no ComfyUI: run the tests with `python scripts/dev.py test`")
    return found


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The server; stopped at the end even if the test run is terminated."""
    base = tmp_path_factory.mktemp("comfyui")
    (base / "input").mkdir()
    shutil.copy(comfyui / "input" / "example.png", base / "input")
    with terminate_as_interrupt(), ComfyServer(comfyui, base, environment=OFFLINE) as started:
        yield started


@pytest.fixture
def client(server: ComfyServer) -> ComfyClient:
    """A client of the session's server."""
    return ComfyClient(server.url)


@pytest.fixture(scope="session")
def object_info(server: ComfyServer) -> dict[str, Any]:
    """The server's descriptions of all nodes."""
    return ComfyClient(server.url).object_info()
