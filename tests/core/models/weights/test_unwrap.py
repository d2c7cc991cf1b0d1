"""One place takes weights out of wrappers, for GAN, CLIP and LPIPS alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import CheckpointError
from fusedream_core.models.weights import part_of, read_state_dict

STATE = {"visual.conv1.weight": torch.ones(2, 3), "logit_scale": torch.tensor(4.6)}
OTHER = {"conv.weight": torch.zeros(5)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


def saved(content: object, folder: Path) -> dict[str, Tensor]:
    torch.save(content, folder / "weights.pt")
    return read_state_dict(folder / "weights.pt")


class TestWrappers:
    @pytest.mark.parametrize(
        "content",
        [
            STATE,
            {"model": STATE},
            {"state_dict": STATE},
            {"G_ema": STATE},
            {"ema": STATE},
            {"generator": STATE},
            {"anything": STATE},
            {"model": {"state_dict": STATE, "epoch": 3}},
            {"epoch": 32, "name": "run", "state_dict": STATE, "optimizer": OPTIMIZER},
            {"step": torch.tensor(7), "model": STATE, "scaler": {"scale": torch.tensor(2.0)}},
            {"G": STATE, "D": OTHER, "G_optim": OPTIMIZER, "D_optim": {"a": OTHER, "b": OTHER}},
            {"G": OTHER, "D": OTHER, "G_ema": STATE},
            {"netG": STATE, "netD": OTHER, "epoch": 1},
            {"generator": OTHER, "discriminator": OTHER, "generator_ema": STATE},
            {"state_dict": OTHER, "state_dict_ema": STATE},
            {"model": OTHER, "ema": {"decay": 0.999, "shadow": STATE}},
            {"state_dict": STATE, "loss": OTHER},
            {**STATE, "epoch": 3, "note": "flat", "meta": {"seed": 1}},
        ],
    )
    def test_the_state_dict_is_found(self, content: object, tmp_path: Path) -> None:
        state = saved(content, tmp_path)
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state[name], value) for name, value in STATE.items())

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({}, "but an empty dict; export"),
            ({"epoch": 3, "args": [1]}, r"but a dict of epoch \(int\), args \(list\); export"),
            ({"model": {}}, r"but a dict of model \(dict\); export"),
            ({"a": STATE, "b": OTHER}, r"several state dicts \(a, b\)"),
            ({"ema": STATE, "G_ema": OTHER}, r"several state dicts \(G_ema, ema\)"),
            (STATE["logit_scale"], "but one Tensor; export"),
            ({"optimizer": OPTIMIZER}, "holds no state dict"),
        ],
    )
    def test_the_rest_is_refused(self, content: object, message: str, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=message):
            saved(content, tmp_path)

    def test_a_dict_within_itself(self, tmp_path: Path) -> None:
        content: dict[str, Any] = {}
        content["model"] = content
        with pytest.raises(CheckpointError, match="holds no state dict"):
            saved(content, tmp_path)

    def test_parameters_are_taken_as_plain_tensors(self, tmp_path: Path) -> None:
        state = saved({"weight": nn.Parameter(torch.ones(2))}, tmp_path)
        assert not state["weight"].requires_grad


class TestPrefixes:
    @pytest.mark.parametrize(
        "prefix",
        [
            "module.",
            "_orig_mod.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "module.module._orig_mod.",
            "_orig_mod.module._orig_mod.module.",
            "_fsdp_wrapped_module._orig_mod.",
        ],
    )
    def test_in_any_nesting(self, prefix: str, tmp_path: Path) -> None:
        assert saved(prefixed(prefix), tmp_path).keys() == STATE.keys()
        assert saved({"model": prefixed(prefix)}, tmp_path).keys() == STATE.keys()

    def test_of_a_part_that_was_compiled(self, tmp_path: Path) -> None:
        state = {"visual._orig_mod.conv1.weight": torch.ones(1), "logit_scale": torch.ones(1)}
        assert saved(state, tmp_path).keys() == STATE.keys()

    def test_of_real_wrappers(self, tmp_path: Path) -> None:
        inner = nn.Sequential(nn.BatchNorm1d(2))
        averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(inner))
        state = saved(averaged.state_dict(), tmp_path)
        assert state.keys() == inner.state_dict().keys()

    def test_stays_where_not_all_names_have_it(self, tmp_path: Path) -> None:
        """A layer may be called module, as in GANalyze's files."""
        state = {"module.weight": torch.ones(1), "conv.module.weight": torch.ones(1)}
        assert saved(state, tmp_path).keys() == state.keys()

    def test_two_tensors_that_would_have_one_name(self, tmp_path: Path) -> None:
        state = {"weight": torch.ones(1), "_orig_mod.weight": torch.zeros(1)}
        with pytest.raises(CheckpointError, match="of one name with and without"):
            saved(state, tmp_path)


class TestPartOf:
    @pytest.mark.parametrize("prefix", ["", "generator_ema.", "module.generator.", "generator."])
    def test_the_model_among_several(self, prefix: str) -> None:
        state = prefixed(prefix) | {"discriminator.weight": torch.zeros(1)}
        part = part_of(state, ("module.", "generator_ema.", "generator."), lambda part: _is(part))
        extra = {"discriminator.weight"} if not prefix else set()
        assert part.keys() == STATE.keys() | extra

    def test_no_model(self) -> None:
        assert (
            part_of(prefixed("module."), ("module.",), lambda _: False).keys()
            == prefixed("module.").keys()
        )


def _is(part: object) -> bool:
    return isinstance(part, dict) and part.keys() >= STATE.keys()
