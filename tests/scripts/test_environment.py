"""The launcher's set-up: what can be checked without installing anything."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import environment
from environment import SetupError
from mend_torchvision import mend_source


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


class TestPackages:
    def test_sound_is_left_out(self) -> None:
        comfyui = environment.find_comfyui()
        if comfyui is None:
            pytest.skip("no ComfyUI: run the tests with `python scripts/dev.py test`")
        kept = environment._without_audio(comfyui / "requirements.txt").splitlines()
        assert "torch" in kept
        assert "torchvision" in kept
        assert not [line for line in kept if "torchaudio" in line]

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


class TestCommandLine:
    """Mistakes are answered at once: a set-up would outlast the time allowed here."""

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
    def test_mistakes(self, arguments: list[str], said: str) -> None:
        command = [sys.executable, "-S", str(environment.SCRIPTS / "dev.py"), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert result.returncode == 2
        assert said in result.stderr
        assert "Traceback" not in result.stderr

    def test_help_names_every_command(self) -> None:
        command = [sys.executable, str(environment.SCRIPTS / "dev.py"), "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name in ("demo", "test", "serve", "bench", "train-demo", "lint"):
            assert f"\n  {name} " in shown
