"""Conversion of state dicts of an original BigGAN, in any layout, to ``OriginalWeights``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..weights import name_faults, reading
from .biggan_original import AttentionWeights, BlockWeights, Layer, NormWeights, OriginalWeights
from .layouts import LAYOUTS, Layout, State, find_layout
from .ops import channels_first
from .variants import name_variant


def read_original(state: State, path: Path, *, eps: float | None = None) -> OriginalWeights:
    """Read the weights of an original BigGAN in any of the layouts.

    Args:
        state: All tensors of the file.
        path: The file, for messages.
        eps: Epsilon of the normalisations; None means the file's, see ``Layout.eps_of``.

    Raises:
        CheckpointError: If names are missing, unexpected or of no layout, or shapes do not fit.
    """
    layout = find_layout(state)
    with reading(path):  # shapes may be invalid
        variant = name_variant(state, layout)
    if variant is not None:
        raise CheckpointError(
            f"The weights in {path} are {variant}; this layout is not supported, but those of "
            f"{', '.join(layout.title for layout in LAYOUTS)} are, with a shared class embedding "
            "and a chunk of z for each block."
        )
    if layout is None:
        raise CheckpointError(
            f"The weights in {path} have names of no BigGAN that is known ({', '.join(state)[:60]}"
            f"...); known are those of {', '.join(layout.title for layout in LAYOUTS)}."
        )
    with reading(path):
        reader = _Reader(layout, state)
    faults = name_faults(reader.names(), state.keys() - reader.ignored())
    if faults:
        raise CheckpointError(
            f"The weights in {path} are not a whole BigGAN as {layout.title} names it: {faults}; "
            "use a whole file, of one conversion only."
        )
    with reading(path):  # vectors may not fit their matrices
        weights = reader.read(layout.eps_of(state) if eps is None else eps)
    for name, tensor, shape in _expected(weights):
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"The weights in {path} do not fit each other: {name} is {tuple(tensor.shape)}, "
                f"but must be {shape}; use a whole file, of one model only."
            )
    return weights


def _expected(weights: OriginalWeights) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """Yield name, weight and expected shape of every weight."""
    dim_y, (rows, chunk) = weights.classes.shape[1], weights.first[0].shape
    width = rows // 16
    yield "the bias of the first layer", weights.first[1], (width * 16,)
    for index, block in enumerate(weights.blocks):
        channels = len(block.conv2[1])
        where = f"of block {index}"
        yield f"conv1 {where}", block.conv1[0], (channels, width, 3, 3)
        yield f"conv2 {where}", block.conv2[0], (channels, channels, 3, 3)
        yield f"the skip {where}", block.skip[0], (channels, width, 1, 1)
        yield f"the bias of conv1 {where}", block.conv1[1], (channels,)
        yield f"the bias of the skip {where}", block.skip[1], (channels,)
        for norm, size in ((block.norm1, width), (block.norm2, channels)):
            yield f"a mean {where}", norm.means, (len(norm.means), size)
            yield f"a variance {where}", norm.variances, (len(norm.means), size)
            yield f"a gain {where}", norm.gain, (size, dim_y + chunk)
            yield f"an offset {where}", norm.offset, (size, dim_y + chunk)
        width = channels
        if index in weights.attentions:
            theta, phi, g, out = weights.attentions[index]
            yield f"theta of attention {where}", theta, (width // 8, width)
            yield f"phi of attention {where}", phi, (width // 8, width)
            yield f"g of attention {where}", g, (width // 2, width)
            yield f"the output of attention {where}", out, (width, width // 2)
    yield "the last mean", weights.last.means, (len(weights.last.means), width)
    yield "the last variance", weights.last.variances, (len(weights.last.means), width)
    yield "the last gain", weights.last.gain, (width,)
    yield "the last offset", weights.last.offset, (width,)
    yield "the last convolution", weights.rgb[0], (3, width, 3, 3)
    yield "the last bias", weights.rgb[1], (3,)


class _Reader:
    """Reader of a state dict in one layout."""

    def __init__(self, layout: Layout, state: State) -> None:
        self.layout, self.state = layout, state
        self.spectral = layout.spectral_of(state)
        last = layout.last[0]
        found = [pair for pair in layout.statistics if last + pair[0] in state]
        self.statistics = (found or layout.statistics)[0]
        self.blocks: list[str] = []
        self.attentions: dict[int, str] = {}  # after which block -> name
        self._find_layers()

    def _find_layers(self) -> None:
        """Find the blocks and the positions of attention."""
        layout = self.layout
        named = layout.attention(0) != layout.attention(1)
        for position in count():
            block, attention = layout.block(position), layout.attention(position)
            is_block = f"{block}.{layout.layers[0]}{self.spectral.weight}" in self.state
            attends = named and self._theta(attention) in self.state
            if is_block:
                self.blocks.append(block + ".")
            if attends and self.blocks:
                self.attentions[len(self.blocks) - 1] = attention
            if not is_block and not attends:
                break
        self.blocks = self.blocks or [f"{layout.block(0)}."]  # reported as missing later
        if not named and self._theta(layout.attention(0)) in self.state:
            self._find_by_width(layout.attention(0))

    def _theta(self, attention: str) -> str:
        return f"{attention}.{self.layout.queries[0]}{self.spectral.weight}"

    def _find_by_width(self, attention: str) -> None:
        """Find the block before the only attention by its number of channels."""
        width = self.state[self._theta(attention)].shape[1]
        biases = [block + self.layout.layers[1] + self.spectral.bias for block in self.blocks]
        fitting = [
            index
            for index, bias in enumerate(biases)
            if bias in self.state and len(self.state[bias]) == width
        ]
        if len(fitting) == 1:  # otherwise reported as unexpected later
            self.attentions[fitting[0]] = attention

    def _layer_names(self) -> list[tuple[str, bool]]:
        """Return all layers, with whether they have a bias."""
        layout = self.layout
        layers = [(layout.first, True), (layout.rgb, True)]
        for block in self.blocks:
            layers += [(block + name, index < 3) for index, name in enumerate(layout.layers)]
        for attention in self.attentions.values():
            layers += [(f"{attention}.{name}", False) for name in layout.queries]
        return layers

    def _norm_names(self) -> list[str]:
        """Return the names of all normalisations."""
        blocks = [block + name for block in self.blocks for name in self.layout.norms]
        return [*blocks, self.layout.last[0]]

    def names(self) -> set[str]:
        """Return the required names."""
        layout, spectral = self.layout, self.spectral
        last, gain, offset = layout.last
        names = {layout.classes, last + gain, last + offset}
        names.update(f"{attention}.gamma" for attention in self.attentions.values())
        for layer, biased in self._layer_names():
            names.update(layer + suffix for suffix in (spectral.weight, *spectral.vectors))
            names.update([layer + spectral.bias] * biased)
        return names | {norm + end for norm in self._norm_names() for end in self.statistics}

    def ignored(self) -> set[str]:
        """Return the optional names that are not used."""
        spectral = self.spectral
        layers = [layer + end for layer, _ in self._layer_names() for end in spectral.ignored]
        norms = [norm + end for norm in self._norm_names() for end in self.layout.ignored]
        return {*layers, *norms} - self.names()

    def read(self, eps: float) -> OriginalWeights:
        """Read all weights, with rows and columns in a common order.

        Raises:
            CheckpointError: If their shapes do not fit each other.
        """
        layout, state = self.layout, self.state
        weight, bias = self._folded(layout.first, True)
        if layout.rows_last:
            weight, bias = channels_first(weight), channels_first(bias[:, None])[:, 0]
        last, gain, offset = layout.last
        columns = state[self.blocks[0] + layout.layers[3] + self.spectral.weight].shape[1]
        classes = state[layout.classes]
        return OriginalWeights(
            classes=classes if classes.shape[1] == columns - weight.shape[1] else classes.T,
            first=(weight, bias),
            blocks=tuple(self._read_block(block, weight.shape[1]) for block in self.blocks),
            attentions={after: self._attention(name) for after, name in self.attentions.items()},
            last=NormWeights(*self._statistics(last), state[last + gain], state[last + offset]),
            rgb=self._folded(layout.rgb, True),
            eps=eps,
        )

    def _read_block(self, block: str, chunk: int) -> BlockWeights:
        """Read one block, with a chunk of z of this length."""
        names = [block + name for name in self.layout.layers]
        products = []
        for name in names[3:]:
            product = self._folded(name, False)[0]
            if self.layout.z_first:
                product = torch.cat([product[:, chunk:], product[:, :chunk]], dim=1)
            products.append(product)
        norm1, norm2 = (self._statistics(block + name) for name in self.layout.norms)
        return BlockWeights(
            norm1=NormWeights(*norm1, *products[:2]),
            conv1=self._folded(names[0], True),
            norm2=NormWeights(*norm2, *products[2:]),
            conv2=self._folded(names[1], True),
            skip=self._folded(names[2], True),
        )

    def _attention(self, attention: str) -> AttentionWeights:
        """Read the matrices of one attention."""
        theta, phi, g, out = (
            self._folded(f"{attention}.{name}", False)[0].flatten(1) for name in self.layout.queries
        )
        return theta, phi, g, self.state[f"{attention}.gamma"] * out

    def _folded(self, name: str, biased: bool) -> Layer:
        """Read a layer's weight, with spectral normalisation folded in, and its bias or zeros."""
        weight = self.spectral.fold(self.state, name)
        bias = self.state[name + self.spectral.bias] if biased else weight.new_zeros(len(weight))
        return weight, bias

    def _statistics(self, name: str) -> tuple[Tensor, Tensor]:
        """Read means and variances, with rows for truncations from 0 to 1.

        The first of 50 rows is for truncation 0.02, and also for 0. A single row is for all.
        """
        mean, variance = (self.state[name + suffix] for suffix in self.statistics)
        tables = (table if table.ndim == 2 else table[None] for table in (mean, variance))
        mean, variance = (torch.cat([table[:1], table]) for table in tables)
        return mean, variance
