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
