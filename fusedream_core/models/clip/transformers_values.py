"""What the values in a configuration of transformers' ``CLIPModel`` may be: types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from .config_file import CONTEXT, COUNT, EPSILON, LAYERS, SIDE, TOKEN, VOCABULARY, Kind, whole

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads"), COUNT),
    **dict.fromkeys(("image_size", "patch_size"), SIDE),
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": CONTEXT,
    "layer_norm_eps": EPSILON,
    "vocab_size": VOCABULARY,
    "eos_token_id": Kind(lambda value: value is None or TOKEN.fits(value), TOKEN.words),
    "num_channels": whole(3, 3),
}


def read_part(
    content: Mapping[str, Any], key: str, usual: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """What a configuration says of a tower, with what is usual where it says nothing.

    Args:
        content: The whole configuration.
        key: The tower's, as "text_config".
        usual: What is read, with what stands for it.
        path: The file, for the message.

    Raises:
        CheckpointError: If a value is of another type, or out of range.
    """
    part = dict(usual)
    for name in (key, f"{key}_dict"):
        given = content.get(name) or {}
        if not isinstance(given, dict):
            raise other_value(path, name, given, "an object")
        part |= given
    for name in usual:
        kind = _KINDS.get(name)
        if kind is not None and not kind.fits(part[name]):
            raise other_value(path, f"{key}.{name}", part[name], kind.words)
    return part


def other_value(path: Path, key: str, value: object, words: str) -> CheckpointError:
    """The error for a value that is not accepted; ``words`` says what is."""
    return CheckpointError(
        f"The file {path} has {key} = {str(value)[:60]!r}, but it must be {words}; use the file "
        "that came with the model."
    )
