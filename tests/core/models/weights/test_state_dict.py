"""What a file of weights may hold, and in how many files it may come."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fusedream_core import CheckpointError
from fusedream_core.models.weights import (
    check_floats,
    find_weights,
    fingerprint,
    read_json,
    read_safetensors,
    read_state_dict,
    weight_files,
)

SHARDS: dict[str, dict[str, Tensor]] = {
    "model-00001-of-00002": {"module.a": torch.ones(2), "module.b": torch.zeros(3)},
    "model-00002-of-00002": {"module.c": torch.full((4,), 2.0)},
}


def write_shards(folder: Path, suffix: str = ".safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save = save_file if suffix == ".safetensors" else torch.save
    weight_map = {}
    for stem, state in SHARDS.items():
        save(state, folder / f"{stem}{suffix}")
        weight_map |= dict.fromkeys(state, f"{stem}{suffix}")
    name = f"{'model' if suffix == '.safetensors' else 'pytorch_model'}{suffix}.index.json"
    content = {"metadata": {"total_size": 36}, "weight_map": weight_map}
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / name


def change_index(path: Path, name: str, file: object) -> None:
    content = json.loads(path.read_text())
    content["weight_map"][name] = file
    path.write_text(json.dumps(content))


class TestShards:
    @pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
    def test_are_read_as_one(self, tmp_path: Path, suffix: str) -> None:
        index = write_shards(tmp_path, suffix)
        state = read_state_dict(index)
        assert {name: value.tolist() for name, value in state.items()} == {
            "a": [1.0] * 2,
            "b": [0.0] * 3,
            "c": [2.0] * 4,
        }

    @pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
    def test_are_found_in_a_folder(self, tmp_path: Path, suffix: str) -> None:
        index = write_shards(tmp_path, suffix)
        assert find_weights(tmp_path, ("model.safetensors", "pytorch_model.bin")) == index
        assert find_weights(tmp_path, ("open_clip_model.safetensors",)) == index
        files = weight_files(index)
        assert [file.name for file in files[1:]] == [f"{stem}{suffix}" for stem in SHARDS]

    def test_all_of_them_make_the_fingerprint(self, tmp_path: Path) -> None:
        index = write_shards(tmp_path)
        before = fingerprint(*weight_files(index))
        save_file({"module.c": torch.zeros(4)}, tmp_path / "model-00002-of-00002.safetensors")
        assert fingerprint(*weight_files(index)) != before

    @pytest.mark.parametrize(
        "file",
        [
            "../secret.safetensors",
            "/etc/secret.safetensors",
            "sub/secret.safetensors",
            "..\\secret.safetensors",
            "c:secret.safetensors",
            "..",
            "",
            "secret.txt",
            7,
            None,
        ],
    )
    def test_must_lie_beside_their_index(self, tmp_path: Path, file: object) -> None:
        save_file({"module.a": torch.ones(1)}, tmp_path / "secret.safetensors")
        index = write_shards(tmp_path / "model")
        change_index(index, "module.a", file)
        with pytest.raises(CheckpointError, match=r"is refused, because it names .* beside it"):
            read_state_dict(index)

    def test_that_are_missing(self, tmp_path: Path) -> None:
        index = write_shards(tmp_path)
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"names 1 files .*\(model-00002-of-00002"):
            read_state_dict(index)

    def test_that_lack_a_tensor(self, tmp_path: Path) -> None:
        index = write_shards(tmp_path)
        change_index(index, "module.d", "model-00002-of-00002.safetensors")
        with pytest.raises(CheckpointError, match=r"does not hold 1 of the tensors .*\(module\.d"):
            read_state_dict(index)

    @pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": [1]}'])
    def test_an_index_without_a_map(self, tmp_path: Path, content: str) -> None:
        index = write_shards(tmp_path)
        index.write_text(content)
        with pytest.raises(CheckpointError, match="no weight_map"):
            read_state_dict(index)


class TestFolder:
    def test_files_of_a_training_are_no_weights(self, tmp_path: Path) -> None:
        for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "epoch_32.pt"):
            torch.save({"a": torch.ones(1)}, tmp_path / name)
        assert find_weights(tmp_path, ("model.safetensors",)).name == "epoch_32.pt"

    def test_several_are_named(self, tmp_path: Path) -> None:
        for name in ("a.pt", "b.pt"):
            (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match=r"several other files \(a\.pt, b\.pt\)"):
            find_weights(tmp_path, ("model.safetensors",))


class TestKind:
    """The format is detected from the content, since files may be renamed."""

    def test_another_suffix(self, tmp_path: Path) -> None:
        state = {"weight": torch.arange(3.0)}
        save_file(state, tmp_path / "a.pt")
        torch.save(state, tmp_path / "b.safetensors")
        for name in ("a.pt", "b.safetensors"):
            assert torch.equal(read_state_dict(tmp_path / name)["weight"], state["weight"])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("version https://git-lfs.github.com/spec/v1\noid sha256:1", "a pointer of Git LFS"),
            ("<!DOCTYPE html><html></html>", "a web page"),
            ("\n <html></html>", "a web page"),
        ],
    )
    def test_no_weights_at_all(self, tmp_path: Path, content: str, message: str) -> None:
        for name in ("a.pt", "a.safetensors"):
            (tmp_path / name).write_text(content)
            with pytest.raises(CheckpointError, match=f"is {message}"):
                read_state_dict(tmp_path / name)


class TestFinite:
    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.bfloat16])
    def test_a_number_that_is_not_is_named(
        self, tmp_path: Path, number: float, dtype: torch.dtype
    ) -> None:
        bad = torch.ones(4, 5, dtype=dtype)
        bad[2, 3] = number
        torch.save({"model": {"good": torch.ones(2), "bad.weight": bad}}, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match=r"w\.pt is refused, .* bad\.weight .*\(NaN or"):
            read_state_dict(tmp_path / "w.pt")

    def test_of_eight_bits(self, tmp_path: Path) -> None:
        state = {"weight": torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn)}
        save_file(state, tmp_path / "w.safetensors")
        with pytest.raises(CheckpointError, match="its tensor weight"):
            read_state_dict(tmp_path / "w.safetensors")

    def test_what_whole_files_hold(self, tmp_path: Path) -> None:
        """Counters, flags, tensors of nothing, large numbers, and masks of attention."""
        state = {
            "num_batches_tracked": torch.tensor(2**62),
            "flag": torch.tensor([True]),
            "nothing": torch.empty(0, 3),
            "large": torch.tensor([3.4e38, -3.4e38]),
            "attn_mask": torch.full((3, 3), -math.inf).triu(1),
        }
        torch.save(state, tmp_path / "w.pt")
        assert read_state_dict(tmp_path / "w.pt").keys() == state.keys()
        state["attn_mask"][0, 0] = math.nan
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="attn_mask"):
            read_state_dict(tmp_path / "w.pt")


class TestUnusualTensors:
    @pytest.mark.parametrize(
        "tensor",
        [
            torch.ones(1).expand(2**34),
            torch.ones(2, 2).to_sparse(),
            torch.empty(2, device="meta"),
        ],
        ids=["larger than the file", "sparse", "meta"],
    )
    @pytest.mark.filterwarnings("ignore")
    def test_are_refused(self, tmp_path: Path, tensor: Tensor) -> None:
        torch.save({"weight": tensor}, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="its tensor weight is sparse, quantized or"):
            read_state_dict(tmp_path / "w.pt")


class TestJson:
    def test_deep_and_large(self, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        path.write_text('{"a":' * 100_000)
        with pytest.raises(CheckpointError, match="not valid JSON"):
            read_json(path)
        path.write_text('{"a": "' + "b" * (17 << 20) + '"}')
        with pytest.raises(CheckpointError, match="more than 16 MB"):
            read_json(path)

    def test_with_a_byte_order_mark(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('\ufeff{"a": 1}', encoding="utf-8")
        assert read_json(tmp_path / "config.json") == {"a": 1}


def test_read_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"format": "x"})
    state, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"format": "x"}
    assert torch.equal(state["a"], torch.ones(2))


class TestNumbers:
    @pytest.mark.parametrize("value", [1e300, -1e300, 3.5e38])
    def test_too_large_for_float32(self, value: float, tmp_path: Path) -> None:
        save_file(
            {"own.weight": torch.full((2,), value, dtype=torch.float64)},
            tmp_path / "model.safetensors",
        )
        for read in (read_state_dict, read_safetensors):
            with pytest.raises(CheckpointError, match=r"its tensor own\.weight .*for float32"):
                read(tmp_path / "model.safetensors")

    def test_largest_of_float32(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        most = torch.finfo(torch.float32).max
        state = {"own": torch.tensor([most, -most]).double(), "attn_mask": torch.zeros(2)}
        state["attn_mask"] = torch.full((2,), -1e300, dtype=torch.float64)
        save_file(state, path)
        assert read_state_dict(path).keys() == state.keys()

    def test_numbers_of_8_bits(self, tmp_path: Path) -> None:
        """Latents, banks and runs of such numbers are none of ours."""
        path = tmp_path / "model.safetensors"
        for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
            save_file({"z": torch.ones(2).to(kind)}, path)
            with pytest.raises(CheckpointError, match="its tensor z is of float8_"):
                read_safetensors(path)

    @pytest.mark.parametrize("kind", [torch.complex64, torch.int8, torch.int64, torch.bool])
    def test_kinds_that_are_no_weights(self, kind: torch.dtype) -> None:
        state = {"num_batches_tracked": torch.tensor(3), "own.weight": torch.ones(2)}
        check_floats(state, Path("model.pth"))
        state["own.weight"] = state["own.weight"].to(kind)
        with pytest.raises(CheckpointError, match=r"tensor own\.weight is of (complex|int|bool)"):
            check_floats(state, Path("model.pth"))
