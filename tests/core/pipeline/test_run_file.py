from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fusedream_core import (
    DEFAULT,
    AugmentConfig,
    BigGan,
    CheckpointError,
    ConfigError,
    OpenClip,
    OptimizeConfig,
    Recipe,
    RunKeeper,
    SavedRun,
    SearchConfig,
    generate,
    load_run,
    resume,
)
from fusedream_core.pipeline.job import Job, Models
from fusedream_core.pipeline.provenance import Provenance
from fusedream_core.pipeline.run_file import save_run

RECIPE = Recipe(
    search=SearchConfig(num_candidates=20, num_basis=3, rerank_augments=2),
    optimize=OptimizeConfig(num_steps=5, eval_augments=4),
    augment=AugmentConfig(num_augments=2),
)


class StopError(Exception):
    pass


class Keeper(RunKeeper):
    """Stops the run at one of its steps, from where it may still be written."""

    def __init__(self, path: Path, stop: int) -> None:
        super().__init__(path)
        self.stop = stop

    def note(self, run: SavedRun) -> None:
        super().note(run)
        engine = run.state["engine"]
        if engine is not None and engine["trials"]["optimizer"]["num_steps"] == self.stop:
            raise StopError


@pytest.fixture
def saved(gan: BigGan, clip: OpenClip, tmp_path: Path) -> Path:
    path = tmp_path / "dog.fusedream.safetensors"
    keeper = Keeper(path, stop=3)
    with pytest.raises(StopError):
        generate("a dog", gan=gan, clip=clip, recipe=RECIPE, keeper=keeper)
    assert keeper.save()
    return path


def rewritten(path: Path, change: Any) -> Path:  # noqa: ANN401
    """The file with other tensors and notes."""
    with safe_open(path, "pt") as stream:
        notes = dict(stream.metadata())
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    change(tensors, notes)
    save_file(tensors, path, notes)
    return path


class TestResume:
    def test_from_the_library(self, gan: BigGan, clip: OpenClip, saved: Path) -> None:
        whole = generate("a dog", gan=gan, clip=clip, recipe=RECIPE)
        found = resume(load_run(saved), Models(gan, clip))
        assert torch.equal(found.images, whole.images)
        assert torch.equal(found.latent.z, whole.latent.z)
        assert found.provenance == whole.provenance
        assert found.seconds > load_run(saved).state["seconds"] > 0

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("engine.trials.optimizer.latent.z_basis", torch.zeros(1, 3, 99)),
            ("engine.trials.optimizer.adam.0.exp_avg", torch.zeros(1, 3, 6).double()),
            ("engine.trials.generators.0", torch.zeros(3, dtype=torch.uint8)),
        ],
    )
    def test_damaged_tensors(
        self, name: str, value: torch.Tensor, gan: BigGan, clip: OpenClip, saved: Path
    ) -> None:
        def change(tensors: dict[str, Any], _: dict[str, str]) -> None:
            assert name in tensors
            tensors[name] = value

        with pytest.raises(CheckpointError, match="The saved run"):
            resume(load_run(rewritten(saved, change)), Models(gan, clip))

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (["start"], "x"),
            (["bases", 0, "truncation"], float("nan")),
            (["bases", 0, "scores"], None),
            (["bases", 0, "class_index"], [1, 2]),
            (["engine", "trials", "candidates"], []),
            (["engine", "trials", "trace"], None),
            (["engine", "trials", "optimizer", "num_steps"], -3),
            (["engine", "trials", "optimizer", "num_steps"], 99),
            (["engine", "trials", "checkpoints", "ends"], {}),
            (["engine", "trials", "candidates"], ["x"]),
            (["engine", "trials", "candidates", 0, 0], 7),
        ],
    )
    def test_damaged_settings(
        self, place: list[Any], value: object, gan: BigGan, clip: OpenClip, saved: Path
    ) -> None:
        def change(_: dict[str, Any], notes: dict[str, str]) -> None:
            part = state = json.loads(notes["state"])
            for name in place[:-1]:
                part = part[name]
            part[place[-1]] = value
            notes["state"] = json.dumps(state)

        with pytest.raises(CheckpointError, match="The saved run is damaged"):
            resume(load_run(rewritten(saved, change)), Models(gan, clip))

    @pytest.mark.parametrize("gone", ["bases", "engine"])
    def test_missing_parts(self, gone: str, gan: BigGan, clip: OpenClip, saved: Path) -> None:
        def change(_: dict[str, Any], notes: dict[str, str]) -> None:
            state = json.loads(notes["state"])
            del state[gone]
            notes["state"] = json.dumps(state)

        with pytest.raises(CheckpointError, match="The saved run is damaged"):
            resume(load_run(rewritten(saved, change)), Models(gan, clip))

    @pytest.mark.parametrize(
        ("part", "value"), [("start", [1, 2]), ("seconds", []), ("bases", [{"z": 1}])]
    )
    def test_parts_of_another_kind(
        self, part: str, value: object, gan: BigGan, clip: OpenClip, saved: Path
    ) -> None:
        def change(_: dict[str, Any], notes: dict[str, str]) -> None:
            notes["state"] = json.dumps({**json.loads(notes["state"]), part: value})

        with pytest.raises(CheckpointError, match="The saved run is damaged"):
            resume(load_run(rewritten(saved, change)), Models(gan, clip))

    @pytest.mark.parametrize("part", ["scores", "class_index"])
    def test_basis_without_tensors(
        self, part: str, gan: BigGan, clip: OpenClip, saved: Path
    ) -> None:
        def change(_: dict[str, Any], notes: dict[str, str]) -> None:
            state = json.loads(notes["state"])
            state["bases"][0][part] = 3
            notes["state"] = json.dumps(state)

        with pytest.raises(CheckpointError, match="The saved run is damaged"):
            resume(load_run(rewritten(saved, change)), Models(gan, clip))


