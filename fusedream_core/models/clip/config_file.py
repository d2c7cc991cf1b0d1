"""``open_clip_config.json``, read with an allow-list of keys.

The file determines what open_clip builds. Some keys make other libraries download files or run code
beside the weights, so unlisted keys are refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ..weights import read_json

CONFIG_NAME = "open_clip_config.json"

# Each key with the keys of its object, or with the accepted values.
Keys = Mapping[str, "Keys | Kind"]


@dataclass(frozen=True)
class Kind:
    """A type and range of values.

    Attributes:
        fits: Returns whether a value is accepted.
        words: Description for messages.
    """

    fits: Callable[[object], bool]
    words: str

    def of(self, *names: str) -> dict[str, Keys | Kind]:
        """Return keys with values of this kind."""
        return dict.fromkeys(names, self)


def is_number(value: object, low: float, high: float) -> bool:
    """Return whether a value is a number in a range; booleans and NaN are not."""
    return isinstance(value, (int, float)) and type(value) is not bool and low <= value <= high


def whole(low: int, high: int) -> Kind:
    """Return the kind of whole numbers in a range."""
    return Kind(
        lambda value: isinstance(value, int) and is_number(value, low, high),
        f"a whole number from {low:,} to {high:,}",
    )


def number(low: float, high: float) -> Kind:
    """Return the kind of numbers in a range."""
    return Kind(lambda value: is_number(value, low, high), f"a number from {low:g} to {high:g}")


def _one_or_list(one: Kind, lengths: tuple[int, ...]) -> Kind:
    """Return the kind of single values, or lists of them."""
    return Kind(
        lambda value: (
            len(value) in lengths and all(map(one.fits, value))
            if isinstance(value, list)
            else one.fits(value)
        ),
        f"{one.words}, or a list of {' or '.join(map(str, lengths))} of them",
    )


_MAX_TEXT_LENGTH = 500  # characters of a text
_BOOLEAN = Kind(lambda value: isinstance(value, bool), "true or false")
_STRING = Kind(
    lambda value: isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH,
    f"a text of at most {_MAX_TEXT_LENGTH} characters",
)
# Generous limits; a configuration within them is also compared with the weights.
COUNT = whole(1, 65_536)
LAYERS = whole(1, 1_000)
SIDE = whole(1, 4_096)  # pixels
CONTEXT = whole(1, 4_096)  # tokens
VOCABULARY = whole(1, 10_000_000)
TOKEN = whole(0, 10_000_000)
RATIO = number(1e-3, 1e3)
EPSILON = number(1e-12, 1.0)
_FRACTION = number(0.0, 1.0)
_ANY_NUMBER = number(-1e6, 1e6)


_BLOCK: Keys = {
    **LAYERS.of("layers"),
    **COUNT.of("width"),
    **RATIO.of("mlp_ratio"),
    **number(0.0, 1e3).of("ls_init_value"),
    **_BOOLEAN.of("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn"),
    **_BOOLEAN.of("scale_fc", "final_ln_after_pool", "output_tokens"),
    **_STRING.of("block_type", "pool_type"),
    "act_kwargs": _STRING.of("approximate"),
    "norm_kwargs": EPSILON.of("eps"),
}
_VISION: Keys = {
    **_BLOCK,
    **_one_or_list(LAYERS, (4,)).of("layers"),  # a list for the stages of a ResNet
    **COUNT.of("head_width", "attn_pooler_queries", "attn_pooler_heads"),
    **_one_or_list(SIDE, (2,)).of("patch_size", "image_size"),
    **_FRACTION.of("patch_dropout", "timm_drop", "timm_drop_path"),
    **_BOOLEAN.of("no_ln_pre", "timm_model_pretrained", "timm_proj_bias"),
    "attentional_pool": Kind(
        lambda value: isinstance(value, bool) or value in ("parallel", "cascade"),
        'true, false, "parallel" or "cascade"',
    ),
    **_STRING.of("pos_embed_type", "timm_model_name", "timm_pool", "timm_proj"),
}
_TEXT: Keys = {
    **_BLOCK,
    **CONTEXT.of("context_length"),
    **VOCABULARY.of("vocab_size"),
    **TOKEN.of("pad_id", "eos_id"),
    **COUNT.of("heads"),
    **_BOOLEAN.of("embed_cls", "no_causal_mask", "proj_bias", "hf_model_pretrained"),
    **_STRING.of("proj_type", "hf_model_name", "hf_proj_type", "hf_pooler_type"),
    **_STRING.of("hf_tokenizer_name", "tokenizer_mode"),
    "tokenizer_kwargs": {
        **_STRING.of("clean", "language"),
        **_BOOLEAN.of("strip_sep_token"),
    },
}
_KEYS: Keys = {
    "model_cfg": {
        **COUNT.of("embed_dim"),
        **_BOOLEAN.of("quick_gelu", "custom_text", "output_dict", "nonscalar_logit_scale"),
        **_ANY_NUMBER.of("init_logit_scale", "init_logit_bias"),
        "vision_cfg": _VISION,
        "text_cfg": _TEXT,
        "multimodal_cfg": {**_TEXT, **COUNT.of("dim_head", "n_queries", "attn_pooler_heads")},
    },
    "preprocess_cfg": {
        **_one_or_list(SIDE, (2,)).of("size"),
        # The others are checked later, together with their defaults.
        **Kind(lambda _: True, "").of(
            "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"
        ),
    },
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
    """Refuse unlisted keys and values of the wrong kind, at every depth; null is accepted.

    Args:
        content: A JSON object.
        keys: Allowed keys.
        path: The file, for the message.
        within: Path of the object in the file, with a dot at its end.

    Raises:
        CheckpointError: If there is an unlisted key or a value of the wrong kind.
    """
    for key, value in content.items():
        if key not in keys:
            raise refused_key(path, f"{within}{key[:60]}")
        inner = keys[key]
        if not isinstance(inner, Kind) and isinstance(value, dict):
            check_keys(value, inner, path, f"{within}{key}.")
        elif value is not None and not (isinstance(inner, Kind) and inner.fits(value)):
            words = inner.words if isinstance(inner, Kind) else "an object"
            raise CheckpointError(
                f"The file {path} has {within}{key} = {str(value)[:60]!r}, but it must be {words}; "
                "use the file that came with the model."
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
        "mean": _is_triple(preprocess["mean"], -1e3, 1e3),
        "std": _is_triple(preprocess["std"], 1e-6, 1e6),
        "interpolation": preprocess["interpolation"] in INTERPOLATIONS,
        "resize_mode": preprocess["resize_mode"] in RESIZE_MODES,
        "fill_color": is_number(preprocess["fill_color"], 0, 255),
    }
    for key in (key for key, fits in good.items() if not fits):
        raise CheckpointError(
            f"The file {path} asks for images with {key} = {preprocess[key]!r:.60}, which is not "
            "supported: mode is RGB, mean is three numbers from -1,000 to 1,000, std three from "
            "0.000001 to 1,000,000, fill_color a number from 0 to 255, interpolation is one "
            f"of {', '.join(INTERPOLATIONS)} and resize_mode of {', '.join(RESIZE_MODES)}."
        )
    return copy.deepcopy(preprocess)


def _is_triple(value: object, low: float, high: float) -> bool:
    """Return whether a value is three numbers in a range."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    return all(is_number(entry, low, high) for entry in value)
