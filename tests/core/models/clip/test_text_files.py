from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fusedream_core import CheckpointError, MissingDependencyError, load_open_clip_folder
from fusedream_core.models.clip.text_files import make_tokenizer


def edit(path: Path, **content: object) -> None:
    """Set keys of a JSON file."""
    old: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**old, **content}), encoding="utf-8")


def test_complete_folder_loads_without_network(hf_folder: Path, no_network: list[object]) -> None:
    from open_clip import CustomTextCLIP
    from safetensors.torch import load_file

    before = dict(os.environ)
    clip = load_open_clip_folder(hf_folder)
    assert dict(os.environ) == before
    assert not no_network
    model_cfg = json.loads((hf_folder / "open_clip_config.json").read_text())["model_cfg"]
    model_cfg["text_cfg"].update(hf_model_name=str(hf_folder), hf_model_pretrained=False)
    with torch.random.fork_rng(devices=[]):
        model = CustomTextCLIP(**model_cfg).eval()
    model.load_state_dict(load_file(hf_folder / "open_clip_model.safetensors"))
    texts = ["a blue dog", "cat"]
    tokens = torch.tensor([[0, 4, 6, 5, 2, 1, 1, 1], [0, 7, 2, 1, 1, 1, 1, 1]])
    assert torch.equal(clip.tokenizer(texts), tokens)
    expected = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(clip.encode_text(texts), expected)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("config.json", "text tower 'nobody/tower'"),
        ("tokenizer.json", "tokenizer 'nobody/tokenizer'"),
        ("tokenizer_config.json", "tokenizer 'nobody/tokenizer'"),
    ],
)
def test_incomplete_folder_names_what_is_missing(
    hf_folder: Path, no_network: list[object], file: str, what: str
) -> None:
    (hf_folder / file).unlink()
    with pytest.raises(CheckpointError, match=rf"needs the {what}, .* put .*{file}.* into ") as e:
        load_open_clip_folder(hf_folder)
    assert str(hf_folder) in str(e.value)
    assert not no_network


def test_files_in_the_cache_of_the_hub_are_used(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[object]
) -> None:
    expected = load_open_clip_folder(hf_folder).encode_text(["a dog"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, files in {
        "tower": ("config.json",),
        "tokenizer": ("tokenizer.json", "tokenizer_config.json"),
    }.items():
        cached = tmp_path / "hub" / f"models--nobody--{name}"
        (cached / "snapshots" / "abc").mkdir(parents=True)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("abc", encoding="utf-8")
        for file in files:
            shutil.move(hf_folder / file, cached / "snapshots" / "abc" / file)
    assert torch.equal(load_open_clip_folder(hf_folder).encode_text(["a dog"]), expected)
    assert not no_network


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a/b/c", "~"])
def test_names_that_are_paths_lead_nowhere(hf_folder: Path, name: str) -> None:
    content = json.loads((hf_folder / "open_clip_config.json").read_text())
    content["model_cfg"]["text_cfg"]["hf_model_name"] = name
    (hf_folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    expected = load_open_clip_folder(hf_folder)  # the folder's own file is used
    assert expected.encode_text(["a"]).shape == (1, 12)
    (hf_folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="needs the text tower"):
        load_open_clip_folder(hf_folder)


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "special_tokens_map.json"]
)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModel": "evil.Model"}),
        ("trust_remote_code", True),
        ("vocab_file", "/etc/passwd"),
        ("_attn_implementation", "nobody/kernel"),
    ],
)
def test_only_listed_keys_are_accepted(hf_folder: Path, file: str, key: str, value: object) -> None:
    edit(hf_folder / file, **{key: value})
    with pytest.raises(CheckpointError, match=f"{file} has the key {key}, which is refused"):
        load_open_clip_folder(hf_folder)


def test_notes_in_the_files_do_nothing(hf_folder: Path) -> None:
    expected = load_open_clip_folder(hf_folder).encode_text(["a dog"])
    edit(
        hf_folder / "tokenizer_config.json",
        name_or_path="nobody/nothing",
        tokenizer_file="/etc/passwd",
        chat_template="{{ evil }}",
        sp_model_kwargs={"model_file": "/etc/passwd"},
    )
    edit(hf_folder / "config.json", torch_dtype="float16", _name_or_path="/etc", output_past=True)
    assert torch.equal(load_open_clip_folder(hf_folder).encode_text(["a dog"]), expected)


def test_tower_of_another_kind(hf_folder: Path) -> None:
    edit(hf_folder / "config.json", model_type="llama")
    with pytest.raises(CheckpointError, match=r"'llama', but a text tower of open_clip is one of"):
        load_open_clip_folder(hf_folder)


def test_damaged_tokenizer(hf_folder: Path) -> None:
    (hf_folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"The tokenizer in .* cannot be read"):
        load_open_clip_folder(hf_folder)


def test_libraries_that_do_not_go_together_are_named(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(*_: object, **__: object) -> None:
        raise AttributeError("TokenizersBackend has no attribute batch_encode_plus")

    monkeypatch.setattr("open_clip.tokenizer.HFTokenizer.__call__", removed)
    with pytest.raises(CheckpointError, match=r"with open_clip_torch \d.*, transformers \d"):
        load_open_clip_folder(hf_folder)


def test_missing_transformers_is_named(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("No module named 'transformers'")

    monkeypatch.setattr("open_clip.tokenizer.HFTokenizer.__init__", missing)
    with pytest.raises(MissingDependencyError, match="package transformers is needed"):
        load_open_clip_folder(hf_folder)


def test_option_that_the_tokenizer_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read \(TypeError.*strip_sep_token"):
        make_tokenizer({"tokenizer_kwargs": {"strip_sep_token": True}}, tmp_path)


def test_tokenizer_without_a_token_for_padding(hf_folder: Path) -> None:
    path = hf_folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["pad_token"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"The tokenizer in .* cannot be read"):
        load_open_clip_folder(hf_folder)


def test_tokenizer_of_clip_takes_its_options(tmp_path: Path) -> None:
    plain, canonical = (
        make_tokenizer({"context_length": 9, "tokenizer_kwargs": options}, tmp_path)
        for options in ({}, {"clean": "canonicalize"})
    )
    assert plain([""]).shape == (1, 9)
    assert torch.equal(canonical(["a, dog!"]), plain(["a dog"]))
    assert not torch.equal(plain(["a, dog!"]), plain(["a dog"]))


@pytest.mark.parametrize("kind", ["T5", "Gemma", "XLMRoberta", "Bert", "Roberta", "Nllb", "CLIP"])
def test_tokenizers_of_every_kind_give_what_they_give_in_their_own_folder(
    kind: str, tmp_path: Path, no_network: list[object]
) -> None:
    import transformers
    from open_clip.tokenizer import HFTokenizer

    getattr(transformers, f"{kind}Tokenizer")().save_pretrained(tmp_path)
    texts = ["a dog", "", "x"]
    expected = HFTokenizer(str(tmp_path), context_length=9)(texts)
    text = {"hf_tokenizer_name": "nobody/tokenizer", "context_length": 9}
    assert torch.equal(make_tokenizer(text, tmp_path)(texts), expected)
    assert not no_network


def test_tokenizer_lies_beside_a_bare_file(
    tmp_path: Path, write_tokenizer: Callable[[Path], None], no_network: list[object]
) -> None:
    text = {"hf_tokenizer_name": "nobody/tokenizer", "context_length": 5}
    write_tokenizer(tmp_path)
    assert make_tokenizer(text, tmp_path)(["a dog"]).tolist() == [[0, 4, 5, 2, 1]]
    assert not no_network
