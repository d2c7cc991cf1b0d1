"""BigGAN-deep's generator with fused operations, equal to the package's up to rounding.

Constants of a frozen generator are precomputed. Spectral normalisation is folded into the weights.
The conditioning of all layers is one matrix product, and each normalisation one scale and shift. An
upsampling and the 3 x 3 convolution after it are one transposed convolution, with 16 instead of 36
products per pixel. The last layer computes 3 channels instead of ``channel_width``.

Architecture: Brock et al. 2019 (arXiv:1809.11096), appendix B; pytorch_pretrained_biggan,
``model.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import MixedPrecision
from .attention import Attention
from .norms import Norm, Norms
from .ops import (
    Affine,
    channels_first,
    frozen,
    pixelwise,
    plus_pixelwise,
    scale_shift_relu,
    to_rgb,
    upsampled_plus_pixelwise,
    upsampling_kernel,
)

if TYPE_CHECKING:
    from pytorch_pretrained_biggan import BigGAN
    from pytorch_pretrained_biggan.model import BigGANBatchNorm, GenBlock, SelfAttn


class DeepNetwork(MixedPrecision):
    """BigGAN-deep from latents and class embeddings to images."""

    half_prefixes = ("layers.", "rgb_")  # convolutions; the conditioning needs float32

    def __init__(self, network: BigGAN) -> None:
        """Copy the weights of the package's network; its spectral norm hooks are removed."""
        super().__init__()
        config = network.config
        self.dim_z: int = config.z_dim
        self.resolution = 4 * 2 ** sum(bool(layer[0]) for layer in config.layers)
        for module in network.modules():
            if hasattr(module, "weight_orig"):
                nn.utils.remove_spectral_norm(module)
        source = network.generator
        # The package reshapes to (4, 4, C) and then moves C to the front; here rows are permuted.
        self.first_weight = frozen(channels_first(source.gen_z.weight))
        self.first_bias = frozen(channels_first(source.gen_z.bias[:, None])[:, 0])
        layers: list[Any] = list(source.layers)
        carried = _carried_biases(layers)
        before = list(zip(layers, carried[:-1], strict=True))
        self.layers = nn.ModuleList(
            _Block(layer) if _is_block(layer) else _attention(layer, bias) for layer, bias in before
        )
        norms = [norm for layer, bias in before for norm in _norms_of(layer, bias)]
        self.norms = Norms(norms, source.bn.eps)
        self.last_norm = Norms([_norm(source.bn, carried[-1])], source.bn.eps)
        self.rgb_weight = frozen(source.conv_to_rgb.weight[:3])
        self.rgb_bias = frozen(source.conv_to_rgb.bias[:3])

    def forward(self, latent: Tensor, truncation: float) -> Tensor:
        """Return images ``(B, 3, H, W)`` in [-1, 1].

        Args:
            latent: z and y concatenated, shape ``(B, dim_z + dim_y)``.
            truncation: From 0 to 1; selects the normalisation statistics.
        """
        x = F.linear(latent, self.first_weight, self.first_bias)
        x = x.view(len(latent), -1, 4, 4).to(self.rgb_weight)
        affines = self.norms(latent, truncation)
        for layer in self.layers:
            x = layer(x, affines) if isinstance(layer, _Block) else layer(x)
        ((scale, shift),) = self.last_norm(latent, truncation)
        x = scale_shift_relu(x, (scale, shift))
        return to_rgb(x, self.rgb_weight, self.rgb_bias).to(latent).tanh()


class _Block(nn.Module):
    """A residual block: 1 x 1 down, two 3 x 3, 1 x 1 up; half of the blocks double the side.

    Its last bias is deferred to the next normalisation or attention, see ``_carried_biases``.
    """

    def __init__(self, block: GenBlock) -> None:
        super().__init__()
        self.upsample: bool = block.up_sample
        self.drop_channels: bool = block.drop_channels
        self.down = frozen(block.conv_0.weight.flatten(1))
        middle = block.conv_1.weight
        self.middle = frozen(upsampling_kernel(middle) if self.upsample else middle)
        self.second = frozen(block.conv_2.weight)
        self.up = frozen(block.conv_3.weight.flatten(1))

    def forward(self, x: Tensor, affines: Iterator[Affine]) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``; takes the next four affines."""
        hidden = pixelwise(scale_shift_relu(x, next(affines)), self.down)
        hidden = scale_shift_relu(hidden, next(affines))
        if self.upsample:
            hidden = F.conv_transpose2d(hidden, self.middle, stride=2, padding=1)
        else:
            hidden = F.conv2d(hidden, self.middle, padding=1)
        hidden = F.conv2d(scale_shift_relu(hidden, next(affines)), self.second, padding=1)
        hidden = scale_shift_relu(hidden, next(affines))
        if self.drop_channels:
            x = x[:, : x.shape[1] // 2]
        if self.upsample:
            return upsampled_plus_pixelwise(x, hidden, self.up)
        return plus_pixelwise(x, hidden, self.up)


def _is_block(layer: nn.Module) -> bool:
    """Return whether a layer of the package is a residual block; else it is attention."""
    return hasattr(layer, "conv_0")


def _attention(layer: SelfAttn, missing: Tensor) -> Attention:
    """Convert the package's attention."""
    out = layer.gamma * layer.snconv1x1_o_conv.weight
    convs = (layer.snconv1x1_theta.weight, layer.snconv1x1_phi.weight, layer.snconv1x1_g.weight)
    return Attention(*(weight.flatten(1) for weight in (*convs, out)), missing=missing)


def _carried_biases(layers: list[Any]) -> list[Tensor]:
    """Return the deferred bias before each layer, and after the last one.

    A constant per channel passes through the skip connections unchanged, so adding it is deferred
    to the next layer that reads the channel: a normalisation, or attention.
    """
    blocks = [layer for layer in layers if _is_block(layer)]
    carried = [torch.zeros(blocks[0].bn_0.num_features)]
    for layer in layers:
        bias = carried[-1]
        if _is_block(layer):
            kept = len(bias) // 2 if layer.drop_channels else len(bias)
            bias = bias[:kept] + layer.conv_3.bias
        carried.append(bias)
    return carried


def _norms_of(layer: Any, carried: Tensor) -> list[Norm]:  # noqa: ANN401
    """Convert a layer's normalisations, each with the deferred bias of its input."""
    if not _is_block(layer):
        return []
    return [
        _norm(layer.bn_0, carried),
        _norm(layer.bn_1, layer.conv_0.bias),
        _norm(layer.bn_2, layer.conv_1.bias),
        _norm(layer.bn_3, layer.conv_2.bias),
    ]


def _norm(source: BigGANBatchNorm, missing: Tensor) -> Norm:
    """Convert one normalisation of the package."""
    pair = (source.scale, source.offset) if source.conditional else None
    scale, offset = (p.weight for p in pair) if pair else (source.weight, source.bias)
    return Norm(source.running_means, source.running_vars, scale, offset, missing)
