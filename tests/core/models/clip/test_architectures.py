from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fusedream_core import ConfigError
from fusedream_core.models.clip.architectures import (
    bare_config,
    check_architecture,
    fitting_architectures,
    known_weights,
    preprocess_of_shapes,
    shape_config,
)

UNKNOWN = "0" * 12
# Beginnings of the SHA-256 in the addresses of open_clip's tables.
OPENAI_B32, LAION_B32 = "40d365715913", "46683a32abcd"


def way(entry: dict[str, Any]) -> dict[str, Any]:
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: entry[key] for key in keys}


def test_no_weights_of_open_clip_are_used_in_another_way_than_its_tables_say() -> None:
    import open_clip

    asked = 0
    for architecture, tag in open_clip.list_pretrained():
        entry = open_clip.get_pretrained_cfg(architecture, tag)
        quick = entry.get("quick_gelu", False)
        for name in (architecture, f"{architecture}/{tag}"):
            try:
                config = bare_config(name, UNKNOWN)
            except ConfigError:
                asked += 1
                continue
            assert way(config.preprocess) == way(entry), name
            assert config.model.get("quick_gelu", False) or not quick, name
    assert 0 < asked < len(open_clip.list_pretrained())


def test_mobileclip_gets_its_own_preprocessing() -> None:
    preprocess = bare_config("MobileCLIP2-S0", UNKNOWN).preprocess
    assert tuple(preprocess["mean"]) == (0, 0, 0)
    assert tuple(preprocess["std"]) == (1, 1, 1)
    assert preprocess["interpolation"] == "bilinear"


def test_several_answers_are_asked_for() -> None:
    # laion2b has mean and std of its own; only the quick ones share one answer
    with pytest.raises(ConfigError, match=r"ViT-L-14-quickgelu or .*ViT-L-14/laion2b_s32b_b82k"):
        bare_config("ViT-L-14", UNKNOWN)
    with pytest.raises(ConfigError, match=r"in 2 ways .*metaclip_fullcc or .*/dfn5b"):
        bare_config("ViT-H-14-quickgelu", UNKNOWN)
    assert bare_config("ViT-L-14/laion2b_s32b_b82k", UNKNOWN).preprocess["mean"] == (0.5, 0.5, 0.5)
    assert bare_config("ViT-L-14/LAION2B-s32b-b82k", UNKNOWN).preprocess["mean"] == (0.5, 0.5, 0.5)
    squash = bare_config("ViT-H-14-quickgelu/dfn5b", UNKNOWN).preprocess
    assert squash["resize_mode"] == "squash"


def test_no_answer_is_said() -> None:
    with pytest.raises(ConfigError, match=r"knows no weights of ViT-S-32, .*open_clip_config.json"):
        bare_config("ViT-S-32", UNKNOWN)


def test_plain_name_does_not_say_which_activation() -> None:
    with pytest.raises(ConfigError, match=r"two activations, .* ask for ViT-B-32-quickgelu or "):
        bare_config("ViT-B-32", UNKNOWN)
    with pytest.raises(ConfigError, match=r"ask for RN50-quickgelu,"):  # no other weights exist
        bare_config("RN50", UNKNOWN)
    assert not bare_config("ViT-B-32/laion2b_e16", UNKNOWN).model.get("quick_gelu", False)
    assert bare_config("ViT-B-32-quickgelu", UNKNOWN).model["quick_gelu"]


@pytest.mark.parametrize("tag", ["openai", "metaclip_400m", "laion400m_e32"])
def test_tag_of_another_activation(tag: str) -> None:
    with pytest.raises(ConfigError, match="are made for ViT-B-32-quickgelu"):
        check_architecture(f"ViT-B-32/{tag}")


def test_file_that_is_known_by_its_hash() -> None:
    assert known_weights(OPENAI_B32) == ("ViT-B-32-quickgelu", "openai")
    assert known_weights(LAION_B32) == ("ViT-B-32-quickgelu", "laion400m_e32")
    assert known_weights(UNKNOWN) is None
    assert bare_config("ViT-B-32-quickgelu", OPENAI_B32).model["quick_gelu"]
    for name in ("ViT-B-32", "ViT-B-32/laion2b_e16", "ViT-B-16-quickgelu"):
        with pytest.raises(ConfigError, match=r"These weights are ViT-B-32-quickgelu/openai"):
            bare_config(name, OPENAI_B32)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ViT-B/32", "ViT-B-32"),
        ("vit_b_32", "ViT-B-32"),
        ("ViT-B-33", "ViT-B-32"),
        ("mobileclip2 s0", "MobileCLIP2-S0"),
        ("ViT-L-14-336px", "ViT-L-14-336"),
    ],
)
def test_nearest_names(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"has no architecture .*; it has {nearest},"):
        check_architecture(name)


def test_name_like_no_other() -> None:
    with pytest.raises(ConfigError, match=r"; it has .*, which are the nearest, and 1\d\d more"):
        check_architecture("qqq")


@pytest.mark.parametrize(
    ("tag", "named"),
    [("laion2b", "laion2b_e16, laion2b_s34b_b79k"), ("laion2b_e61", "laion2b_e16")],
)
def test_unknown_tag(tag: str, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"no weights '{tag}' of ViT-B-32; it has {named}"):
        check_architecture(f"ViT-B-32/{tag}")


@pytest.mark.parametrize(
    "name", ["ViT-S-32", "ViT-S-16-alt", "RN50", "RN50x4", "ViT-B-32-256", "ViT-B-16-plus-240"]
)
def test_shapes_name_the_architecture(name: str) -> None:
    import open_clip

    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    assert name in fitting_architectures(model.state_dict())


def test_shapes_of_a_custom_text_tower() -> None:
    import open_clip

    with torch.device("meta"):
        plain = open_clip.CLIP(**open_clip.get_model_config("ViT-S-32"))
        custom = open_clip.CustomTextCLIP(**open_clip.get_model_config("ViT-S-32"))
    assert shape_config(custom.state_dict()) == shape_config(plain.state_dict())


def test_shapes_of_other_towers_say_nothing() -> None:
    assert shape_config({"visual.trunk.stem.weight": torch.zeros(1)}) is None
    assert fitting_architectures({}) == []
    assert preprocess_of_shapes({}, quick=True) == []


def test_preprocessing_by_shapes() -> None:
    import open_clip

    with torch.device("meta"):
        state = open_clip.CLIP(**open_clip.get_model_config("ViT-L-14")).state_dict()
    assert len(preprocess_of_shapes(state, quick=True)) == 1
    assert len(preprocess_of_shapes(state, quick=False)) == 2


def test_version_that_is_needed_is_that_of_the_requirements() -> None:
    from fusedream_core.models.clip.package import OLDEST

    needed = ".".join(str(part) for part in OLDEST)
    lines = (Path(__file__).parents[4] / "requirements.txt").read_text().splitlines()
    assert f"open_clip_torch>={needed}.0" in lines
