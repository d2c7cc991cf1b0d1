from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

HF_TEXT: dict[str, Any] = {
    "hf_model_name": "nobody/tower",
    "hf_tokenizer_name": "nobody/tokenizer",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
    "context_length": 8,
}
HF_MODEL: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": 16,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": HF_TEXT,
}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Makes every use of a socket fail; the list holds what was tried."""
    tried: list[object] = []

    def refuse(*args: object, **_: object) -> None:
        tried.append(args)
        raise OSError("there is no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


@pytest.fixture
def write_tokenizer() -> Callable[[Path], None]:
    """Writes a tokenizer of eight words, as transformers saves it."""

    def write(folder: Path) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        words = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "blue", "cat"]
        vocabulary = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")  # noqa: S106
        tokenizer = Tokenizer(vocabulary)
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            "<s> $A </s>", None, [("<s>", 0), ("</s>", 2)]
        )
        marks = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)

    return write


@pytest.fixture
def hf_folder(tmp_path: Path, write_tokenizer: Callable[[Path], None]) -> Path:
    """A complete CLIP's folder with a text tower and a tokenizer of transformers."""
    from open_clip import CustomTextCLIP
    from safetensors.torch import save_file
    from transformers import XLMRobertaConfig

    folder = tmp_path / "clip"
    write_tokenizer(folder)
    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 32, "type_vocab_size": 1}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 40}
    XLMRobertaConfig(**sizes, **heads).save_pretrained(folder)
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    content = {"model_cfg": HF_MODEL, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    text = {**HF_TEXT, "hf_model_name": str(folder), "hf_model_pretrained": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CustomTextCLIP(**{**HF_MODEL, "text_cfg": text})
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
