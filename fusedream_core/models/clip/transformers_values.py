"""Types and ranges of the values in a configuration of transformers' ``CLIPModel``."""

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
    content: Mapping[str, Any], key: str, defaults: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Return a tower's part of a configuration, with defaults.

    Args:
        content: The whole configuration.
        key: The tower's key, as "text_config".
        defaults: The values that are read, with their defaults.
        path: The file, for the message.

    Raises:
        CheckpointError: If a value is of the wrong type, or out of range.
    """
    part = dict(defaults)
    for name in (key, f"{key}_dict"):
        given = content.get(name) or {}
        if not isinstance(given, dict):
            raise refused_value(path, name, given, "an object")
        part |= given
    for name in defaults:
        kind = _KINDS.get(name)
        if kind is not None and not kind.fits(part[name]):
            raise refused_value(path, f"{key}.{name}", part[name], kind.words)
    return part


def refused_value(path: Path, key: str, value: object, words: str) -> CheckpointError:
    """Return the error for a refused value; ``words`` describes the accepted ones."""
    return CheckpointError(
        f"The file {path} has {key} = {str(value)[:60]!r}, but it must be {words}; use the file "
        "that came with the model."
    )
