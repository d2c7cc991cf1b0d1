"""Construction of a CLIP from a configuration and weights, with a report of mismatches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ..weights import check_floats, name_faults
from .architectures import fitting_architectures
from .config_file import ClipConfig
from .package import in_one_line, open_clip_package
from .text_files import local_tower

_SIZE_MARGIN = 1 << 24  # parameters that a model may have beyond twice its weights
_POSITION_IDS = "text.transformer.embeddings.position_ids"  # older transformers kept them


def build_clip(
    config: ClipConfig, state: Mapping[str, Tensor], path: Path, folder: Path
) -> nn.Module:
    """Build an open_clip model with its weights; the global generator is not advanced.

    Args:
        config: Configuration of the model.
        state: Weights under open_clip's names.
        path: File of the weights, for messages.
        folder: Folder of the text tower's configuration, if it has one.

    Returns:
        The model on the CPU, in float32; its ``visual.preprocess_cfg`` is complete.

    Raises:
        CheckpointError: If the configuration cannot be built, or the weights do not fit it.
    """
    open_clip = open_clip_package()
    _check_size(config.model, state, path)
    with local_tower(config.model["text_cfg"], folder) as text, torch.random.fork_rng(devices=[]):
        try:
            model: nn.Module = _empty_model({**config.model, "text_cfg": text})
        except Exception as error:  # invalid shapes raise errors of many kinds
            raise CheckpointError(
                f"open_clip {open_clip.__version__} cannot build the CLIP of {path} from its "
                f"configuration ({in_one_line(error)}); use the one that came with "
                "the weights."
            ) from error
    _load(model, state, path)
    size = model.visual.image_size  # type: ignore[union-attr]
    open_clip.model.set_model_preprocess_cfg(model, {**config.preprocess, "size": size})
    return model


def _check_size(config: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a configuration with far more parameters than its weights, which may fill memory."""
    towers = (config.get(part) for part in ("vision_cfg", "text_cfg", "multimodal_cfg"))
    expected = sum(
        _min_parameters(tower, config.get("embed_dim") or 0) for tower in towers if tower
    )
    given = sum(tensor.numel() for tensor in state.values())
    if expected > 2 * given + _SIZE_MARGIN:
        raise CheckpointError(
            f"The configuration of the CLIP of {path} asks for more than {expected:,} parameters, "
            f"but its weights have {given:,}; use the one that came with the weights."
        )


def _min_parameters(tower: Mapping[str, Any], embed_dim: int) -> int:
    """Estimate a lower bound of an open_clip tower's parameters; 0 for other libraries' towers."""
    if "timm_model_name" in tower or "hf_model_name" in tower:
        return 0
    width, layers = tower.get("width") or 1, tower.get("layers") or 1
    if isinstance(layers, list):  # a ResNet's blocks; each stage doubles the width
        return sum(13 * count * (width << stage) ** 2 for stage, count in enumerate(layers))
    ratio = 4.0 if tower.get("mlp_ratio") is None else tower["mlp_ratio"]
    total = layers * (4 + 2 * ratio) * width**2
    if tower.get("proj_type", "linear") == "linear":
        total += embed_dim * width
    if tower.get("patch_size") and tower.get("image_size"):
        images, patches = (
            size if isinstance(size, list) else [size, size]
            for size in (tower["image_size"], tower["patch_size"])
        )
        places = math.prod(max(1, a // b) for a, b in zip(images, patches, strict=True))
        total += (places + 3 * math.prod(patches)) * width
    rows = (tower.get("vocab_size") or 0) + (tower.get("context_length") or 0)
    return int(total + rows * width)


def _empty_model(config: dict[str, Any]) -> Any:  # noqa: ANN401
    """Build the model of a ``model_cfg``, of the class that open_clip chooses."""
    open_clip = open_clip_package()
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"] = {**config["vision_cfg"], "timm_model_pretrained": False}
    if not custom:
        return open_clip.CLIP(**config)
    if "multimodal_cfg" in config:
        return open_clip.CoCa(**config)
    return open_clip.CustomTextCLIP(**config)


def _load(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights strictly, after open_clip's own conversions.

    Raises:
        CheckpointError: If names are missing or unexpected, or shapes differ.
    """
    own = model.state_dict()
    state = _converted(model, own, dict(state))
    shapes = {
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    }
    faults = name_faults(own.keys(), state.keys(), shapes)
    if faults:
        fitting = fitting_architectures(state)
        hint = f"they fit {' or '.join(fitting)}" if fitting else "use those of the same model"
        raise CheckpointError(
            f"The weights in {path} do not fit the CLIP that they are loaded as: {faults}; {hint}."
        )
    # Integer buffers of the model may be integers in the file.
    check_floats({name: state[name] for name in own if own[name].is_floating_point()}, path)
    model.load_state_dict(state)


def _converted(
    model: nn.Module, own: Mapping[str, Tensor], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Convert older and foreign names of weights to those of the model."""
    open_clip = open_clip_package()
    state = dict(open_clip.convert.convert_state_dict(model, state))
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):  # features do not depend on them
        if name in own and name in state and state[name].numel() == own[name].numel():
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own:
        state.setdefault("logit_bias", torch.zeros_like(own["logit_bias"]))
    return {name: state[name] for name in state if name in own or not _is_buffer(name)}


def _is_buffer(name: str) -> bool:
    """Return whether a tensor is a non-persistent buffer, which old files and archives have."""
    return name == _POSITION_IDS or name.endswith("attn_mask")
