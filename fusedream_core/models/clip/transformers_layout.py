"""CLIPs in the format of transformers (``CLIPModel``): configuration, weights, preprocessing.

Neither classes of transformers nor code of the folder is loaded. The towers equal those of
open_clip under other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..weights import check_floats, read_json
from .architectures import preprocess_of_shapes
from .config_file import COUNT, ClipConfig, complete_preprocess, refused_key
from .transformers_values import read_part, refused_value

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"

# Defaults of transformers.
_COMMON = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
_TEXT: dict[str, Any] = {
    **_COMMON,
    **{"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "eos_token_id": 49407},
    **{"num_attention_heads": 8, "max_position_embeddings": 77},
}
_VISION: dict[str, Any] = {
    **_COMMON,
    **{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    **{"image_size": 224, "patch_size": 32, "num_channels": 3},
}
_ACTIVATIONS: dict[str, dict[str, str] | None] = {
    "quick_gelu": None,
    "gelu": None,
    "gelu_new": {"approximate": "tanh"},
    "gelu_pytorch_tanh": {"approximate": "tanh"},
    "gelu_fast": {"approximate": "tanh"},
}
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # by Pillow's numbers
_OWN_VOCABULARY = 49408  # tokens of open_clip's default tokenizer
_OLD_EOS = 2  # in old configurations, with a wrong id

_EMBEDDINGS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "logit_scale": "logit_scale",
}
_PROJECTIONS = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_MODULES = {
    "text_model.final_layer_norm": "ln_final",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
}
_TOWERS = {"text_model": "transformer", "vision_model": "visual.transformer"}
_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_LAYER = re.compile(r"(text_model|vision_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def is_transformers_layout(names: Mapping[str, Any] | frozenset[str]) -> bool:
    """Return whether these are names of a transformers CLIP, or of one of its towers."""
    return any(name.startswith(("text_model.", "vision_model.")) for name in names)


def to_open_clip_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Convert the weights of a ``CLIPModel`` to open_clip's names and fused projections.

    Args:
        state: Weights under transformers' names.
        path: File of the weights, for messages.

    Returns:
        Weights under open_clip's names.

    Raises:
        CheckpointError: If a tower is missing, or a name is of another model.
    """
    for tower, word in (("text_model.", "text"), ("vision_model.", "image")):
        if not any(name.startswith(tower) for name in state):
            raise CheckpointError(
                f"The file {path} holds a CLIP of transformers without its {word} tower, but both "
                "are needed to compare images with text; use the weights of a whole CLIPModel."
            )
    check_floats(state, path)
    converted: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.endswith("embeddings.position_ids"):  # a buffer of older versions
            continue
        layer = _LAYER.fullmatch(name)
        if layer is None:
            converted[_outer_name(name, path)] = tensor.T if name in _PROJECTIONS else tensor
            continue
        tower, number, module, kind = layer.groups()
        block = f"{_TOWERS[tower]}.resblocks.{number}"
        if module in _BLOCK:
            converted[f"{block}.{_BLOCK[module]}.{kind}"] = tensor
        else:
            joined.setdefault(f"{block}.attn.in_proj_{kind}", {})[module] = tensor
    for name, parts in joined.items():
        wanted = [f"self_attn.{part}_proj" for part in "qkv"]
        if sorted(parts) != sorted(wanted):
            raise _unknown(f"{name} from {', '.join(sorted(parts))}", path)
        converted[name] = torch.cat([parts[part] for part in wanted])
    return converted


def read_transformers_config(folder: Path, state: Mapping[str, Tensor]) -> ClipConfig:
    """Read the configuration of a ``CLIPModel`` folder of transformers.

    Args:
        folder: Folder with ``config.json`` and optionally ``preprocessor_config.json``.
        state: Weights, under open_clip's names.

    Returns:
        The equivalent configuration of open_clip.

    Raises:
        CheckpointError: If it is of another model, needs code, or has no equivalent.
    """
    path = folder / CONFIG_NAME
    content = read_json(path)
    if "auto_map" in content:
        raise refused_key(path, "auto_map")
    if content.get("model_type") != "clip":
        raise CheckpointError(
            f"The file {path} is of the model type {content.get('model_type')!r}, but of "
            "transformers' models only 'clip' (CLIPModel) can be loaded; use the model's files for "
            "open_clip."
        )
    text, vision = (
        read_part(content, key, defaults, path)
        for key, defaults in (("text_config", _TEXT), ("vision_config", _VISION))
    )
    embed_dim = content.get("projection_dim", 512)
    if not COUNT.fits(embed_dim):
        raise refused_value(path, "projection_dim", embed_dim, COUNT.words)
    try:
        model = _model(embed_dim, text, vision, path)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"The file {path} has a value of the wrong kind ({error}); copy it again."
        ) from error
    return ClipConfig(model, _preprocess(folder, vision["image_size"], state, model))


