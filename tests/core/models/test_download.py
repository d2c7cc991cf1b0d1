from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fusedream_core.errors import DownloadError
from fusedream_core.models.catalogue import CatalogueModel, RemoteFile, Source
from fusedream_core.models.download import download_model

CONTENT = bytes(range(256)) * 4096  # 1 MB
BIG = CONTENT * 48  # the library passes on ten megabytes at a time
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's own setting is; nothing but this machine is asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # for processes of their own


class Server(ThreadingHTTPServer):
    """Serves one content in several ways, and notes what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.asked: list[tuple[str, str, str | None]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.pause = threading.Event()
        self.drops = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        kind, content = self.path.strip("/"), self.server.content
        asked = self.headers.get("Range")
        self.server.asked.append((self.command, kind, asked))
        self.server.headers_seen.append(dict(self.headers))
        if kind in ("404", "403"):
            self.send_error(int(kind))
        elif kind == "loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif kind == "away":
            self.send_response(302)
            self.send_header("Location", self.server.url("file"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_content(kind, content, asked if kind != "no-range" else None, body)

    def send_content(self, kind: str, content: bytes, asked: str | None, body: bool) -> None:
        start = int(asked.split("=")[1].split("-")[0]) if asked else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if kind != "no-size":
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"')
        self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self.send_body(kind, content[start:], len(content) // 2 - start)

    def send_body(self, kind: str, rest: bytes, half: int) -> None:
        if kind == "drops" and self.server.drops > 0:
            self.server.drops -= 1
            self.wfile.write(rest[: max(1, half)])
            self.close_connection = True
            return
        if kind == "dies":
            self.close_connection = True
            return
        if kind == "waits" and half > 0:
            self.wfile.write(rest[:half])
            self.wfile.flush()
            self.server.pause.wait(60)
            rest = rest[half:]
        self.wfile.write(rest)
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.pause.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits a second before each retry."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)


def model(*urls: str, sha256: str = "", name: str = "weights.bin") -> CatalogueModel:
    sources = tuple(Source(url, sha256) for url in urls)
    return CatalogueModel("tiny", "gan", "Tiny", "MIT", 16, (RemoteFile(name, 1, sources),))


def final(folder: Path) -> list[str]:
    """Everything under a name that a loader would take."""
    files = [file.name for file in folder.rglob("*") if file.is_file()]
    return sorted(name for name in files if not name.endswith((".lock", ".part", ".sha256")))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.part"))


class TestDownload:
    def test_whole_file(self, server: Server, tmp_path: Path) -> None:
        reports: list[tuple[int, int | None]] = []
        folder = download_model(
            model(server.url("file"), sha256=SHA256),
            tmp_path,
            progress=lambda done, total: reports.append((done, total)),
        )
        assert folder == tmp_path / "tiny"
        assert (folder / "weights.bin").read_bytes() == CONTENT
        assert reports[-1] == (len(CONTENT), len(CONTENT))
        assert not parts(tmp_path)

    def test_what_is_there_is_not_asked_for(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "weights.bin").write_bytes(b"mine")
        download_model(model(server.url("file")), tmp_path)
        assert (tmp_path / "tiny" / "weights.bin").read_bytes() == b"mine"
        assert not server.asked

    def test_first_digits_of_a_hash_are_enough(self, server: Server, tmp_path: Path) -> None:
        download_model(model(server.url("file"), sha256=SHA256[:8]), tmp_path)
        assert final(tmp_path) == ["weights.bin"]

    def test_another_server_by_redirect(self, server: Server, tmp_path: Path) -> None:
        download_model(model(server.url("away"), sha256=SHA256), tmp_path)
        assert final(tmp_path) == ["weights.bin"]

    def test_the_second_source(self, server: Server, tmp_path: Path) -> None:
        download_model(model(server.url("404"), server.url("file")), tmp_path)
        assert final(tmp_path) == ["weights.bin"]

    def test_no_size(self, server: Server, tmp_path: Path) -> None:
        download_model(model(server.url("no-size"), sha256=SHA256), tmp_path)
        assert final(tmp_path) == ["weights.bin"]

    def test_the_users_token_stays_at_home(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        download_model(model(server.url("file")), tmp_path)
        assert not any("secret" in str(headers) for headers in server.headers_seen)

    def test_hub_files_come_from_the_endpoint(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        endpoint = server.url("").rstrip("/")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        download_model(model("hf://owner/repository/weights.bin"), tmp_path)
        assert server.asked[-1][1] == "owner/repository/resolve/main/weights.bin"
        assert final(tmp_path) == ["weights.bin"]


class TestWhatGoesWrong:
    @pytest.mark.parametrize("kind", ["404", "403", "loop"])
    def test_refusals(self, server: Server, tmp_path: Path, kind: str) -> None:
        with pytest.raises(DownloadError) as caught:
            download_model(model(server.url(kind)), tmp_path)
        message = str(caught.value)
        assert server.url(kind) in message
        assert "about 1 MB" in message
        assert str(tmp_path / "tiny" / "weights.bin") in message
        assert not final(tmp_path)

    def test_wrong_hash(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=f"SHA-256 is {SHA256[:12]}..., not ffffffff"):
            download_model(model(server.url("file"), sha256="f" * 64), tmp_path)
        assert not final(tmp_path)
        assert not parts(tmp_path)

    def test_another_content_than_the_first_time(self, server: Server, tmp_path: Path) -> None:
        download_model(model(server.url("file")), tmp_path)
        (tmp_path / "tiny" / "weights.bin").unlink()
        server.content = CONTENT[::-1]
        with pytest.raises(DownloadError, match="that of the first download, in"):
            download_model(model(server.url("file")), tmp_path)
        assert not final(tmp_path)

    def test_dropped_connections_are_taken_up_again(self, server: Server, tmp_path: Path) -> None:
        server.drops, server.content = 1, BIG
        download_model(model(server.url("drops")), tmp_path)
        assert (tmp_path / "tiny" / "weights.bin").read_bytes() == BIG
        assert [ranged for _, _, ranged in server.asked if ranged]

    def test_a_connection_that_drops_for_good(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=r"closed connection|ended prematurely"):
            download_model(model(server.url("dies")), tmp_path)
        assert len(server.asked) > 3
        assert not final(tmp_path)

    def test_a_file_that_grows(self, server: Server, tmp_path: Path) -> None:
        """Its first half is of no use any more, and the rest of it must not be put behind that."""
        with pytest.raises(KeyboardInterrupt):
            download_model(model(server.url("file")), tmp_path, progress=interrupt)
        server.content = CONTENT + CONTENT
        download_model(model(server.url("file")), tmp_path)
        assert (tmp_path / "tiny" / "weights.bin").read_bytes() == CONTENT + CONTENT

    def test_a_server_that_cannot_resume(self, server: Server, tmp_path: Path) -> None:
        broken_off(server, "no-range", tmp_path)
        download_model(model(server.url("no-range"), sha256=SHA256), tmp_path)
        assert final(tmp_path) == ["weights.bin"]

    def test_a_part_that_is_whole_already(self, server: Server, tmp_path: Path) -> None:
        part = broken_off(server, "file", tmp_path)
        part.write_bytes(CONTENT)
        server.asked.clear()
        download_model(model(server.url("file"), sha256=SHA256), tmp_path)
        assert final(tmp_path) == ["weights.bin"]
        assert [command for command, _, _ in server.asked] == ["HEAD"]

    def test_full_disk(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fusedream_core.models.download._Stoppable.write", full)
        with pytest.raises(DownloadError, match="the disk is full"):
            download_model(model(server.url("file")), tmp_path)
        assert not final(tmp_path)

    def test_offline(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
            download_model(model(server.url("file")), tmp_path)
        assert not server.asked

    def test_two_at_once(self, server: Server, tmp_path: Path) -> None:
        from filelock import FileLock

        (tmp_path / "tiny").mkdir()
        with (
            FileLock(tmp_path / "tiny" / "weights.bin.lock"),
            pytest.raises(DownloadError, match="Another process is downloading"),
        ):
            download_model(model(server.url("file")), tmp_path)

    def test_cancelled_while_the_server_is_silent(self, server: Server, tmp_path: Path) -> None:
        server.content = BIG
        with pytest.raises(KeyboardInterrupt):
            download_model(model(server.url("waits")), tmp_path, progress=interrupt)
        assert not final(tmp_path)
        (part,) = parts(tmp_path)
        there = part.stat().st_size
        server.pause.set()  # what comes now comes too late
        assert part.stat().st_size == there
        download_model(model(server.url("waits")), tmp_path)
        assert (tmp_path / "tiny" / "weights.bin").read_bytes() == BIG

    def test_killed_and_resumed(self, server: Server, tmp_path: Path) -> None:
        script = (
            "import sys; from fusedream_core.models.catalogue import *;"
            "from fusedream_core.models.download import download_model;"
            "file = RemoteFile('weights.bin', 1, (Source(sys.argv[1]),));"
            "model = CatalogueModel('tiny', 'gan', 'Tiny', 'MIT', 16, (file,));"
            "report = lambda done, _: done and print('some', flush=True);"
            "download_model(model, sys.argv[2], progress=report)"
        )
        server.content = BIG
        process = subprocess.Popen(
            [sys.executable, "-c", script, server.url("waits"), str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"some\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        (part,) = parts(tmp_path)
        there = part.stat().st_size
        assert 0 < there < len(server.content)
        assert not final(tmp_path)
        server.pause.set()
        server.asked.clear()
        download_model(model(server.url("waits")), tmp_path)
        assert (tmp_path / "tiny" / "weights.bin").read_bytes() == server.content
        assert server.asked[1] == ("GET", "waits", f"bytes={there}-")


def interrupt(done: int, _: int | None) -> None:
    if done:
        raise KeyboardInterrupt


def broken_off(server: Server, kind: str, root: Path) -> Path:
    """The part of a download that was stopped early."""
    with pytest.raises(KeyboardInterrupt):
        download_model(model(server.url(kind)), root, progress=interrupt)
    (part,) = parts(root)
    part.write_bytes(CONTENT[:1000])
    return part
