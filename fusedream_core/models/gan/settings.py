"""``config.json`` of a GAN, read with an allow-list of keys, types and sizes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import CheckpointError
from ..weights import WEIGHT_SUFFIXES, read_json

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
_MAX_NAMES, _MAX_NAME_LENGTH = 100_000, 500
_MAX_LAYERS = 64
# Keys of other programs that are ignored.
_NOTES = {
    "architectures", "author", "description", "dtype", "license", "licence", "model_type", "name",
    "note", "title", "torch_dtype", "transformers_version", "version", "_name_or_path",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GanSettings:
    """Settings of a config file.

    Attributes:
        class_names: One name per class.
        truncation: Recommended value, above 0 and at most 1.
        eps: Epsilon of the normalisations; None means that of the weights' layout.
        channel_order: Order of the output channels; None means unspecified.
        network: Fields of ``BigGANConfig``, including ``eps``.
    """

    class_names: tuple[str, ...] | None = None
    truncation: float = 1.0
    eps: float | None = None
    channel_order: Literal["rgb", "bgr"] | None = None
    network: Mapping[str, Any] = field(default_factory=dict)


def find_config(weights_path: Path, *, is_folder: bool) -> Path | None:
    """Return the config file of a weights file, or None.

    Args:
        weights_path: The weights file.
        is_folder: Whether the caller gave the folder instead of the file.

    Returns:
        ``biggan-256.json`` for ``biggan-256.pth``; or the folder's ``config.json``, if the caller
        gave the folder or it has no other weights.

    Raises:
        CheckpointError: If there is a folder of such a name.
    """
    own, shared = weights_path.with_suffix(".json"), weights_path.with_name(CONFIG_NAME)
    for path in (own, shared):
        if path.is_dir():
            raise CheckpointError(
                f"{path} is a folder, but a file of settings is named so; move it."
            )
    if own.is_file() and not weights_path.name.endswith(".json"):
        return own
    if not shared.is_file():
        return None
    files = [file for file in shared.parent.iterdir() if file.suffix in WEIGHT_SUFFIXES]
    if is_folder or len(files) == 1:
        return shared
    logger.warning(
        "FuseDream ignores %s, because there are %d weights files beside it; name it %s to use it "
        "with that file.", shared, len(files), own.name
    )  # fmt: skip
    return None


def read_settings(path: Path) -> GanSettings:
    """Read a config. Unknown keys are refused, since a misspelt key would change images.

    Keys of other programs are ignored with a warning.

    Raises:
        CheckpointError: If the file is not a JSON object, or a key, type or size is refused.
    """
    content = read_json(path)
    notes = sorted(_NOTES & content.keys())
    if notes:
        logger.warning("FuseDream does not use %s in %s.", ", ".join(notes), path)
    fields = {key: value for key, value in content.items() if key not in _NOTES}
    for key, value in fields.items():
        if key not in _ACCEPTED:
            reason = f"{key[:60]!r} is none of its keys, which are {', '.join(_ACCEPTED)}"
        elif not _ACCEPTED[key][0](value):
            reason = f"{key} is {str(value)[:60]}, but must be {_ACCEPTED[key][1]}"
        else:
            continue
        raise CheckpointError(
            f"The config {path} does not describe a BigGAN ({reason}); use the one that came with "
            "the weights."
        )
    names = fields.pop("class_names", None)
    return GanSettings(
        class_names=None if names is None else tuple(names),
        truncation=float(fields.pop("truncation", 1.0)),
        eps=fields.get("eps"),
        channel_order=fields.pop("channel_order", None),
        network=fields,
    )


_Check = Callable[[object], bool]


def _whole(least: int, most: int) -> _Check:
    return lambda value: type(value) is int and least <= value <= most


def _above_zero(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 < value <= 1


def _is_name(value: object) -> bool:
    """Return whether a value is a line of text."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME_LENGTH:
        return False
    return not any(ord(letter) < ord(" ") or letter == "\x7f" for letter in value)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_NAMES and all(map(_is_name, value))


def _are_layers(value: object) -> bool:
    """Return whether a value is a list of ``[doubles the side, channels in, channels out]``."""
    size = _whole(1, 1024)
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MAX_LAYERS
        and all(
            isinstance(layer, list)
            and len(layer) == 3
            and type(layer[0]) in (bool, int)
            and size(layer[1])
            and size(layer[2])
            for layer in value
        )
    )


_COUNT = (_whole(1, 1_000_000), "a whole number from 1 to 1,000,000")
_ACCEPTED: dict[str, tuple[_Check, str]] = {
    "class_names": (_are_names, "a list of names, each one line"),
    "truncation": (_above_zero, "above 0 and at most 1"),
    "eps": (_above_zero, "above 0 and at most 1"),
    "channel_order": (lambda value: value in ("rgb", "bgr"), '"rgb" or "bgr"'),
    **dict.fromkeys(
        ("output_dim", "z_dim", "class_embed_dim", "channel_width", "num_classes"), _COUNT
    ),
    "layers": (_are_layers, "a list of [doubles the side, channels in, channels out]"),
    "attention_layer_position": (
        lambda value: value is None or _whole(-1, _MAX_LAYERS)(value),
        f"null or a whole number from -1 to {_MAX_LAYERS}",
    ),
    "n_stats": (_whole(2, 10_000), "a whole number from 2 to 10,000"),
}