def _model(embed_dim: int, text: dict[str, Any], vision: dict[str, Any], path: Path) -> Any:  # noqa: ANN401
    """Return open_clip's ``model_cfg``."""
    quick = {part["hidden_act"] == "quick_gelu" for part in (text, vision)}
    unknown = {part["hidden_act"] for part in (text, vision)} - _ACTIVATIONS.keys()
    if unknown or len(quick) > 1:
        raise CheckpointError(
            f"The file {path} has the activations {text['hidden_act']!r} and "
            f"{vision['hidden_act']!r}, but quick_gelu in both towers or other kinds of gelu are "
            "supported; use another CLIP."
        )
    text_cfg = {
        **_tower(text),
        "context_length": text["max_position_embeddings"],
        "vocab_size": text["vocab_size"],
        "heads": text["num_attention_heads"],
    }
    if text["vocab_size"] != _OWN_VOCABULARY:
        text_cfg["hf_tokenizer_name"] = "CLIPTokenizer"
        if text["eos_token_id"] != _OLD_EOS:
            text_cfg.update(pool_type="eos", eos_id=text["eos_token_id"])
    vision_cfg = {
        **_tower(vision),
        "head_width": vision["hidden_size"] // vision["num_attention_heads"],
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
    }
    return {
        "embed_dim": embed_dim,
        "quick_gelu": quick == {True},
        "text_cfg": text_cfg,
        "vision_cfg": vision_cfg,
    }


def _tower(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings common to both towers."""
    width, inner = part["hidden_size"], part["intermediate_size"]
    return {
        "width": width,
        "layers": part["num_hidden_layers"],
        # open_clip truncates the product to an integer; the half guards against rounding
        "mlp_ratio": (inner + 0.5) / width,
        "norm_kwargs": {"eps": part["layer_norm_eps"]},
        "act_kwargs": _ACTIVATIONS[part["hidden_act"]],
    }


def _preprocess(
    folder: Path, size: int, state: Mapping[str, Tensor], model: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the preprocessing of the folder, else of open_clip's tables, else the default."""
    path = folder / PREPROCESSOR_NAME
    if path.is_file():
        return complete_preprocess(_preprocess_of_file(path, size), path)
    ways = preprocess_of_shapes(state, quick=model["quick_gelu"])
    if len(ways) > 1:
        raise CheckpointError(
            f"The folder {folder} has no {PREPROCESSOR_NAME}, and images are prepared in "
            f"{len(ways)} ways for CLIPs of this shape; put the model's {PREPROCESSOR_NAME} there."
        )
    return complete_preprocess(ways[0] if ways else {}, path)


def _preprocess_of_file(path: Path, size: int) -> dict[str, Any]:
    """Convert a ``preprocessor_config.json`` to open_clip's format."""
    content = read_json(path)
    if "auto_map" in content:
        raise refused_key(path, "auto_map")
    resized, cropped = (_sides(content.get(key, size)) for key in ("size", "crop_size"))
    crops, resample = content.get("do_center_crop", True), content.get("resample", 3)
    plain = content.get("do_normalize", True) is False
    fits = cropped in ((size,), (size, size))
    shortest = resized == (size,) and crops and fits
    squash = resized == (size, size) and (fits or not crops)
    done = all(content.get(step, True) for step in ("do_resize", "do_rescale"))
    if resample not in tuple(_INTERPOLATIONS) or not (done and (shortest or squash)):
        raise CheckpointError(
            f"The file {path} has the size {content.get('size')}, the crop_size "
            f"{content.get('crop_size')} and resample {resample}, but a model of {size} pixels is "
            f"supported with {size} for both, resample 2 or 3, do_resize and do_rescale; use "
            "another CLIP."
        )
    return {
        "mean": [0.0] * 3 if plain else content.get("image_mean"),
        "std": [1.0] * 3 if plain else content.get("image_std"),
        "interpolation": _INTERPOLATIONS[resample],
        "resize_mode": "shortest" if shortest else "squash",
    }


def _sides(size: object) -> tuple[object, ...]:
    """Return one number for the shortest side, or height and width."""
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return (size["shortest_edge"],)
        return (size.get("height"), size.get("width"))
    return (size,)


def _outer_name(name: str, path: Path) -> str:
    """Return open_clip's name of a tensor outside of the transformer layers."""
    known = {**_EMBEDDINGS, **_PROJECTIONS}
    module, _, kind = name.rpartition(".")
    if name in known:
        return known[name]
    if module in _MODULES:
        return f"{_MODULES[module]}.{kind}"
    raise _unknown(name, path)


def _unknown(name: str, path: Path) -> CheckpointError:
    return CheckpointError(
        f"The file {path} has the names of a CLIP of transformers, but {name} is of another model; "
        "use the weights of a CLIPModel."
    )
