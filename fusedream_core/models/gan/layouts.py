"""Layouts of public conversions of the original BigGAN.

All originate in the same TensorFlow release or training code. They differ in names, in the order of
some rows and columns, and in the form of spectral normalisation. Names identify the layout.

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


@dataclass(frozen=True, slots=True)
class Spectral:
    """Storage of a weight and its largest singular value, as suffixes of a layer's name."""

    weight: str
    bias: str
    vectors: tuple[str, ...]  # inputs of sigma
    sigma: Callable[..., Tensor]  # function of the stored weight and the vectors
    ignored: tuple[str, ...] = ()

    def fold(self, state: State, name: str) -> Tensor:
        """Return a layer's weight divided by its largest singular value."""
        weight = state[name + self.weight]
        vectors = (state[name + suffix].flatten() for suffix in self.vectors)
        return weight / self.sigma(weight, *vectors)


def _one_step(weight: Tensor, u: Tensor, unit: Callable[[Tensor], Tensor]) -> Tensor:
    """Return sigma after one power iteration from the stored left vector."""
    matrix = weight.flatten(1)
    v = unit(u @ matrix)
    return unit(matrix @ v) @ (matrix @ v)


def _as_stored(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return sigma from both stored vectors; the right one has the channels last."""
    matrix = weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
    return u @ (matrix @ v)


def _as_trained(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return sigma from both vectors that PyTorch stores."""
    return u @ (weight.flatten(1) @ v)


def _one(weight: Tensor) -> Tensor:
    """Return 1, for weights without spectral normalisation."""
    return weight.new_ones(())


# Alternatives to a layout's own form: PyTorch's, an option of OpenMMLab, and none.
_TORCH_SPECTRAL = Spectral(".weight_orig", ".bias", (".weight_u", ".weight_v"), _as_trained)
_NO_SPECTRAL = Spectral(".weight", ".bias", (), _one)
_VECTORS = (".u0", ".weight_u", ".weight_v")  # suffixes of vectors of spectral normalisation

_AJBROCK_SPECTRAL = Spectral(
    ".weight", ".bias", (".u0",), partial(_one_step, unit=partial(F.normalize, dim=0)), (".sv0",)
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names in a state dict.

    Attributes:
        title: Project of the layout.
        block: Name of the block at a position.
        attention: Name of the attention at a position, or after the block there; constant if the
            name has no position.
        layers: Names within a block: two convolutions, the skip, gain and offset of both
            normalisations.
        norms: Names within a block: both normalisations with statistics.
        statistics: Suffixes of mean and variance, in order of preference.
        queries: Names within attention: theta, phi, g and out.
        classes: Class embeddings.
        first: First layer.
        last: Normalisation after the last block; suffixes of its gain and offset.
        rgb: Last convolution.
        spectral: Storage of weights.
        z_first: Whether conditions are (z, y) instead of (y, z).
        rows_last: Whether the output of the first layer is ``(4, 4, C)``.
        eps: Epsilon of the normalisations, in files converted from the release.
        ignored: Suffixes of unused tensors.
        trained_eps: Epsilon in files of the layout's own training; None if it is the same.
    """

    title: str
    block: Callable[[int], str]
    attention: Callable[[int], str]
    layers: tuple[str, ...]
    norms: tuple[str, str]
    statistics: tuple[tuple[str, str], ...]
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
    trained_eps: float | None = None

    def eps_of(self, state: State) -> float:
        """Return the epsilon of a file's normalisations.

        The singular values ``sv0`` are updated in training, and are 1 in a converted file.
        """
        values = [tensor for name, tensor in state.items() if name.endswith(".sv0")]
        trained = any(bool((tensor != 1.0).any()) for tensor in values)
        return self.trained_eps if trained and self.trained_eps is not None else self.eps

    def spectral_of(self, state: State) -> Spectral:
        """Return the storage of a file's weights: the layout's, PyTorch's, or plain."""
        if self.first + self.spectral.weight not in state:
            return _TORCH_SPECTRAL if self.first + _TORCH_SPECTRAL.weight in state else _NO_SPECTRAL
        plain = self.spectral.weight == _NO_SPECTRAL.weight
        return (
            _NO_SPECTRAL
            if plain and not any(k.endswith(_VECTORS) for k in state)
            else self.spectral
        )


LAYOUTS = (
    Layout(
        title="FuseDream and ajbrock/BigGAN-PyTorch",
        block=lambda i: f"blocks.{i}.0",
        attention=lambda i: f"blocks.{i}.1",
        layers=("conv1", "conv2", "conv_sc", "bn1.gain", "bn1.bias", "bn2.gain", "bn2.bias"),
        norms=("bn1", "bn2"),
        statistics=(
            (".stored_mean", ".stored_var"),
            (".bn.running_mean", ".bn.running_var"),  # synchronised over several devices
            (".bn.stored_mean", ".bn.stored_var"),  # "mybn"
        ),
        queries=("theta", "phi", "g", "o"),
        classes="shared.weight",
        first="linear",
        last=("output_layer.0", ".gain", ".bias"),
        rgb="output_layer.2",
        spectral=_AJBROCK_SPECTRAL,
        z_first=False,
        rows_last=False,
        eps=1e-4,  # of the release; FuseDream's script uses 1e-5
        trained_eps=1e-5,
        ignored=(".bn.num_batches_tracked", ".bn.accumulation_counter"),
    ),
    Layout(
        title="ivclab/BigGAN-Generator-Pretrained-Pytorch",
        block=lambda i: f"gblock_{i}" if i else "gblock",
        attention=lambda _: "attention",
        layers=(
            *("conv0", "conv1", "conv_sc", "hyperbn.gamma", "hyperbn.beta"),
            *("hyperbn_1.gamma", "hyperbn_1.beta"),
        ),
        norms=("hyperbn.crossreplicabn", "hyperbn_1.crossreplicabn"),
        statistics=((".standing_means", ".standing_vars"),),
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
        block=lambda i: f"GBlock.{i}",
        attention=lambda _: "attention",
        layers=(
            *("conv0", "conv1", "conv_sc", "HyperBN.gamma_embed", "HyperBN.beta_embed"),
            *("HyperBN_1.gamma_embed", "HyperBN_1.beta_embed"),
        ),
        norms=("HyperBN.bn", "HyperBN_1.bn"),
        statistics=((".running_mean", ".running_var"),),
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
        block=lambda i: f"conv_blocks.{i}",  # attention is counted with the blocks
        attention=lambda i: f"conv_blocks.{i}",
        layers=(
            *("conv1.conv", "conv2.conv", "shortcut.conv"),
            *("bn1.gain", "bn1.bias", "bn2.gain", "bn2.bias"),
        ),
        norms=("bn1.bn", "bn2.bn"),
        statistics=((".running_mean", ".running_var"),),
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
    """Return the layout of a state dict, by the names of its first layers, or None."""
    for layout in LAYOUTS:
        if layout.classes in state and has_first(layout, state):
            return layout
    return None


def has_first(layout: Layout, state: State) -> bool:
    """Return whether a state dict has a layout's first layer, in any storage."""
    kinds = (layout.spectral, _TORCH_SPECTRAL, _NO_SPECTRAL)
    return any(layout.first + kind.weight in state for kind in kinds)