class TestLoad:
    def test_faults(self, saved: Path, gan_dir: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="is no saved run; the name of one ends in"):
            load_run(tmp_path / "dog.png")
        with pytest.raises(CheckpointError, match="holds no saved run"):
            load_run(gan_dir / "model.safetensors")
        content = saved.read_bytes()
        saved.write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match="may be truncated"):
            load_run(saved)

    @pytest.mark.parametrize(
        "text", ["", "[" * 50_000, "[]", '{"x": {"$tensor": "gone"}}', '{"x": {"$tensor": []}}']
    )
    def test_notes(self, text: str, saved: Path) -> None:
        def change(_: dict[str, Any], notes: dict[str, str]) -> None:
            notes["state"] = text

        with pytest.raises(CheckpointError):
            load_run(rewritten(saved, change))


class TestKeeper:
    def test_nothing_to_keep(self, tmp_path: Path) -> None:
        assert not RunKeeper(tmp_path / "x.safetensors").save()
        assert not list(tmp_path.iterdir())

    def test_every(self, gan: BigGan, clip: OpenClip, tmp_path: Path) -> None:
        """Written at once after a stage, and each so many steps within the last one."""
        keeper = RunKeeper(tmp_path / "run.fusedream.safetensors", every=3)
        job = Job(prompt="a dog", seed=0, recipe=DEFAULT)
        record, found = Provenance.of(job, Models(gan, clip)), []
        for engine in (None, None, {"step": 1}, {"step": 2}, {"step": 3}, {"step": 4}):
            keeper.note(SavedRun(record, {"engine": engine}))
            found.append(load_run(keeper.path).state["engine"])
        assert found == [None, None, None, None, {"step": 3}, {"step": 3}]

    @pytest.mark.parametrize("every", [0, -1])
    def test_exception(self, every: int, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="every is"):
            RunKeeper(tmp_path / "x", every=every)

    def test_failed_write_leaves_the_old_one(self, saved: Path) -> None:
        before, run = saved.read_bytes(), load_run(saved)
        run.state["odd"] = object()
        with pytest.raises(TypeError):
            save_run(run, saved)
        assert saved.read_bytes() == before

    def test_full_disk_does_not_end_the_run(
        self, gan: BigGan, clip: OpenClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        keeper = RunKeeper(tmp_path / "file" / "run.fusedream.safetensors", every=1)
        generate("a dog", gan=gan, clip=clip, recipe=RECIPE, keeper=keeper)
        assert caplog.text.count("cannot be kept as") == 1
