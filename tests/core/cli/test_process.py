"""The command line as a process of its own: what only shows there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fusedream_core.__main__ import main

from .test_making import read

ROOT = Path(__file__).parents[3]


@pytest.fixture
def arguments(gan_dir: Path, clip_dir: Path) -> list[str]:
    """An image with noise in each step, so that every random number counts."""
    return [
        *("--gan", str(gan_dir), "--clip", str(clip_dir), "--preset", "reference"),
        *("--candidates", "20", "--basis", "3", "--steps", "40", "--augments", "2"),
    ]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fusedream_core", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_killed_without_notice(arguments: list[str], tmp_path: Path) -> None:
    """Nothing can be done then; what was written on the way is enough to go on."""
    whole, out = tmp_path / "whole.png", tmp_path / "out.png"
    assert main(["generate", "a dog", *arguments, "-o", str(whole)]) == 0
    begun = ["generate", "a dog", *arguments, "-o", str(out), "--save-every", "1"]
    with start(begun) as process:
        assert process.stderr is not None
        output = b""
        while b"optimize: " not in output:
            chunk = os.read(process.stderr.fileno(), 1_000)
            assert chunk, output.decode()
            output += chunk
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    saved = str(tmp_path / "out.fusedream.safetensors")
    assert main(["generate", "--resume", saved, *arguments[:4]]) == 0
    assert read(out) == read(whole)


def test_terminal_that_knows_ascii_alone(arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "h\u00fcndchen.png"
    with start(
        ["generate", "ein H\u00fcndchen", *arguments, "--steps", "1", "-o", str(out)],
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        PYTHONIOENCODING="ascii:strict",
    ) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert output.isascii()
    assert read(out)[1]["prompt"] == "ein H\u00fcndchen"


@pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")
class TestStreams:
    """Streams that cannot be written do not undo the work."""

    @pytest.mark.parametrize(
        ("redirection", "code", "lines"),
        [(">&-", 0, 0), (">/dev/full", 1, 1), ("| true", 0, 0), (">&- 2>&-", 0, 0)],
    )
    def test_standard_output_that_is_gone(self, redirection: str, code: int, lines: int) -> None:
        for command in ("models", "--help"):
            script = f"set -o pipefail; {sys.executable} -m fusedream_core {command} {redirection}"
            done = subprocess.run(
                ["/bin/bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
            )
            writes = command == "models"  # argparse ignores errors
            assert done.returncode == (code if writes else 0), done.stderr
            assert not writes or done.stderr.count("\n") == lines, done.stderr
            assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("redirection", [">/dev/full 2>/dev/full", "2>&-", "2>&1 | true"])
    def test_image_is_saved_all_the_same(
        self, redirection: str, arguments: list[str], tmp_path: Path
    ) -> None:
        out = tmp_path / "out.png"
        command = [sys.executable, "-m", "fusedream_core", "generate", "a dog", *arguments]
        words = " ".join([*(f"'{word}'" for word in command), "--steps 2 -o", str(out)])
        done = subprocess.run(
            ["/bin/bash", "-c", f"set -o pipefail; {words} {redirection}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stdout + done.stderr
        assert read(out)[1]["prompt"] == "a dog"
        assert list(tmp_path.iterdir()) == [out]


def test_stop_while_it_is_imported(tmp_path: Path) -> None:
    """The interrupt comes from the middle of an import that the package needs."""
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise ImportError\n"
    (tmp_path / "torch.py").write_text(code, encoding="utf-8")
    with start(["models"], PYTHONPATH=str(tmp_path)) as process:
        said, errors = process.communicate()
    assert process.returncode == 130
    assert (said, errors) == (b"", b"Stopped.\n")
