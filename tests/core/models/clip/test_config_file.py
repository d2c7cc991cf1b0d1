from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedream_core import CheckpointError, load_open_clip_folder
from fusedream_core.models.clip.config_file import read_open_clip_config


def changed(clip_dir: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a CLIP's folder whose configuration was changed."""
    copy = Path(shutil.copytree(clip_dir, folder))
    content = json.loads((copy / "open_clip_config.json").read_text(encoding="utf-8"))
    change(content)
    (copy / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    return copy


def test_code_of_a_folder_is_never_run(
    clip_dir: Path, tmp_path: Path, no_network: list[object]
) -> None:
    marker = tmp_path / "marker"

    def hostile(content: dict[str, Any]) -> None:
        content["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "evil"
        content["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}

    folder = changed(clip_dir, tmp_path / "evil", hostile)
    tokenizer = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "vocab.txt").write_text("a", encoding="utf-8")
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Tokenizer: pass\n"
    (folder / "evil.py").write_text(code, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"model_cfg\.text_cfg\.tokenizer_kwargs\.trust_remote_code"
    ):
        load_open_clip_folder(folder)
    # Without that key, the code is named by another file.
    content = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    del content["model_cfg"]["text_cfg"]["tokenizer_kwargs"]
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="the key auto_map, which is refused"):
        load_open_clip_folder(folder)
    assert not marker.exists()
    assert not no_network


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("text_cfg", "tokenizer_kwargs", {"bpe_path": "/etc/passwd"}),
        ("text_cfg", "tokenizer_kwargs", {"reduction_mask": "syntax"}),  # fetches a corpus
        ("text_cfg", "tokenizer_kwargs", {"cache_dir": "/tmp"}),  # noqa: S108
        ("text_cfg", "trust_remote_code", True),
        ("text_cfg", "norm_kwargs", {"device": "cuda"}),
        ("vision_cfg", "act_kwargs", {"inplace": True}),
        ("vision_cfg", "something_new", 1),
        (None, "cast_dtype", "torch.float16"),
        (None, "pretrained", "hf-hub:nobody/nothing"),
    ],
)
def test_only_listed_keys_are_accepted(
    clip_dir: Path, tmp_path: Path, place: str | None, key: str, value: object
) -> None:
    def change(content: dict[str, Any]) -> None:
        part = content["model_cfg"] if place is None else content["model_cfg"][place]
        part[key] = value

    folder = changed(clip_dir, tmp_path / "clip", change)
    name = next(iter(value)) if isinstance(value, dict) else key
    with pytest.raises(
        CheckpointError, match=rf"has the key model_cfg\..*{name}, which is refused"
    ):
        load_open_clip_folder(folder)


def test_keys_of_the_file_itself_are_listed_too(clip_dir: Path, tmp_path: Path) -> None:
    folder = changed(clip_dir, tmp_path / "clip", lambda content: content.update(auto_map={}))
    with pytest.raises(CheckpointError, match="has the key auto_map, which is refused"):
        load_open_clip_folder(folder)


