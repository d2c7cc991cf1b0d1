"""Weights of BigGAN-deep with the names of the package or OpenMMLab, and their configs.

References:
    huggingface/pytorch-pretrained-BigGAN (``model.py``, ``config.py``); open-mmlab/mmgeneration
    (``architectures/biggan/generator_discriminator_deep.py``), whose weights were converted from
    the package's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import CheckpointError, MissingDependencyError
from ..weights import load_weights

if TYPE_CHECKING:
    from pytorch_pretrained_biggan import BigGAN

State = Mapping[str, Tensor]

_PACKAGE = ("generator.gen_z.", "generator.layers.0.")
_MMLAB = "conv_blocks.0.conv4."  # the original BigGAN has no such layer
_LAYER = re.compile(r"generator\.layers\.(\d+)\.")
_MMLAB_NAMES = (  # in order of replacement
    (r"^noise2feat\.", "generator.gen_z."),
    (r"^shared_embedding\.", "embeddings."),
    (r"^output_layer\.bn\.", "generator.bn."),
    (r"^output_layer\.conv\.", "generator.conv_to_rgb."),
    (r"^conv_blocks\.", "generator.layers."),
    (r"\.(theta|phi|g)\.conv\.", r".snconv1x1_\1."),
    (r"\.o\.conv\.", ".snconv1x1_o_conv."),
    (r"\.gain\.", ".scale."),
    (r"(\.bn\d)\.bias\.", r"\1.offset."),
    (r"(\.bn\d)\.bn\.", r"\1."),
    (r"(conv\d)\.conv\.", r"\1."),
    (r"running_mean$", "running_means"),
    (r"running_var$", "running_vars"),
)


_TO_16, _LAST = [(16, 16), (16, 16), (16, 16), (16, 8), (8, 8)], [(4, 4), (4, 2), (2, 2), (2, 1)]
_RELEASED = (  # input and output channels of the blocks, in units of the last block's
    [*_TO_16, (8, 4), *_LAST],
    [*_TO_16, (8, 8), (8, 8), (8, 4), *_LAST],
    [*_TO_16, (8, 8), (8, 8), (8, 4), *_LAST, (1, 1), (1, 1)],
)
_ATTENTION_AFTER = 8  # blocks


def is_deep(state: State) -> bool:
    """Return whether a state dict is a BigGAN-deep of the package or OpenMMLab."""
    return any(name.startswith((*_PACKAGE, _MMLAB)) for name in state)


def is_openmmlab_deep(state: State) -> bool:
    """Return whether a state dict is a BigGAN-deep of OpenMMLab."""
    return any(name.startswith(_MMLAB) for name in state)


def as_package(state: State) -> dict[str, Tensor]:
    """Convert a state dict to the package's names; unknown names are unchanged."""
    if not is_openmmlab_deep(state):
        return dict(state)
    renamed = {
        _package_name(name): tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    for name, tensor in renamed.items():
        if name == "embeddings.weight":
            renamed[name] = tensor.T
        elif name.endswith(("running_means", "running_vars")):
            renamed[name] = tensor.expand(2, -1)  # the same for all truncations
        elif name.endswith(".gamma"):
            renamed[name] = tensor.reshape(1)
        elif name.startswith("generator.conv_to_rgb.") and not name.endswith("weight_v"):
            # The package computes more than three channels and drops the others.
            more = _width(renamed) - len(tensor)
            renamed[name] = F.pad(tensor, (0,) * (2 * tensor.ndim - 1) + (more,))
    return renamed


def _package_name(name: str) -> str:
    """Convert an OpenMMLab name to the package's, which counts layers of a block from 0."""
    for pattern, ours in _MMLAB_NAMES:
        name = re.sub(pattern, ours, name)
    return re.sub(r"\.(bn|conv)(\d)\.", lambda m: f".{m[1]}_{int(m[2]) - 1}.", name)


def _width(state: State) -> int:
    """Return the number of channels after the last layer."""
    return int(state["generator.bn.weight"].shape[0])


def settings_of(state: State, path: Path) -> dict[str, Any]:
    """Return the ``BigGANConfig`` fields of weights of a released shape, of any width.

    Weights do not determine the blocks that double the side; in the released models, every second
    block does.

    Args:
        state: State dict under the package's names.
        path: The file, for messages.

    Raises:
        CheckpointError: If the weights are incomplete, or of another shape.
    """
    try:
        width, layers, position = _width(state), list[tuple[int, int]](), 0
        numbers = sorted({int(m[1]) for m in map(_LAYER.match, state) if m})
        for number in numbers:
            prefix = f"generator.layers.{number}."
            if f"{prefix}gamma" in state:
                position = number
                continue
            channels_in = state[f"{prefix}conv_0.weight_orig"].shape[1]
            channels_out = state[f"{prefix}conv_3.weight_orig"].shape[0]
            layers.append((channels_in // width, channels_out // width))
        if layers not in _RELEASED or position != _ATTENTION_AFTER:
            raise CheckpointError(
                f"The weights in {path} are a BigGAN-deep of no released shape; put the "
                "config.json that came with them and the weights into a folder of their own."
            )
        dim_z, num_classes = state["embeddings.weight"].shape
        return {
            "output_dim": 4 * 2 ** (len(layers) // 2),
            "z_dim": dim_z,
            "class_embed_dim": dim_z,
            "channel_width": width,
            "num_classes": num_classes,
            "layers": [[index % 2 == 1, *widths] for index, widths in enumerate(layers)],
            "attention_layer_position": position,
            "eps": 1e-4,
            "n_stats": len(state["generator.bn.running_means"]),
        }
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"The weights in {path} are a part of a BigGAN-deep only ({error} is not as it should "
            "be); use a whole file."
        ) from error


def make_network(settings: Mapping[str, Any], state: State, path: Path) -> BigGAN:
    """Build the package's network with the given tensors as weights, without copies.

    Names and shapes are checked before memory is allocated.

    Args:
        settings: Fields of ``BigGANConfig``.
        state: State dict under the package's names.
        path: The file, for messages.

    Raises:
        CheckpointError: If the settings do not describe a network, or the weights do not fit it.
        MissingDependencyError: If the package is not installed.
    """
    try:
        from pytorch_pretrained_biggan import BigGAN, BigGANConfig
    except ImportError as error:
        raise MissingDependencyError.of(
            "pytorch_pretrained_biggan", "BigGAN", "pytorch-pretrained-biggan"
        ) from error
    try:
        config = BigGANConfig(**settings)
        if config.n_stats < 2:
            raise ValueError("n_stats must be at least 2")
        with torch.device("meta"):
            network = BigGAN(config)
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"The config of {path} does not describe a BigGAN ({error}); use the one that came "
            "with the weights."
        ) from error
    load_weights(network, state, path)
    return network.eval()
