from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusedream_core import (
    CheckpointError,
    ConfigError,
    GanLatent,
    Latent,
    interpolate,
    load_latent,
    make_generator,
    save_latent,
)


def some(num: int = 1, seed: int = 0, truncation: float = 0.6) -> Latent:
    generator = make_generator(seed)
    z = torch.randn(num, 6, generator=generator)
    return Latent(z, torch.randn(num, 4, generator=generator), truncation)


class TestFiles:
    def test_round_trip(self, tmp_path: Path) -> None:
        own = GanLatent(some(3), "tiny", {"prompt": "a dog", "settings": '{"steps": 3}'})
        save_latent(own, tmp_path / "new" / "a.safetensors")
        back = load_latent(tmp_path / "new" / "a.safetensors")
        assert torch.equal(back.latent.z, own.latent.z)
        assert torch.equal(back.latent.y, own.latent.y)
        assert (back.latent.truncation, back.gan_id, back.about) == (0.6, "tiny", own.about)
        assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.safetensors"]

    @pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
    def test_others_may_read_it_as_any_file(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_bytes(b"")
        save_latent(GanLatent(some(), "tiny"), tmp_path / "a.safetensors")
        modes = [(tmp_path / name).stat().st_mode for name in ("plain", "a.safetensors")]
        assert modes[0] == modes[1]

    def test_what_it_is_about_cannot_pass_for_its_own_words(self, tmp_path: Path) -> None:
        own = GanLatent(some(), "tiny", {"gan_id": "other", "format": "x", "truncation": "9"})
        save_latent(own, tmp_path / "a.safetensors")
        assert load_latent(tmp_path / "a.safetensors").gan_id == "tiny"

    def test_a_write_that_fails_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.safetensors"
        save_latent(GanLatent(some(), "old"), path)

        def fail(*_: object) -> None:
            raise OSError("full")

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="full"):
            save_latent(GanLatent(some(), "new"), path)
        assert load_latent(path).gan_id == "old"
        assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"z": torch.zeros(1, 6)}, "holds no latents"),
            ({"z": torch.zeros(1, 6), "y": torch.zeros(2, 4)}, "are damaged"),
            ({"z": torch.full((1, 6), torch.nan), "y": torch.zeros(1, 4)}, "are damaged"),
        ],
    )
    def test_other_content(
        self, tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
    ) -> None:
        notes = {"format": "fusedream-latent-1", "gan_id": "tiny", "truncation": "0.6"}
        save_file(tensors, tmp_path / "a.safetensors", notes)
        with pytest.raises(CheckpointError, match=message):
            load_latent(tmp_path / "a.safetensors")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"truncation": "nan"}, "are damaged"),
            ({"truncation": "1.5"}, "are damaged"),
            ({"truncation": "__import__('os')"}, "cannot be read"),
            ({"gan_id": "g" * 100_001}, "the notes beside them"),
            ({"prompt": "p" * 100_001}, "the notes beside them"),
            ({"p" * 201: "prompt"}, "the notes beside them"),
            ({f"note {i}": "" for i in range(300)}, "the notes beside them"),
        ],
    )
    def test_notes_that_nobody_wrote(
        self, tmp_path: Path, change: dict[str, str], message: str
    ) -> None:
        notes = {"format": "fusedream-latent-1", "gan_id": "tiny", "truncation": "0.6", **change}
        tensors = {"z": torch.zeros(1, 6), "y": torch.zeros(1, 4)}
        save_file(tensors, tmp_path / "a.safetensors", notes)
        with pytest.raises(CheckpointError, match=message):
            load_latent(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64, torch.float16])
    def test_numbers_of_other_kinds(self, tmp_path: Path, dtype: torch.dtype) -> None:
        notes = {"format": "fusedream-latent-1", "gan_id": "tiny", "truncation": "0.6"}
        tensors = {"z": torch.ones(1, 6, dtype=dtype), "y": torch.ones(1, 4, dtype=dtype)}
        save_file(tensors, tmp_path / "a.safetensors", notes)
        if dtype.is_floating_point:
            assert load_latent(tmp_path / "a.safetensors").latent.z.dtype == torch.float32
            return
        with pytest.raises(CheckpointError, match="are damaged"):
            load_latent(tmp_path / "a.safetensors")

    def test_other_files(self, tmp_path: Path) -> None:
        save_file({"z": torch.zeros(1, 6), "y": torch.zeros(1, 4)}, tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError, match="holds no latents of FuseDream"):
            load_latent(tmp_path / "a.safetensors")
        (tmp_path / "b.safetensors").write_bytes(b"abc")
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_latent(tmp_path / "b.safetensors")
        with pytest.raises(CheckpointError, match="There is no weight file"):
            load_latent(tmp_path / "gone.safetensors")


class TestInterpolate:
    def test_ends(self) -> None:
        first, last = some(seed=1), some(seed=2)
        way = interpolate(first, last, 5)
        assert way.z.shape == (5, 6)
        assert way.truncation == 0.6
        for end, row in ((first, 0), (last, 4)):
            torch.testing.assert_close(way.z[row], end.z[0])
            torch.testing.assert_close(way.y[row], end.y[0])

    def test_value(self) -> None:
        """The textbook's formula, point by point."""
        first, last = some(seed=1), some(seed=2)
        way = interpolate(first, last, 4)
        a, b = (z / z.norm() for z in (first.z[0], last.z[0]))
        angle = math.acos(float(a @ b))
        for row in range(4):
            share = row / 3
            turned = math.sin((1 - share) * angle) * a + math.sin(share * angle) * b
            length = (1 - share) * first.z.norm() + share * last.z.norm()
            torch.testing.assert_close(way.z[row], length * turned / math.sin(angle))
            torch.testing.assert_close(way.y[row], (1 - share) * first.y[0] + share * last.y[0])

    @pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
    def test_on_one_line(self, factor: float) -> None:
        first = some(seed=1)
        last = Latent(factor * first.z, first.y, first.truncation)
        way = interpolate(first, last, 3)
        assert way.z.isfinite().all()
        torch.testing.assert_close(way.z[1], (1 + factor) / 2 * first.z[0])

    @pytest.mark.parametrize(
        ("last", "num", "message"),
        [
            (some(), 1, "num is 1"),
            (some(truncation=0.5), 3, "at truncation 0.6 and"),
            (some(2), 3, "give one and one"),
        ],
    )
    def test_exception(self, last: Latent, num: int, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            interpolate(some(), last, num)
