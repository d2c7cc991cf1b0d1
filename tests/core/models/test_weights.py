from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fusedream_core import CheckpointError
from fusedream_core.models.weights import (
    find_file,
    fingerprint,
    load_weights,
    read_json,
    read_state_dict,
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self.bias = nn.Parameter(torch.zeros(2))


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("must-not-exist"),)  # type: ignore[return-value]


class TestReadStateDict:
    @pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
    def test_value(self, tmp_path: Path, name: str) -> None:
        state = {"weight": torch.arange(6.0).view(2, 3)}
        save = save_file if name.endswith("safetensors") else torch.save
        save(state, tmp_path / name)
        assert torch.equal(read_state_dict(tmp_path / name)["weight"], state["weight"])

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no weight file .*gone.bin; check the name"):
            read_state_dict(tmp_path / "gone.bin")

    @pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_truncated(self, tmp_path: Path, name: str, share: float) -> None:
        path = tmp_path / name
        save = save_file if name.endswith("safetensors") else torch.save
        save({"weight": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(CheckpointError, match=f"file .*{name} .*(truncated|refused)"):
            read_state_dict(path)

    @pytest.mark.parametrize("modern", [True, False])
    def test_code_is_refused_and_not_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modern: bool
    ) -> None:
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "evil.bin"
        if modern:
            torch.save({"weight": Dangerous()}, path)
        else:
            path.write_bytes(pickle.dumps(Dangerous(), protocol=2))
        with pytest.raises(CheckpointError, match=r"evil.bin is refused, because .* run code"):
            read_state_dict(path)
        assert not Path("must-not-exist").exists()

    def test_not_a_state_dict(self, tmp_path: Path) -> None:
        torch.save([torch.zeros(2)], tmp_path / "list.bin")
        with pytest.raises(CheckpointError, match="holds no state dict"):
            read_state_dict(tmp_path / "list.bin")


class TestLoadWeights:
    def test_names_what_does_not_fit(self) -> None:
        state = {"weight": torch.zeros(3, 2), "a": torch.zeros(1), "b": torch.zeros(1)}
        message = r"1 missing \(bias\); 2 unexpected \(a, b\); 1 reshaped \(weight\); use a whole"
        with pytest.raises(CheckpointError, match=message):
            load_weights(Small(), state, Path("model.bin"))


class TestFiles:
    def test_find_file(self, tmp_path: Path) -> None:
        (tmp_path / "b").touch()
        assert find_file(tmp_path, ("a", "b")) == tmp_path / "b"
        with pytest.raises(CheckpointError, match="holds no a or c"):
            find_file(tmp_path, ("a", "c"))
        with pytest.raises(CheckpointError, match="There is no folder"):
            find_file(tmp_path / "none", ("a",))

    @pytest.mark.parametrize(
        ("text", "message"), [("{", "not valid JSON"), ("[1]", "no JSON object")]
    )
    def test_read_json(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_json(tmp_path / "config.json")

    def test_fingerprint(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"1")
        (tmp_path / "b").write_bytes(b"1")
        (tmp_path / "c").write_bytes(b"2")
        assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
        assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "c")
