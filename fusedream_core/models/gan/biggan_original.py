"""The original BigGAN's generator with fused operations, equal up to rounding.

BigGAN-deep conditions every layer on z and y; here each block has its own chunk of z, and y.
Constants are precomputed as in ``biggan_deep.py``. The 1 x 1 convolution of the skip connection is
applied before the upsampling, to a quarter of the pixels.

Architecture: Brock et al. 2019 (arXiv:1809.11096), appendix B; ajbrock/BigGAN-PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import MixedPrecision
from .attention import Attention
from .norms import Norm, Norms
from .ops import Affine, frozen, pixelwise, scale_shift_relu, to_rgb, upsampling_kernel

Layer = tuple[Tensor, Tensor]  # weight and bias
AttentionWeights = tuple[Tensor, Tensor, Tensor, Tensor]  # theta, phi, g and out


@dataclass(frozen=True, slots=True, eq=False)
class NormWeights:
    """A normalisation: statistics ``(S, C)`` for S truncations from 0 to 1, gain and offset.

    Gain and offset are matrices ``(C, dim_y + chunk)`` for y and a block's chunk of z, or vectors
    ``(C,)`` of the last normalisation. A gain matrix gives the difference from 1.
    """

    means: Tensor
    variances: Tensor
    gain: Tensor
    offset: Tensor

    def missing(self, bias: Tensor) -> Norm:
        """Return the normalisation of an input with a deferred bias."""
        return Norm(self.means, self.variances, self.gain, self.offset, bias)


@dataclass(frozen=True, slots=True, eq=False)
class BlockWeights:
    """A residual block that doubles the side: two 3 x 3 convolutions, and a 1 x 1 skip."""

    norm1: NormWeights
    conv1: Layer
    norm2: NormWeights
    conv2: Layer
    skip: Layer


@dataclass(frozen=True, slots=True, eq=False)
class OriginalWeights:
    """All weights of a generator, with spectral normalisation folded in.

    Attributes:
        classes: Class embeddings, shape ``(num_classes, dim_y)``.
        first: Linear layer from the first chunk of z to ``(C, 4, 4)``.
        blocks: Blocks in order.
        attentions: theta, phi, g and out as matrices, the last multiplied by gamma, by the index of
            the block before the attention. May be empty.
        last: The normalisation after the last block.
        rgb: The last 3 x 3 convolution.
        eps: Epsilon of the normalisations.
    """

    classes: Tensor
    first: Layer
    blocks: tuple[BlockWeights, ...]
    attentions: Mapping[int, AttentionWeights]
    last: NormWeights
    rgb: Layer
    eps: float


class OriginalNetwork(MixedPrecision):
    """BigGAN from latents and class embeddings to images."""

    half_prefixes = ("blocks.", "attentions.", "rgb_")  # the conditioning needs float32

    def __init__(self, weights: OriginalWeights) -> None:
        """Copy the weights."""
        super().__init__()
        self.chunk = weights.first[0].shape[1]
        self.dim_z = self.chunk * (len(weights.blocks) + 1)
        self.resolution = 4 * 2 ** len(weights.blocks)
        self.first_weight, self.first_bias = (frozen(tensor) for tensor in weights.first)
        missing = weights.first[1].new_zeros(len(self.first_bias) // 16)
        blocks, norms, attentions = [], [], dict[str, nn.Module]()
        for index, block in enumerate(weights.blocks):
            pair = block.norm1.missing(missing), block.norm2.missing(block.conv1[1])
            blocks.append(_Block(block))
            norms.append(Norms(pair, weights.eps))
            # The skip passes the deferred bias on; a constant commutes with upsampling.
            skip = block.skip[0].flatten(1) @ missing + block.skip[1]
            missing = skip + block.conv2[1]
            if index in weights.attentions:
                attentions[str(index)] = Attention(*weights.attentions[index], missing=missing)
        self.blocks, self.norms = nn.ModuleList(blocks), nn.ModuleList(norms)
        self.attentions = nn.ModuleDict(attentions)
        self.last_norm = Norms([weights.last.missing(missing)], weights.eps)
        self.rgb_weight, self.rgb_bias = (frozen(tensor) for tensor in weights.rgb)

    def forward(self, latent: Tensor, truncation: float) -> Tensor:
        """Return images ``(B, 3, H, W)`` in [-1, 1].

        Args:
            latent: z and y concatenated, shape ``(B, dim_z + dim_y)``.
            truncation: From 0 to 1; selects the normalisation statistics, if the weights
                have several.
        """
        z, y = latent[:, : self.dim_z], latent[:, self.dim_z :]
        chunks = z.split(self.chunk, dim=1)
        x = F.linear(chunks[0], self.first_weight, self.first_bias)
        x = x.view(len(latent), -1, 4, 4).to(self.rgb_weight)
        for index, (block, norms) in enumerate(zip(self.blocks, self.norms, strict=True)):
            x = block(x, norms(torch.cat((y, chunks[index + 1]), dim=1), truncation))
            if str(index) in self.attentions:
                x = self.attentions[str(index)](x)
        (affine,) = self.last_norm(latent, truncation)
        x = scale_shift_relu(x, affine)
        return to_rgb(x, self.rgb_weight, self.rgb_bias).to(latent).tanh()


class _Block(nn.Module):
    """A residual block; its biases are deferred to the next layers."""

    def __init__(self, weights: BlockWeights) -> None:
        super().__init__()
        self.conv1 = frozen(upsampling_kernel(weights.conv1[0]))
        self.conv2 = frozen(weights.conv2[0])
        self.skip = frozen(weights.skip[0].flatten(1))

    def forward(self, x: Tensor, affines: Iterator[Affine]) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', 2 H, 2 W)``."""
        hidden = scale_shift_relu(x, next(affines))
        hidden = F.conv_transpose2d(hidden, self.conv1, stride=2, padding=1)
        hidden = F.conv2d(scale_shift_relu(hidden, next(affines)), self.conv2, padding=1)
        skip = F.interpolate(pixelwise(x, self.skip), scale_factor=2, mode="nearest")
        return skip.add_(hidden)
