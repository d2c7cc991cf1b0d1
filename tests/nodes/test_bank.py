"""The seed bank's node: read, built, kept and bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


@pytest.fixture
def models(gan: object, clip: object) -> dict[str, Any]:
    """The sockets that every bank needs."""
    return {"gan": gan, "clip": clip}


@pytest.fixture
def bank_module(
    pack: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The node's module, with a user folder of its own."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return pack.module("nodes.bank")


@pytest.fixture
def built(bank_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all banks that were built, rather than read."""
    sizes: list[int] = []
    build = bank_module.build_bank

    def spy(*args: object, num: int, **kwargs: object) -> object:
        sizes.append(num)
        return build(*args, num=num, **kwargs)

    monkeypatch.setattr(bank_module, "build_bank", spy)
    return sizes


def files_in(tmp_path: Path) -> list[Path]:
    """What is kept."""
    return sorted((tmp_path / "fusedream" / "banks").glob("*"))


class TestSeedBank:
    def test_built_once(
        self, run: Run, models: dict[str, Any], built: list[int], tmp_path: Path
    ) -> None:
        first = run("FuseDreamSeedBank", **models, num_candidates=30)[0]
        second = run("FuseDreamSeedBank", **models, num_candidates=30)[0]
        assert built == [30]
        assert torch.equal(first.features, second.features)
        assert [file.name for file in files_in(tmp_path)] == [f"{first.key}.safetensors"]

    def test_another_seed_is_another_bank(
        self, run: Run, models: dict[str, Any], built: list[int], tmp_path: Path
    ) -> None:
        for seed in (0, 1):
            run("FuseDreamSeedBank", **models, num_candidates=20, seed=seed)
        assert built == [20, 20]
        assert len(files_in(tmp_path)) == 2

    def test_a_damaged_file_is_made_anew(
        self, run: Run, models: dict[str, Any], built: list[int], tmp_path: Path
    ) -> None:
        run("FuseDreamSeedBank", **models, num_candidates=20)
        (file,) = files_in(tmp_path)
        file.write_bytes(file.read_bytes()[:50])
        run("FuseDreamSeedBank", **models, num_candidates=20)
        assert built == [20, 20]
        assert file.stat().st_size > 50

    def test_those_not_used_for_longest_are_forgotten(
        self,
        run: Run,
        models: dict[str, Any],
        built: list[int],
        tmp_path: Path,
        bank_module: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import os

        keys = []
        for seed in range(2):
            keys.append(run("FuseDreamSeedBank", **models, num_candidates=20, seed=seed)[0].key)
            (file,) = [file for file in files_in(tmp_path) if file.stem == keys[-1]]
            os.utime(file, (1000 + seed, 1000 + seed))
        run("FuseDreamSeedBank", **models, num_candidates=20, seed=0)  # used again
        monkeypatch.setattr(bank_module, "_MOST_BYTES", 2 * file.stat().st_size + 100)
        newest = run("FuseDreamSeedBank", **models, num_candidates=20, seed=2)[0].key
        assert {file.stem for file in files_in(tmp_path)} == {keys[0], newest}
        assert built == [20, 20, 20]

    def test_one_above_the_limit_is_not_kept(
        self,
        run: Run,
        models: dict[str, Any],
        tmp_path: Path,
        bank_module: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run("FuseDreamSeedBank", **models, num_candidates=20)
        kept = files_in(tmp_path)
        monkeypatch.setattr(bank_module, "_MOST_BYTES", 100)
        assert len(run("FuseDreamSeedBank", **models, num_candidates=30)[0]) == 30
        assert files_in(tmp_path) == kept
        assert "too large to be kept" in caplog.text

    def test_left_overs_are_swept_away(
        self, run: Run, models: dict[str, Any], tmp_path: Path, bank_module: ModuleType
    ) -> None:
        import os

        folder = tmp_path / "fusedream" / "banks"
        folder.mkdir(parents=True)
        for name, age in (("old.part", 1000.0), ("new.part", None)):
            (folder / name).write_bytes(b"x")
            if age is not None:
                os.utime(folder / name, (age, age))
        bank = run("FuseDreamSeedBank", **models, num_candidates=20)[0]
        names = [file.name for file in files_in(tmp_path)]
        assert names == sorted([f"{bank.key}.safetensors", "new.part"])

    def test_a_full_disk_costs_no_result(
        self,
        run: Run,
        models: dict[str, Any],
        bank_module: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(bank_module, "save_bank", fail)
        assert len(run("FuseDreamSeedBank", **models, num_candidates=20)[0]) == 20
        assert "could not be kept" in caplog.text

    def test_no_candidates(
        self, run: Run, models: dict[str, Any], bank_module: ModuleType, pack: SimpleNamespace
    ) -> None:
        with pytest.raises(Exception, match="num_candidates is 0"):
            run("FuseDreamSeedBank", **models, num_candidates=0)

    def test_usual_size_on_a_cpu(self, models: dict[str, Any], bank_module: ModuleType) -> None:
        size = bank_module._usual_size(models["gan"], models["clip"], 0.5, 0)
        assert size == bank_module._SIZE_ON_CPU


class TestSearch:
    def test_over_a_bank(
        self,
        run: Run,
        models: dict[str, Any],
        target: object,
        bank_module: ModuleType,
    ) -> None:
        bank = run("FuseDreamSeedBank", **models, num_candidates=30, truncation=0.7)[0]
        inputs = {**models, "target": target, "bank": bank, "num_basis": 3}
        basis, images, _ = run("FuseDreamSeedSearch", **inputs)
        again = run("FuseDreamSeedSearch", **inputs)[0]
        assert images.shape[0] == 3
        assert basis.latent.truncation == 0.7  # the bank's, where none is asked for
        assert torch.equal(basis.latent.z, again.latent.z)
        with pytest.raises(Exception, match="The seed bank is of"):
            run("FuseDreamSeedSearch", **inputs, truncation=0.5)


def test_the_demo_bank_is_the_demo_pairs(run: Run, built: list[int]) -> None:
    gan = run("FuseDreamLoadGAN", gan_name="demo")[0]
    clip = run("FuseDreamLoadCLIP", clip_name="demo", architecture="")[0]
    bank = run("FuseDreamSeedBank", gan=gan, clip=clip)[0]
    assert len(bank) == 20_000
    assert built == []
