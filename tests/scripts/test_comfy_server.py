"""Whether the pack is loaded is asked of the server; here it is one that only answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import comfy_server
from comfy_server import PACK, ComfyServer, ServerError

FAKE = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HERE = Path(__file__).parent
print((HERE / "log.txt").read_text(), flush=True)
NODES = json.loads((HERE / "nodes.json").read_text())

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/object_info/")
        body = json.dumps({name: {}} if name in NODES else {}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *rest):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
NODES = sorted(page.stem for page in (PACK / "web" / "docs").glob("*.md"))


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str], str], ComfyServer]:
    """Describes a server that has some nodes and logs some line."""
    monkeypatch.setattr(comfy_server, "has_accelerator", lambda: False)

    def describe(nodes: list[str], log: str) -> ComfyServer:
        folder = tmp_path / "comfyui"
        folder.mkdir()
        (folder / "main.py").write_text(FAKE, encoding="utf-8")
        (folder / "nodes.json").write_text(json.dumps(nodes), encoding="utf-8")
        (folder / "log.txt").write_text(log, encoding="utf-8")
        return ComfyServer(folder, tmp_path / "base")

    return describe


@pytest.mark.parametrize(
    "log",
    [
        "   0.1 seconds: /base/custom_nodes/fusedream",
        "\x1b[32m[INFO]\x1b[0m    0.1 seconds: /base/custom_nodes/fusedream",
        "[INFO] something else altogether",
        "",
    ],
    ids=["0.3.75", "0.33.0", "other words", "nothing"],
)
def test_a_pack_that_is_there_is_found_whatever_the_log_says(
    make: Callable[[list[str], str], ComfyServer], log: str
) -> None:
    with make(NODES, log) as server:
        assert server.missing_nodes() == []


@pytest.mark.parametrize("there", [0, 1, len(NODES) - 1])
def test_nodes_that_are_not_there_are_named(
    make: Callable[[list[str], str], ComfyServer], there: int
) -> None:
    server = make(NODES[:there], "   0.1 seconds: /base/custom_nodes/fusedream")
    with pytest.raises(ServerError, match=f"could not load the pack.*{NODES[-1]}"):
        server.start()
    assert server.process is None