@pytest.mark.parametrize("name", ["hf-hub:timm/vit", "local-dir:/tmp/evil", "../evil", "a/b"])
def test_image_towers_from_elsewhere_are_refused(
    clip_dir: Path, tmp_path: Path, name: str, no_network: list[object]
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model_cfg"]["vision_cfg"]["timm_model_name"] = name

    with pytest.raises(CheckpointError, match="only a plain name of timm's is accepted"):
        load_open_clip_folder(changed(clip_dir, tmp_path / "clip", change))
    assert not no_network


def test_weights_of_a_single_tower_are_not_fetched(
    clip_dir: Path, tmp_path: Path, no_network: list[object]
) -> None:
    def change(content: dict[str, Any]) -> None:
        tower = {"timm_model_name": "resnet18", "timm_model_pretrained": True, "image_size": 16}
        content["model_cfg"]["vision_cfg"] = tower

    with pytest.raises(CheckpointError, match="do not fit the CLIP"):
        load_open_clip_folder(changed(clip_dir, tmp_path / "clip", change))
    assert not no_network


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("mean", [0.5, 0.5, 10**400]),
        ("std", [0.5, 0.0, 0.5]),
        ("interpolation", "lanczos"),
        ("resize_mode", "stretch"),
        ("mode", "L"),
        ("mean", [True, False, True]),
        ("mean", [1e300, 0.5, 0.5]),
        ("std", [1e-320, 0.5, 0.5]),
        ("fill_color", float("nan")),
        ("fill_color", True),
        ("fill_color", -1),
        ("interpolation", ["bicubic"]),
    ],
)
def test_preprocessing_that_is_not_supported(
    clip_dir: Path, tmp_path: Path, key: str, value: object
) -> None:
    folder = changed(
        clip_dir, tmp_path / "clip", lambda content: content["preprocess_cfg"].update({key: value})
    )
    with pytest.raises(CheckpointError, match=f"asks for images with {key} = "):
        load_open_clip_folder(folder)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("model_cfg", "quick_gelu", "no"),
        ("model_cfg", "custom_text", "false"),
        ("model_cfg", "custom_text", 1),
        ("model_cfg", "embed_dim", True),
        ("model_cfg", "embed_dim", 12.0),
        ("model_cfg", "embed_dim", 10**9),
        ("model_cfg", "init_logit_scale", 1e300),
        ("text_cfg", "eos_id", "x"),
        ("text_cfg", "pad_id", 1e9),
        ("text_cfg", "pad_id", -1),
        ("text_cfg", "vocab_size", 10**9),
        ("text_cfg", "context_length", 10**6),
        ("text_cfg", "no_causal_mask", "no"),
        ("text_cfg", "mlp_ratio", float("nan")),
        ("text_cfg", "hf_model_name", "x" * 1_000),
        ("vision_cfg", "layers", [1_000_000] * 8),
        ("vision_cfg", "layers", [1_000_000] * 4),
        ("vision_cfg", "layers", [1, 1]),
        ("vision_cfg", "image_size", 10**9),
        ("vision_cfg", "image_size", -16),
        ("vision_cfg", "image_size", [16, 16, 16]),
        ("vision_cfg", "image_size", "16"),
        ("vision_cfg", "patch_size", 0),
        ("vision_cfg", "patch_dropout", 2.0),
        ("preprocess_cfg", "size", "huge"),
        ("preprocess_cfg", "size", -1),
    ],
)
def test_types_and_ranges(
    clip_dir: Path, tmp_path: Path, place: str, key: str, value: object
) -> None:
    def change(content: dict[str, Any]) -> None:
        outer = content if place.startswith("pre") else content["model_cfg"]
        (outer if place == "model_cfg" else outer[place])[key] = value

    with pytest.raises(CheckpointError, match=rf"has \S*{key} = .* but it must be ") as caught:
        load_open_clip_folder(changed(clip_dir, tmp_path / "clip", change))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("vision_cfg", {"layers": 1_000, "width": 65_536}),
        ("vision_cfg", {"layers": [1_000] * 4, "width": 4_096}),
        ("vision_cfg", {"image_size": 4_096, "patch_size": 1}),
        ("vision_cfg", {"mlp_ratio": 1e3, "width": 4_096}),
        ("text_cfg", {"vocab_size": 10_000_000, "width": 64}),
        (None, {"embed_dim": 65_536}),
    ],
)
def test_far_larger_than_its_weights_is_not_built(
    clip_dir: Path,
    tmp_path: Path,
    place: str | None,
    change: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fusedream_core.models.clip.build._empty_model", None)
    monkeypatch.setattr("fusedream_core.models.clip.build._SIZE_MARGIN", 1 << 20)

    def enlarge(content: dict[str, Any]) -> None:
        model = content["model_cfg"]
        (model if place is None else model[place]).update(change)

    with pytest.raises(
        CheckpointError, match=r"asks for more than [\d,]+ parameters, but its weights"
    ):
        load_open_clip_folder(changed(clip_dir, tmp_path / "clip", enlarge))


def test_file_that_is_a_folder(clip_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_dir, tmp_path / "clip"))
    (folder / "open_clip_config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json is a folder, but a file is named so"):
        load_open_clip_folder(folder)


@pytest.mark.parametrize("content", [{}, {"model_cfg": {}}, {"model_cfg": {"text_cfg": {}}}])
def test_no_model_in_it(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="has no model_cfg with a vision_cfg and a text_cfg"):
        read_open_clip_config(path)


@pytest.mark.parametrize("value", [{"a": 1}, ["a"], [[1]]])
def test_values_of_another_kind(clip_dir: Path, tmp_path: Path, value: object) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model_cfg"]["text_cfg"]["layers"] = value

    with pytest.raises(CheckpointError, match=r"layers = .* but it must be a whole number"):
        load_open_clip_folder(changed(clip_dir, tmp_path / "clip", change))


def test_all_configurations_of_open_clip_are_accepted(tmp_path: Path) -> None:
    import open_clip

    path = tmp_path / "open_clip_config.json"
    names = open_clip.list_models()
    assert len(names) > 100
    for name in names:
        model = open_clip.get_model_config(name)
        path.write_text(json.dumps({"model_cfg": model}), encoding="utf-8")
        assert read_open_clip_config(path).model == model, name


def test_numbers_that_cannot_be_built(clip_dir: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model_cfg"]["text_cfg"]["heads"] = 3

    with pytest.raises(CheckpointError, match=r"cannot build the CLIP of .*AssertionError"):
        load_open_clip_folder(changed(clip_dir, tmp_path / "clip", change))
