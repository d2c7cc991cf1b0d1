"""Tokenizers and text towers of other libraries, from local data files only.

transformers can run code of a folder, and downloads missing files. Here it reads a temporary folder
with data files only, with allowed keys.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, MissingDependencyError
from ..weights import read_json
from .config_file import refused_key
from .package import in_one_line, open_clip_package

TOWER_CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
# Vocabulary files; one of them is needed.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_MORE_DATA = ("merges.txt", "added_tokens.json")
_LIBRARIES = ("open_clip_torch", "transformers", "tokenizers")
TOWER_TYPES = ("bert", "roberta", "xlm-roberta", "mt5", "m2m_100")

_TOKENS = frozenset(
    (
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token"),
        *("mask_token", "additional_special_tokens", "extra_special_tokens"),
    )
)
_TOKENIZER_KEYS = _TOKENS.union(
    (
        *("tokenizer_class", "model_max_length", "padding_side", "truncation_side", "max_length"),
        *("clean_up_tokenization_spaces", "spaces_between_special_tokens", "split_special_tokens"),
        *("add_prefix_space", "add_bos_token", "add_eos_token", "do_lower_case", "lowercase"),
        *("do_basic_tokenize", "never_split", "strip_accents", "tokenize_chinese_chars"),
        *("keep_accents", "remove_space", "errors", "trim_offsets", "extra_ids", "legacy"),
        *("legacy_behaviour", "src_lang", "tgt_lang", "language_codes", "add_dummy_prefix"),
        *("stride", "truncation_strategy", "pad_to_multiple_of", "pad_token_type_id"),
        *("added_tokens_decoder", "model_input_names"),
    )
)
# Metadata of a tokenizer that is ignored.
_TOKENIZER_NOTES = frozenset(
    (
        *("name_or_path", "tokenizer_file", "special_tokens_map_file", "processor_class"),
        *("backend", "is_local", "local_files_only", "use_default_system_prompt", "use_fast"),
        *("chat_template", "return_tensors", "transformers_version", "tokenizer_type"),
        *("max_len", "sp_model_kwargs"),
    )
)
_TOWER_KEYS = frozenset(
    (
        *("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        *("intermediate_size", "hidden_act", "hidden_dropout_prob", "type_vocab_size"),
        *("attention_probs_dropout_prob", "max_position_embeddings", "initializer_range"),
        *("layer_norm_eps", "layer_norm_epsilon", "pad_token_id", "bos_token_id", "eos_token_id"),
        *("decoder_start_token_id", "position_embedding_type", "use_cache", "classifier_dropout"),
        *("is_encoder_decoder", "tie_word_embeddings", "d_model", "d_kv", "d_ff", "num_layers"),
        *("num_decoder_layers", "num_heads", "relative_attention_num_buckets", "dropout_rate"),
        *("relative_attention_max_distance", "initializer_factor", "feed_forward_proj"),
        *("encoder_layers", "encoder_ffn_dim", "encoder_attention_heads", "decoder_layers"),
        *("decoder_ffn_dim", "decoder_attention_heads", "encoder_layerdrop", "decoder_layerdrop"),
        *("activation_function", "dropout", "attention_dropout", "activation_dropout", "init_std"),
        *("scale_embedding", "chunk_size_feed_forward"),
    )
)
_TOWER_NOTES = frozenset(
    (
        *("_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype"),
        *("id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params"),
        *("tokenizer_class", "output_past", "gradient_checkpointing", "max_length", "num_beams"),
        *("early_stopping", "n_positions", "num_hidden_layers_decoder", "is_gated_act"),
        *("dense_act_fn", "is_decoder", "add_cross_attention", "output_attentions"),
        *("output_hidden_states", "return_dict", "pooler_fc_size", "pooler_num_attention_heads"),
        *("pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "directionality"),
        *("pruned_heads", "use_bfloat16", "forced_eos_token_id", "forced_bos_token_id"),
    )
)


class _NeedsError(CheckpointError):
    """Files of a text model are missing."""

    def __init__(self, what: str, name: str, files: str, folder: Path) -> None:
        super().__init__(
            f"The CLIP in {folder} needs the {what} {name!r}, which is neither there nor in the "
            f"hub's cache, and nothing is fetched for it; put {files} of that model into {folder}."
        )


def make_tokenizer(text: Mapping[str, Any], folder: Path) -> Any:  # noqa: ANN401
    """Build the tokenizer of a CLIP from local files.

    Args:
        text: open_clip's ``text_cfg``, with allowed keys only.
        folder: Folder of the files, if it is not the default tokenizer of open_clip.

    Returns:
        open_clip's tokenizer: texts to token ids ``(N, L)``.

    Raises:
        CheckpointError: If a file is missing, refused, or damaged.
    """
    open_clip = open_clip_package()
    length = text.get("context_length") or open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH
    options = dict(text.get("tokenizer_kwargs") or {})
    if text.get("tokenizer_mode"):  # unknown to older versions
        options["tokenizer_mode"] = text["tokenizer_mode"]
    name = text.get("hf_tokenizer_name")
    if not name:
        with _reading(folder):
            return open_clip.SimpleTokenizer(context_length=length, **options)
    source = _find(folder, name, VOCABULARIES)
    if source is None or not (source / TOKENIZER_CONFIG).is_file():
        files = f"{TOKENIZER_CONFIG} and tokenizer.json (or another vocabulary)"
        raise _NeedsError("tokenizer", name, files, folder)
    with _scratch() as clean:
        _copy_tokenizer(source, clean)
        with _reading(source):
            tokenizer = open_clip.tokenizer.HFTokenizer(
                str(clean),
                context_length=length,
                **options,
                trust_remote_code=False,
                local_files_only=True,
            )
            tokenizer([""])  # fails here without a padding token
    return tokenizer


@contextmanager
def local_tower(text: Mapping[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Provide a local configuration of a text tower of transformers.

    Args:
        text: open_clip's ``text_cfg``, with allowed keys only.
        folder: Folder of the tower's ``config.json``, if it has one.

    Yields:
        The ``text_cfg`` with a temporary folder as the tower's name.

    Raises:
        CheckpointError: If the file is missing or refused.
    """
    name = text.get("hf_model_name")
    if not name:
        yield dict(text)
        return
    source = _find(folder, name, (TOWER_CONFIG,))
    if source is None:
        raise _NeedsError("text tower", name, TOWER_CONFIG, folder)
    path = source / TOWER_CONFIG
    config = _accepted(path, _TOWER_KEYS, _TOWER_NOTES)
    if config.get("model_type") not in TOWER_TYPES:
        raise CheckpointError(
            f"The file {path} is of the model type {config.get('model_type')!r}, but a text tower "
            f"of open_clip is one of {', '.join(TOWER_TYPES)}; put the config.json of {name!r} "
            "there."
        )
    with _scratch() as clean:
        _write(clean / TOWER_CONFIG, config)
        yield {**text, "hf_model_name": str(clean), "hf_model_pretrained": False}


