from __future__ import annotations

import json

import pytest
import torch

from fusedream_core import CheckpointError, make_generator
from fusedream_core.state import copy_state, flatten, like, restore_generators, restoring, unflatten

TREE = {
    "step": 3,
    "names": ["a", None, 0.5],
    "parts": {"z": torch.arange(3.0), "deep": [{"y": torch.tensor(True)}]},
    "empty": {"list": [], "dict": {}},
}


class TestFlatten:
    def test_round_trip_through_json(self) -> None:
        tensors, plain = flatten(TREE)
        assert sorted(tensors) == ["parts.deep.0.y", "parts.z"]
        found = unflatten(tensors, json.loads(json.dumps(plain)))
        assert torch.equal(found["parts"]["z"], TREE["parts"]["z"])  # type: ignore[index]
        assert found["parts"]["deep"][0]["y"].dtype == torch.bool
        assert {k: found[k] for k in ("step", "names", "empty")} == {
            k: TREE[k] for k in ("step", "names", "empty")
        }

    def test_missing_tensor(self) -> None:
        _, plain = flatten(TREE)
        with pytest.raises(CheckpointError, match=r"lacks the tensor 'parts\.z'"):
            unflatten({}, plain)

    @pytest.mark.parametrize("name", [[], {}, 3, None])
    def test_tensor_whose_name_is_none(self, name: object) -> None:
        with pytest.raises(CheckpointError, match="The saved run lacks the tensor"):
            unflatten({"z": torch.zeros(1)}, {"own": {"$tensor": name}})


class TestCopyState:
    def test_later_changes_do_not_reach_it(self) -> None:
        tensor = torch.zeros(2)
        copied = copy_state({"own": (tensor,)})
        tensor.add_(1.0)
        assert copied["own"][0].tolist() == [0.0, 0.0]


class TestLike:
    def test_number_of_rows_is_free(self) -> None:
        assert len(like(torch.ones(3, 2), torch.zeros(1, 2))) == 3

    @pytest.mark.parametrize("saved", [torch.ones(1, 3), torch.ones(1, 2).double(), 3, None])
    def test_exception(self, saved: object) -> None:
        with pytest.raises(CheckpointError, match=r"where rows of \(2,\) belong"):
            like(saved, torch.zeros(1, 2))


def test_generators_go_on() -> None:
    first, second = make_generator(0), make_generator(1)
    state = first.get_state()
    restore_generators([second], [state])
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))


def test_what_is_damaged_is_one_sentence() -> None:
    with pytest.raises(CheckpointError, match="damaged, or of another version"), restoring():
        torch.Generator().set_state(torch.zeros(5, dtype=torch.uint8))
