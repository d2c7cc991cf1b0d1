"""``open_clip_config.json``, read through a list of the keys that are accepted.

The file decides what open_clip builds. Some keys make other libraries fetch files or run code that
lies beside the weights, so a key that is not listed here is refused, whatever it may do.
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

# Each key with the keys that its own object may have, or with what its value may be.
Keys = Mapping[str, "Keys | Kind"]


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    Attributes:
        fits: Whether a value is one.
        words: The same in words.
    """

    fits: Callable[[object], bool]
    words: str

    def of(self, *names: str) -> dict[str, Keys | Kind]:
        """Keys with values of this kind."""
        return dict.fromkeys(names, self)


def is_number(value: object, least: float, most: float) -> bool:
    """Whether a value is a number, no flag, in a range; NaN is in none."""
    return isinstance(value, (int, float)) and type(value) is not bool and least <= value <= most


def whole(least: int, most: int) -> Kind:
    """A whole number in a range."""
    return Kind(
        lambda value: isinstance(value, int) and is_number(value, least, most),
        f"a whole number from {least:,} to {most:,}",
    )


def number(least: float, most: float) -> Kind:
    """A number in a range."""
    return Kind(lambda value: is_number(value, least, most), f"a number from {least:g} to {most:g}")


def _one_or_list(one: Kind, lengths: tuple[int, ...]) -> Kind:
    return Kind(
        lambda value: (
            len(value) in lengths and all(map(one.fits, value))
            if isinstance(value, list)
            else one.fits(value)
        ),
        f"{one.words}, or a list of {' or '.join(map(str, lengths))} of them",
    )


_LONGEST = 500  # characters of a text
_FLAG = Kind(lambda value: isinstance(value, bool), "true or false")
_TEXT_VALUE = Kind(
    lambda value: isinstance(value, str) and len(value) <= _LONGEST,
    f"a text of at most {_LONGEST} characters",
)
# Bounds that no CLIP comes near; what is built within them is compared with the weights first.
COUNT = whole(1, 65_536)
LAYERS = whole(1, 1_000)
SIDE = whole(1, 4_096)  # pixels
CONTEXT = whole(1, 4_096)  # tokens
VOCABULARY = whole(1, 10_000_000)
TOKEN = whole(0, 10_000_000)
RATIO = number(1e-3, 1e3)
EPSILON = number(1e-12, 1.0)
_SHARE = number(0.0, 1.0)
_ANY_NUMBER = number(-1e6, 1e6)


_BLOCK: Keys = {
    **LAYERS.of("layers"),
    **COUNT.of("width"),
    **RATIO.of("mlp_ratio"),
    **number(0.0, 1e3).of("ls_init_value"),
    **_FLAG.of("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn"),
    **_FLAG.of("scale_fc", "final_ln_after_pool", "output_tokens"),
    **_TEXT_VALUE.of("block_type", "pool_type"),
    "act_kwargs": _TEXT_VALUE.of("approximate"),
    "norm_kwargs": EPSILON.of("eps"),
}
_VISION: Keys = {
    **_BLOCK,
    **_one_or_list(LAYERS, (4,)).of("layers"),  # a list is that of a ResNet's stages
    **COUNT.of("head_width", "attn_pooler_queries", "attn_pooler_heads"),
    **_one_or_list(SIDE, (2,)).of("patch_size", "image_size"),
    **_SHARE.of("patch_dropout", "timm_drop", "timm_drop_path"),
    **_FLAG.of("no_ln_pre", "timm_model_pretrained", "timm_proj_bias"),
    "attentional_pool": Kind(
        lambda value: isinstance(value, bool) or value in ("parallel", "cascade"),
        'true, false, "parallel" or "cascade"',
    ),
    **_TEXT_VALUE.of("pos_embed_type", "timm_model_name", "timm_pool", "timm_proj"),
}
_TEXT: Keys = {
    **_BLOCK,
    **CONTEXT.of("context_length"),
    **VOCABULARY.of("vocab_size"),
    **TOKEN.of("pad_id", "eos_id"),
    **COUNT.of("heads"),
    **_FLAG.of("embed_cls", "no_causal_mask", "proj_bias", "hf_model_pretrained"),
    **_TEXT_VALUE.of("proj_type", "hf_model_name", "hf_proj_type", "hf_pooler_type"),
    **_TEXT_VALUE.of("hf_tokenizer_name", "tokenizer_mode"),
    "tokenizer_kwargs": {
        **_TEXT_VALUE.of("clean", "language"),
        **_FLAG.of("strip_sep_token"),
    },
}
_KEYS: Keys = {
    "model_cfg": {
        **COUNT.of("embed_dim"),
        **_FLAG.of("quick_gelu", "custom_text", "output_dict", "nonscalar_logit_scale"),
        **_ANY_NUMBER.of("init_logit_scale", "init_logit_bias"),
        "vision_cfg": _VISION,
        "text_cfg": _TEXT,
        "multimodal_cfg": {**_TEXT, **COUNT.of("dim_head", "n_queries", "attn_pooler_heads")},
    },
    "preprocess_cfg": {
        **_one_or_list(SIDE, (2,)).of("size"),
        # The others are checked with what stands for them where nothing is said.
        **Kind(lambda _: True, "").of(
            "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"
        ),
    },
}

INTERPOLATIONS = ("bicubic", "bilinear", "random")  # the last in training, bicubic otherwise
RESIZE_MODES = ("shortest", "longest", "squash")


@dataclass(frozen=True)
class ClipConfig:
    """What a CLIP is built from beside its weights.

    Attributes:
        model: open_clip's ``model_cfg``.
        preprocess: open_clip's ``preprocess_cfg``, complete but for the size.
    """

    model: dict[str, Any]
    preprocess: dict[str, Any]


def read_open_clip_config(path: Path) -> ClipConfig:
    """Read the configuration of a CLIP's folder.

    Args:
        path: An ``open_clip_config.json``.

    Returns:
        The configuration. It loads no weights of a single tower.

    Raises:
        CheckpointError: If it is no such file, or has a key or value that is not accepted.
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
            "is accepted, as others would be fetched or read from elsewhere."
        )
    return ClipConfig(model, complete_preprocess(content.get("preprocess_cfg") or {}, path))


def check_keys(content: Mapping[str, Any], keys: Keys, path: Path, within: str = "") -> None:
    """Accept only keys that are listed, at every depth, with values of their kind, or null.

    Args:
        content: An object of a JSON file.
        keys: Those that it may have.
        path: The file, for the message.
        within: Where in the file the object stands, with a dot at its end.

    Raises:
        CheckpointError: If there is another key, or another kind of value.
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
    """The error for a key that is not accepted."""
    return CheckpointError(
        f"The file {path} has the key {key}, which is refused, as a model's file may only have "
        "keys that are known to run no code and to reach no network; delete the key, or use the "
        "file that came with the model."
    )


def complete_preprocess(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """How images are prepared, with open_clip's values where nothing is said.

    Raises:
        CheckpointError: If a value is not one that is supported.
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


def _is_triple(value: object, least: float, most: float) -> bool:
    """Whether a value is three numbers in a range."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    return all(is_number(entry, least, most) for entry in value)
