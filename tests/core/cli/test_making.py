"""The commands that make images, in one process, with tiny models."""

from __future__ import annotations

import copy
import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fusedream_core import BigGan, OpenClip, StepInfo, load_run
from fusedream_core.__main__ import main
from fusedream_core.cli import console
from fusedream_core.pipeline.result import GenerationResult

SMALL = ["--candidates", "20", "--basis", "3", "--steps", "6", "--augments", "2"]
GENERATE = ["generate", "a dog", *SMALL]
COMPOSE = [
    *("compose", "a dog and a cat", *SMALL),
    *("--foreground", "a dog", "--position", "left"),
]
KINDS = {"generate": GENERATE, "compose": COMPOSE}
Saved = tuple[bytes, dict[str, str]]


def read(path: Path) -> Saved:
    """Pixels and text chunks of a PNG."""
    with Image.open(path) as image:
        return image.tobytes(), dict(image.text)  # type: ignore[attr-defined]


def make(arguments: list[str], out: Path) -> Saved:
    assert main([*arguments, "-o", str(out)]) == 0
    return read(out)


class TestGenerate:
    def test_smoke(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "new" / "out.png"
        _, text = make([*GENERATE, "--seed", "3"], out)
        assert text["prompt"] == "a dog"
        said = capsys.readouterr()
        assert said.out.startswith(f"{out}  AugCLIP ")
        assert "Device: cpu\n" in said.err
        assert list(out.parent.iterdir()) == [out]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([""], "The prompt is empty"),
            (["a dog \udcff"], "The prompt holds something that is no character at place 7"),
            (["a dog", "--augments", "4097"], "num_augments is 4097, but it must be a number up"),
            (["a dog", "--seed", "-1"], "The seed is -1"),
            (["a dog", "--candidates", "0"], "num_candidates is 0"),
            (["a dog", "--truncation", "2"], "truncation is 2.0"),
            (["a dog", "-o", "/proc/x.png"], "/proc/x.png cannot be written"),
            (["a dog", "-o", f"{__file__}/x.png"], "is a file, so"),
            (["a dog", "-o", f"{'x' * 300}.png"], "File name too long"),
            (["a dog", "--device", "gpu"], "The device 'gpu' cannot be used here"),
            (["a dog", "--device", "hpu"], "The device 'hpu' cannot be used here"),  # no module
            (["d" * 10_001], "The prompt has 10,001 characters"),
            (["a dog", "--steps", "1000001"], "num_steps is 1000001"),
            (["a dog", "--gan", "gone.pth", "--clip", "gone"], "no folder or file gone.pth"),
            (["a dog", "--start-image", __file__], "cannot be read as an image"),
            (["a dog", "--gan", "nowhere", "--clip", "nowhere"], "nowhere"),
            (["--from", __file__], "cannot be read as an image"),
            (["--from", "nowhere.png"], "cannot be read as an image"),
            (["--resume", "nowhere.fusedream.safetensors"], "There is no weight file nowhere"),
            (["--resume", __file__], "is no saved run"),
        ],
    )
    def test_fault_is_one_sentence_before_the_work(
        self,
        arguments: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("fusedream_core.cli.making.run_job", None)
        assert main(["generate", *arguments]) == 2
        said = capsys.readouterr()
        assert message in said.err
        assert said.err.count("\n") == 1
        assert not said.out
        assert not list(tmp_path.iterdir())

    def test_own_models(
        self,
        gan_dir: Path,
        clip_dir: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        expected, _ = make(GENERATE, tmp_path / "demo.png")
        own = [*GENERATE, "--gan", str(gan_dir)]
        found, _ = make([*own, "--clip", str(clip_dir)], tmp_path / "own.png")
        assert found == expected
        assert main([*own, "-o", str(tmp_path / "out.png")]) == 2
        assert "Only one of gan and clip was given" in capsys.readouterr().err

    def test_selector(self, clip_dir: Path, tmp_path: Path) -> None:
        _, text = make([*GENERATE, "--selector", str(clip_dir)], tmp_path / "out.png")
        record = json.loads(text["fusedream"])
        assert record["models"]["selector"]["id"].startswith("open_clip-")

    def test_start_image(self, tmp_path: Path) -> None:
        """The first image is nearer to the one given than what a search starts from."""
        photo = tmp_path / "photo.png"
        Image.new("RGB", (40, 30), (200, 30, 30)).save(photo)
        arguments = [*GENERATE, "--start-image", str(photo)]
        first, text = make(arguments, tmp_path / "out.png")
        again = ["generate", "--from", str(tmp_path / "out.png")]
        found, _ = make([*again, "--start-image", str(photo)], tmp_path / "again.png")
        assert found == first
        assert first != make(GENERATE, tmp_path / "other.png")[0]
        assert json.loads(text["fusedream"])["models"]["perceptual"]["id"]

    def test_start_image_that_is_too_small(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.new("RGB", (40, 7)).save(tmp_path / "small.png")
        arguments = ["--start-image", str(tmp_path / "small.png")]
        assert main([*GENERATE, *arguments, "-o", str(tmp_path / "out.png")]) == 2
        assert "1 of 40 x 7 pixels, but one of at least 8 x 8" in capsys.readouterr().err

    def test_image_that_cannot_be_saved_is_kept(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its folder goes while the work is done."""
        folder, scratch = tmp_path / "folder", tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))

        def remove(info: StepInfo) -> None:
            if folder.is_dir():
                folder.rmdir()
                folder.write_text("")

        when(monkeypatch, remove)
        assert main([*GENERATE, "-o", str(folder / "out.png")]) == 2
        (kept,) = scratch.glob("*.png")
        last = capsys.readouterr().err.splitlines()[-1]
        assert str(kept) in last
        assert read(kept)[1]["prompt"] == "a dog"


def when(monkeypatch: pytest.MonkeyPatch, act: Callable[[StepInfo], None]) -> None:
    """Do something at each report of the run."""
    usual = console.Watch.__call__

    def call(watch: console.Watch, info: StepInfo) -> None:
        usual(watch, info)
        act(info)

    monkeypatch.setattr(console.Watch, "__call__", call)


def stop_at(monkeypatch: pytest.MonkeyPatch, stage: str, step: int, number: int) -> None:
    """Send this process a signal at one step of a stage."""

    def act(info: StepInfo) -> None:
        if (info.stage, info.step) == (stage, step):
            signal.raise_signal(number)

    when(monkeypatch, act)


# In the search; among several starts; at the choice of one; at the end of the steps; at the result.
STOPS = {
    "generate": [("search", 1), ("start", 2), ("optimize", 1), ("race", 1), ("optimize", 5)],
    "compose": [("search", 2), ("pair", 3), ("compose", 2), ("compose", 7), ("select", 1)],
}


class TestStop:
    @pytest.mark.parametrize(
        ("kind", "stage", "step"),
        [(kind, *stop) for kind, stops in STOPS.items() for stop in stops],
    )
    def test_resumed_run_ends_in_the_same_bits(
        self,
        kind: str,
        stage: str,
        step: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        whole = make(KINDS[kind], tmp_path / "whole.png")
        capsys.readouterr()
        out = tmp_path / "out.png"
        before = signal.getsignal(signal.SIGINT)
        with monkeypatch.context() as patch:
            stop_at(patch, stage, step, signal.SIGINT)
            assert main([*KINDS[kind], "-o", str(out)]) == 130
        assert signal.getsignal(signal.SIGINT) is before
        said = capsys.readouterr()
        saved = tmp_path / "out.fusedream.safetensors"
        last = said.err.splitlines()[-1]
        assert last.startswith(f"Stopped. The best image so far is {out} (score ")
        assert f"python -m fusedream_core {kind} --resume {saved}" in last
        assert not said.out
        kept = read(out)[1]
        assert kept["state"].startswith(f"stopped in {stage}, step {step} of ")
        assert "fusedream" not in kept  # nobody could make it again from that
        assert main([kind, "--resume", str(saved)]) == 0
        assert read(out) == whole
        assert not saved.exists()  # as after a run without a stop

    def test_resumed_run_is_gone_where_the_image_has_another_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            stop_at(patch, "optimize", 2, signal.SIGINT)
            assert main([*GENERATE, "-o", str(tmp_path / "out.png")]) == 130
        saved, other = tmp_path / "out.fusedream.safetensors", tmp_path / "other.png"
        assert main(["generate", "--resume", str(saved), "-o", str(other)]) == 0
        assert sorted(tmp_path.iterdir()) == [other, tmp_path / "out.png"]

    @pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
    def test_end_of_the_terminal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "out.png"
        stop_at(monkeypatch, "optimize", 2, signal.SIGHUP)
        assert main([*GENERATE, "-o", str(out)]) == 128 + signal.SIGHUP
        assert read(out)[1]["state"].startswith("stopped in optimize")
        assert load_run(tmp_path / "out.fusedream.safetensors").state["engine"] is not None

    def test_while_the_image_is_saved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is saved all the same."""
        usual = GenerationResult.save

        def save(result: GenerationResult, path: Path) -> None:
            signal.raise_signal(signal.SIGINT)
            usual(result, path)

        monkeypatch.setattr(GenerationResult, "save", save)
        make(GENERATE, tmp_path / "out.png")

    def test_within_a_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the step had begun to change is not what is kept."""
        whole = make(GENERATE, tmp_path / "whole.png")
        out, usual = tmp_path / "out.png", torch.optim.Adam.step
        calls = []

        def step(adam: torch.optim.Adam) -> None:
            usual(adam)
            calls.append(1)
            if len(calls) == 4:
                signal.raise_signal(signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.Adam, "step", step)
            assert main([*GENERATE, "-o", str(out)]) == 128 + signal.SIGTERM
        assert main(["generate", "--resume", str(tmp_path / "out.fusedream.safetensors")]) == 0
        assert read(out) == whole

    def test_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = make(GENERATE, tmp_path / "whole.png")
        saved, out = tmp_path / "out.fusedream.safetensors", tmp_path / "out.png"
        commands = [[*GENERATE, "-o", str(out)], ["generate", "--resume", str(saved)]]
        for command, step in zip(commands, (2, 4), strict=True):
            with monkeypatch.context() as patch:
                stop_at(patch, "optimize", step, signal.SIGINT)
                assert main(command) == 130
        assert main(commands[1]) == 0
        assert read(out) == whole

    def test_before_there_is_anything(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def load(*_: object) -> None:
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr("fusedream_core.cli.making.load_models", load)
        assert main([*GENERATE, "-o", str(tmp_path / "out.png")]) == 130
        said = capsys.readouterr().err
        assert said == "Stopped before there was anything to keep.\n"
        assert not list(tmp_path.iterdir())

    def test_what_ignores_signals_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in the background of a shell."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            stop_at(monkeypatch, "optimize", 2, signal.SIGINT)
            assert main([*GENERATE, "-o", str(tmp_path / "out.png")]) == 0
        finally:
            signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("kind", KINDS)
    def test_save_every(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is on the disk at any time is at most so many steps old, and gone in the end."""
        saved = tmp_path / "out.fusedream.safetensors"
        ages: list[int] = []

        def check(info: StepInfo) -> None:
            assert saved.is_file()
            if info.stage in ("optimize", "compose"):
                engine: Any = load_run(saved).state["engine"]
                ages.append(info.step - (0 if engine is None else steps_of(engine)))

        when(monkeypatch, check)
        make([*KINDS[kind], "--save-every", "2"], tmp_path / "out.png")
        # The placements of a composition, of which there are two at first, take a step together.
        assert max(ages) <= (1 if kind == "generate" else 2 * 2)
        assert not saved.exists()

    def test_other_models_are_refused(
        self,
        gan: BigGan,
        clip: OpenClip,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with monkeypatch.context() as patch:
            stop_at(patch, "optimize", 2, signal.SIGINT)
            main([*GENERATE, "-o", str(tmp_path / "out.png")])
        other = copy.deepcopy(gan)
        other.gan_id = "biggan-other"
        monkeypatch.setattr("fusedream_core.cli.models.kept_demo", lambda _: (other, clip))
        saved = str(tmp_path / "out.fusedream.safetensors")
        assert main(["generate", "--resume", saved]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"This was made with the GAN {gan.gan_id!r}")
        assert "but here is the GAN 'biggan-other'" in last


def steps_of(engine: dict[str, Any]) -> int:
    """How many steps of a state were reported: of a composition those of each placement."""
    if "progress" in engine:
        return int(engine["progress"][0])
    return int(engine["trials"]["optimizer"]["num_steps"])


def test_the_image_to_start_from_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name without -o is that of the last image, which is a likely one to start from."""
    monkeypatch.chdir(tmp_path)
    first = make(GENERATE, Path("fusedream.png"))
    capsys.readouterr()
    assert main([*GENERATE, "--start-image", "fusedream.png"]) == 2
    assert "fusedream.png is the image to start from" in capsys.readouterr().err
    assert read(Path("fusedream.png")) == first


class TestAgain:
    @pytest.mark.parametrize("kind", KINDS)
    def test_same_pixels(self, kind: str, tmp_path: Path) -> None:
        first = make([*KINDS[kind], "--seed", "7"], tmp_path / "first.png")
        assert main([kind, "--from", str(tmp_path / "first.png")]) == 0
        assert read(tmp_path / "first-again.png") == first

    def test_contradictions(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "first.png"
        make(GENERATE, out)
        capsys.readouterr()
        for arguments, message in (
            (["compose", "--from", str(out)], "was made by 'generate', not by 'compose'"),
            (["generate", "--from", str(out), "-o", str(out)], "give another name"),
        ):
            assert main(arguments) == 2
            assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("chunk", "message"),
        [
            (None, "does not say how it was made"),
            ("not json", "The record is no JSON"),
            ("[" * 100_000, "The record is no JSON"),
            ("{}", "of another program"),
            ("x" * 300_000, "has 300000 characters"),
        ],
    )
    def test_record_that_nobody_vouches_for(
        self, chunk: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        info = PngInfo()
        if chunk is not None:
            info.add_itxt("fusedream", chunk)
        Image.new("RGB", (4, 4)).save(tmp_path / "odd.png", pnginfo=info)
        assert main(["generate", "--from", str(tmp_path / "odd.png")]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