def _find(folder: Path, name: str, files: tuple[str, ...]) -> Path | None:
    """Return the folder with one of the files: the model's, or the hub's cache; else None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if any((folder / file).is_file() for file in files):
        return folder
    for file in files:
        try:
            cached = try_to_load_from_cache(name, file)
        except HFValidationError:  # a path is not a model name
            return None
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def _copy_tokenizer(source: Path, clean: Path) -> None:
    """Copy the data files of a tokenizer, and the allowed keys of its JSON files."""
    config = _accepted(source / TOKENIZER_CONFIG, _TOKENIZER_KEYS, _TOKENIZER_NOTES)
    _write(clean / TOKENIZER_CONFIG, config)
    if (source / SPECIAL_TOKENS).is_file():
        _write(clean / SPECIAL_TOKENS, _accepted(source / SPECIAL_TOKENS, _TOKENS, frozenset()))
    for name in (*VOCABULARIES, *_MORE_DATA):
        if (source / name).is_file():
            shutil.copyfile(source / name, clean / name)


def _accepted(path: Path, keys: frozenset[str], notes: frozenset[str]) -> dict[str, Any]:
    """Read the allowed keys of a file; ignore notes and refuse other keys."""
    content = read_json(path)
    for key in content.keys() - keys - notes:
        raise refused_key(path, key)
    return {key: value for key, value in content.items() if key in keys}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def _scratch() -> Iterator[Path]:
    """Provide a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="fusedream-") as folder:
        yield Path(folder)


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Convert errors of the tokenizer's libraries.

    Raises:
        CheckpointError: For damaged files and incompatible libraries.
        MissingDependencyError: If a library is not installed.
    """
    try:
        yield
    except ImportError as error:
        purpose = f"the tokenizer in {source}, which cannot be read without it ({error})"
        raise MissingDependencyError.of("transformers", purpose) from error
    except Exception as error:
        versions = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
        raise CheckpointError(
            f"The tokenizer in {source} cannot be read ({in_one_line(error)}; with "
            f"{versions}); copy its files again, or bring these packages up to date."
        ) from error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
