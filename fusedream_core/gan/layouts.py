"""The public conversions of the original BigGAN: who names its weights how.

All come from the same release for TensorFlow, or from training by the same code, and differ in
names, in the order of some rows and columns, and in how spectral normalisation is stored. Which one
a file has is seen from its names.

References:
    gnobitab/FuseDream and ajbrock/BigGAN-PyTorch (``BigGAN.py``, ``layers.py``);
    ivclab/BigGAN-Generator-Pretrained-Pytorch (``src/``); LoreGoetschalckx/GANalyze
    (``pytorch/generators/biggan.py``); open-mmlab/mmgeneration (``architectures/biggan/``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
MOST_BLOCKS = 16  # more than any has


@dataclass(frozen=True, slots=True)
class Spectral:
    """How a weight and its largest singular value are stored, as suffixes of a layer's name."""

    weight: str
    bias: str
    vectors: tuple[str, ...]  # what sigma is worked out from
    sigma: Callable[..., Tensor]  # of the weight as stored and the vectors
    ignored: tuple[str, ...] = ()

    def fold(self, state: State, name: str) -> Tensor:
        """A layer's weight divided by its largest singular value."""
        weight = state[name + self.weight]
        vectors = (state[name + suffix].flatten() for suffix in self.vectors)
        return weight / self.sigma(weight, *vectors)


def _one_step(weight: Tensor, u: Tensor, unit: Callable[[Tensor], Tensor]) -> Tensor:
    """Sigma after one step of power iteration from the stored left vector."""
    matrix = weight.flatten(1)
    v = unit(u @ matrix)
    return unit(matrix @ v) @ (matrix @ v)


def _as_stored(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Sigma by both stored vectors; the right one has the channels last."""
    matrix = weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
    return u @ (matrix @ v)


_AJBROCK_SPECTRAL = Spectral(
    ".weight", ".bias", (".u0",), partial(_one_step, unit=partial(F.normalize, dim=0)), (".sv0",)
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names in a state dict: ``{i}`` is a block's index, ``{b}`` its name.

    Attributes:
        title: Whose it is.
        block: A block's name, from its index and that of the block before attention.
        attention: The name of the attention after a block.
        layers: Names within a block: two convolutions, the skip, gain and offset of both
            normalisations.
        norms: Names within a block: where the statistics of both normalisations are.
        statistics: Suffixes of mean and variance.
        queries: Names within attention: theta, phi, g and out.
        classes: The class embeddings.
        first: The first layer.
        last: The normalisation after the last block; suffixes of its gain and offset.
        rgb: The last convolution.
        spectral: How weights are stored.
        z_first: Whether conditions are z and y beside each other, instead of y and z.
        rows_last: Whether the first layer makes ``(4, 4, C)``.
        eps: Of the normalisations.
        ignored: Suffixes of what is stored and not used.
    """

    title: str
    block: Callable[[int, int], str]
    attention: Callable[[int], str]
    layers: tuple[str, ...]
    norms: tuple[str, str]
    statistics: tuple[str, str]
    queries: tuple[str, str, str, str]
    classes: str
    first: str
    last: tuple[str, str, str]
    rgb: str
    spectral: Spectral
    z_first: bool
    rows_last: bool
    eps: float
    ignored: tuple[str, ...] = ()


LAYOUTS = (
    Layout(
        title="FuseDream and ajbrock/BigGAN-PyTorch",
        block=lambda i, _: f"blocks.{i}.0",
        attention=lambda after: f"blocks.{after}.1",
        layers=("conv1", "conv2", "conv_sc", "bn1.gain", "bn1.bias", "bn2.gain", "bn2.bias"),
        norms=("bn1", "bn2"),
        statistics=(".stored_mean", ".stored_var"),
        queries=("theta", "phi", "g", "o"),
        classes="shared.weight",
        first="linear",
        last=("output_layer.0", ".gain", ".bias"),
        rgb="output_layer.2",
        spectral=_AJBROCK_SPECTRAL,
        z_first=False,
        rows_last=False,
        eps=1e-4,  # that of the release; FuseDream's own script runs it with 1e-5
    ),
    Layout(
        title="ivclab/BigGAN-Generator-Pretrained-Pytorch",
        block=lambda i, _: f"gblock_{i}" if i else "gblock",
        attention=lambda _: "attention",
        layers=(
            *("conv0", "conv1", "conv_sc", "hyperbn.gamma", "hyperbn.beta"),
            *("hyperbn_1.gamma", "hyperbn_1.beta"),
        ),
        norms=("hyperbn.crossreplicabn", "hyperbn_1.crossreplicabn"),
        statistics=(".standing_means", ".standing_vars"),
        queries=("theta", "phi", "g", "o_conv"),
        classes="linear.weight",
        first="g_z.g_linear",
        last=("scaledcrossreplicabn", ".weight", ".bias"),
        rgb="conv_2d",
        spectral=Spectral(".weight_orig", ".bias", (".weight_u", ".weight_v"), _as_stored),
        z_first=True,
        rows_last=True,
        eps=1e-4,
        ignored=(".running_mean", ".running_var", ".num_batches_tracked"),
    ),
    Layout(
        title="GANalyze",
        block=lambda i, _: f"GBlock.{i}",
        attention=lambda _: "attention",
        layers=(
            *("conv0", "conv1", "conv_sc", "HyperBN.gamma_embed", "HyperBN.beta_embed"),
            *("HyperBN_1.gamma_embed", "HyperBN_1.beta_embed"),
        ),
        norms=("HyperBN.bn", "HyperBN_1.bn"),
        statistics=(".running_mean", ".running_var"),
        queries=("theta", "phi", "g", "o_conv"),
        classes="linear.weight",
        first="G_linear",
        last=("ScaledCrossReplicaBN", ".weight", ".bias"),
        rgb="colorize",
        spectral=Spectral(
            ".module.weight_bar",
            ".module.bias",
            (".module.weight_u",),
            partial(_one_step, unit=lambda x: x / (x.norm() + 1e-4)),
            (".module.weight_v",),
        ),
        z_first=True,
        rows_last=True,
        eps=1e-4,
        ignored=(".num_batches_tracked",),
    ),
    Layout(
        title="OpenMMLab",
        block=lambda i, after: f"conv_blocks.{i + (i > after)}",
        attention=lambda after: f"conv_blocks.{after + 1}",
        layers=(
            *("conv1.conv", "conv2.conv", "shortcut.conv"),
            *("bn1.gain", "bn1.bias", "bn2.gain", "bn2.bias"),
        ),
        norms=("bn1.bn", "bn2.bn"),
        statistics=(".running_mean", ".running_var"),
        queries=("theta.conv", "phi.conv", "g.conv", "o.conv"),
        classes="shared_embedding.weight",
        first="noise2feat",
        last=("output_layer.bn", ".weight", ".bias"),
        rgb="output_layer.conv",
        spectral=_AJBROCK_SPECTRAL,
        z_first=False,
        rows_last=False,
        eps=1e-5,
        ignored=(".num_batches_tracked",),
    ),
)


def find_layout(state: State) -> Layout | None:
    """The layout that a state dict's first layers are named by, if there is one."""
    for layout in LAYOUTS:
        if {layout.classes, layout.first + layout.spectral.weight} <= state.keys():
            return layout
    return None
