"""``open_clip_config.json``, read with an allow-list of keys.

The file determines what open_clip builds. Some keys make other libraries download files or run code
beside the weights, so unlisted keys are refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ..weights import read_json

CONFIG_NAME = "open_clip_config.json"

# Each key with the keys of its object; None if its value is not an object.
Keys = Mapping[str, "Keys | None"]


def _plain(*names: str) -> dict[str, Keys | None]:
    return dict.fromkeys(names)


_BLOCK: Keys = {
    **_plain("layers", "width", "mlp_ratio", "ls_init_value", "block_type", "qk_norm"),
    **_plain("scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"),
    **_plain("pool_type", "final_ln_after_pool", "output_tokens"),
    "act_kwargs": _plain("approximate"),
    "norm_kwargs": _plain("eps"),
}
_VISION: Keys = {
    **_BLOCK,
    **_plain("head_width", "patch_size", "image_size", "patch_dropout", "pos_embed_type"),
    **_plain("no_ln_pre", "attentional_pool", "attn_pooler_queries", "attn_pooler_heads"),
    **_plain("timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj"),
    **_plain("timm_proj_bias", "timm_drop", "timm_drop_path"),
}
_TEXT: Keys = {
    **_BLOCK,
    **_plain("context_length", "vocab_size", "heads", "embed_cls", "pad_id", "eos_id"),
    **_plain("no_causal_mask", "proj_bias", "proj_type"),
    **_plain("hf_model_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"),
    **_plain("hf_tokenizer_name", "tokenizer_mode"),
    "tokenizer_kwargs": _plain("clean", "strip_sep_token", "language"),
}
_KEYS: Keys = {
    "model_cfg": {
        **_plain("embed_dim", "quick_gelu", "custom_text", "output_dict"),
        **_plain("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"),
        "vision_cfg": _VISION,
        "text_cfg": _TEXT,
        "multimodal_cfg": {**_TEXT, **_plain("dim_head", "n_queries", "attn_pooler_heads")},
    },
    "preprocess_cfg": _plain(
        "size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"
    ),
}

INTERPOLATIONS = ("bicubic", "bilinear", "random")  # the last in training, bicubic otherwise
RESIZE_MODES = ("shortest", "longest", "squash")


@dataclass(frozen=True)
class ClipConfig:
    """Configuration of a CLIP.

    Attributes:
        model: open_clip's ``model_cfg``.
        preprocess: open_clip's ``preprocess_cfg``, complete except for the size.
    """

    model: dict[str, Any]
    preprocess: dict[str, Any]


def read_open_clip_config(path: Path) -> ClipConfig:
    """Read the open_clip configuration of a CLIP.

    Args:
        path: An ``open_clip_config.json``.

    Returns:
        The configuration.

    Raises:
        CheckpointError: If the file is of another kind, or has a refused key or value.
    """
    content = read_json(path)
    check_keys(content, _KEYS, path)
    model = content.get("model_cfg") or {}
    if not all(isinstance(model.get(tower), dict) for tower in ("vision_cfg", "text_cfg")):
        raise CheckpointError(
            f"The file {path} has no model_cfg with a vision_cfg and a text_cfg, which open_clip "
            "needs; use the file that came with the model."
        )
    timm_name = model["vision_cfg"].get("timm_model_name")
    if timm_name is not None and not re.fullmatch(r"[\w.\-]+", str(timm_name)):
        raise CheckpointError(
            f"The file {path} names the image tower {timm_name!r}, but only a plain name of timm's "
            "is accepted, as others would be downloaded or read from elsewhere."
        )
    return ClipConfig(model, complete_preprocess(content.get("preprocess_cfg") or {}, path))


def check_keys(content: Mapping[str, Any], keys: Keys, path: Path, within: str = "") -> None:
    """Refuse unlisted keys, at every depth.

    Args:
        content: A JSON object.
        keys: Allowed keys.
        path: The file, for the message.
        within: Path of the object in the file, with a dot at its end.

    Raises:
        CheckpointError: If there is an unlisted key or a value of the wrong kind.
    """
    for key, value in content.items():
        inner = keys.get(key)
        if key not in keys:
            raise refused_key(path, f"{within}{key}")
        if inner is not None and isinstance(value, dict):
            check_keys(value, inner, path, f"{within}{key}.")
        elif value is not None and (inner is not None or not _is_plain(value)):
            raise CheckpointError(
                f"The file {path} has {within}{key} = {str(value)[:60]!r}, which is not a value of "
                "this key; use the file that came with the model."
            )


def refused_key(path: Path, key: str) -> CheckpointError:
    """Return the error for a refused key."""
    return CheckpointError(
        f"The file {path} has the key {key}, which is refused, as a model's file may only have "
        "keys that are known to run no code and to reach no network; delete the key, or use the "
        "file that came with the model."
    )


def complete_preprocess(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Complete a ``preprocess_cfg`` with open_clip's defaults.

    Raises:
        CheckpointError: If a value is not supported.
    """
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    preprocess: dict[str, Any] = {
        "mode": "RGB",
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    preprocess.update((key, value) for key, value in given.items() if value is not None)
    good = {
        "mode": preprocess["mode"] == "RGB",
        "mean": _is_triple(preprocess["mean"]),
        "std": _is_triple(preprocess["std"]) and all(value > 0 for value in preprocess["std"]),
        "interpolation": preprocess["interpolation"] in INTERPOLATIONS,
        "resize_mode": preprocess["resize_mode"] in RESIZE_MODES,
        "fill_color": isinstance(preprocess["fill_color"], (int, float)),
    }
    for key in (key for key, fits in good.items() if not fits):
        raise CheckpointError(
            f"The file {path} asks for images with {key} = {preprocess[key]!r}, which is not "
            f"supported: mode is RGB, mean and std are three numbers, std above 0, interpolation "
            f"is one of {', '.join(INTERPOLATIONS)} and resize_mode of {', '.join(RESIZE_MODES)}."
        )
    return copy.deepcopy(preprocess)


def _is_plain(value: object) -> bool:
    """Return whether a value is a string, a number, a boolean, or a short list of numbers."""
    if isinstance(value, list):
        return len(value) <= 8 and all(isinstance(entry, (int, float)) for entry in value)
    return isinstance(value, (str, int, float))


def _is_triple(value: object) -> bool:
    """Return whether a value is three numbers that a float32 can hold."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    return all(isinstance(entry, (int, float)) and abs(entry) < 1e38 for entry in value)
