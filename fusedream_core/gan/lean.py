"""BigGAN-deep's generator with the same numbers as the package's, and far less work.

What a frozen generator can know beforehand is worked out once: spectral normalisation is folded
into the weights; normalisation and conditioning of all layers become one matrix product and one
scale and shift each; an upsampling and the 3 x 3 convolution after it become one transposed
convolution with 16 instead of 36 products per pixel; the last layer makes the 3 channels that are
used instead of ``channel_width``. Architecture: Brock et al. 2019 (arXiv:1809.11096), appendix B,
as ``pytorch_pretrained_biggan/model.py`` has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from pytorch_pretrained_biggan import BigGAN
    from pytorch_pretrained_biggan.model import BigGANBatchNorm, GenBlock, SelfAttn

Affine = tuple[Tensor, Tensor]  # scale and shift of B pictures' channels, (B, C) each


class LeanNetwork(nn.Module):
    """BigGAN-deep from latents and class embeddings to pictures."""

    def __init__(self, network: BigGAN) -> None:
        """Take over the weights of the package's network, which is left without its hooks."""
        super().__init__()
        for module in network.modules():
            if hasattr(module, "weight_orig"):
                nn.utils.remove_spectral_norm(module)
        source = network.generator
        # The package reshapes to (4, 4, C) and then moves C to the front; here the rows are moved.
        self.first_weight = _frozen(_channels_first(source.gen_z.weight))
        self.first_bias = _frozen(_channels_first(source.gen_z.bias[:, None])[:, 0])
        layers: list[Any] = list(source.layers)
        self.layers = nn.ModuleList(
            _Block(layer) if _is_block(layer) else _Attention(layer) for layer in layers
        )
        self.norms = _Norms([pair for layer in layers for pair in _norms_of(layer)], source.bn.eps)
        self.last_norm = _Norms([(source.bn, None)], source.bn.eps)
        self.rgb_weight = _frozen(source.conv_to_rgb.weight[:3])
        self.rgb_bias = _frozen(source.conv_to_rgb.bias[:3])

    def compute_in(self, dtype: torch.dtype) -> None:
        """Do the convolutions in this precision. Latents, normalisations and pictures keep theirs.

        These are a small part of the work, and half a precision would blur where a latent leads.
        """
        self.layers.to(dtype)
        for parameter in (self.rgb_weight, self.rgb_bias):
            parameter.data = parameter.data.to(dtype)

    def forward(self, latent: Tensor, truncation: float) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in [-1, 1].

        Args:
            latent: z and y side by side, shape ``(B, dim_z + dim_y)``.
            truncation: tau, from 0 to 1; picks the normalisation statistics.
        """
        x = F.linear(latent, self.first_weight, self.first_bias)
        x = x.view(len(latent), -1, 4, 4).to(self.rgb_weight)
        affines = self.norms(latent, truncation)
        for layer in self.layers:
            x = layer(x, affines)
        ((scale, shift),) = self.last_norm(latent, truncation)
        x = _scale_shift_relu(x, (scale, shift))
        return _to_rgb(x, self.rgb_weight, self.rgb_bias).to(latent).tanh()


class _Norms(nn.Module):
    """Scale and shift of several normalisations, from one matrix product.

    A normalisation is ``(x + bias - mean) / sqrt(variance + eps) * weight + offset``, where bias is
    that of the convolution before it and weight and offset depend on the latent.
    """

    def __init__(self, sources: list[tuple[BigGANBatchNorm, Tensor | None]], eps: float) -> None:
        """Take the package's normalisations, each with the bias before it, if there is one."""
        super().__init__()
        norms = [norm for norm, _ in sources]
        self.eps, self.sizes = eps, [norm.num_features for norm in norms]
        self.means = _frozen(torch.cat([norm.running_means for norm in norms], dim=1))
        self.variances = _frozen(torch.cat([norm.running_vars for norm in norms], dim=1))
        nothing = [norm.running_means.new_zeros(norm.num_features) for norm in norms]
        biases = [bias for _, bias in sources]
        self.biases = _frozen(
            torch.cat([n if b is None else b for n, b in zip(nothing, biases, strict=True)])
        )
        self.weight: nn.Parameter | None = None
        if norms[0].conditional:
            self.weight = _frozen(
                torch.cat([n.scale.weight for n in norms] + [n.offset.weight for n in norms])
            )
            ones = torch.ones_like(self.biases)
            self.base = _frozen(torch.cat([ones, torch.zeros_like(ones)]))
        else:
            self.base = _frozen(torch.cat([n.weight for n in norms] + [n.bias for n in norms]))

    def forward(self, latent: Tensor, truncation: float) -> Iterator[Affine]:
        """The normalisations in order."""
        if self.weight is None:
            both = self.base.expand(len(latent), -1)
        else:
            both = F.linear(latent, self.weight, self.base)
        weight, offset = both.chunk(2, dim=1)
        mean, variance = _at(self.means, truncation), _at(self.variances, truncation)
        scale = weight * (variance + self.eps).rsqrt()
        shift = torch.addcmul(offset, self.biases - mean, scale)
        return zip(scale.split(self.sizes, dim=1), shift.split(self.sizes, dim=1), strict=True)


class _Block(nn.Module):
    """A residual block: 1 x 1 down, two 3 x 3, 1 x 1 up; half of them double the side."""

    def __init__(self, block: GenBlock) -> None:
        super().__init__()
        self.upsample: bool = block.up_sample
        self.drop_channels: bool = block.drop_channels
        self.down = _frozen(block.conv_0.weight)
        middle = block.conv_1.weight
        self.middle = _frozen(_upsampling_kernel(middle) if self.upsample else middle)
        self.second = _frozen(block.conv_2.weight)
        self.up = _frozen(block.conv_3.weight)
        self.up_bias = _frozen(block.conv_3.bias)

    def forward(self, x: Tensor, affines: Iterator[Affine]) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``; takes the next four affines."""
        hidden = F.conv2d(_scale_shift_relu(x, next(affines)), self.down)
        hidden = _scale_shift_relu(hidden, next(affines))
        if self.upsample:
            hidden = F.conv_transpose2d(hidden, self.middle, stride=2, padding=1)
        else:
            hidden = F.conv2d(hidden, self.middle, padding=1)
        hidden = F.conv2d(_scale_shift_relu(hidden, next(affines)), self.second, padding=1)
        hidden = F.conv2d(_scale_shift_relu(hidden, next(affines)), self.up, self.up_bias)
        if self.drop_channels:
            x = x[:, : x.shape[1] // 2]
        if self.upsample:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return hidden + x


class _Attention(nn.Module):
    """Self-attention to a picture of half the side."""

    def __init__(self, layer: SelfAttn) -> None:
        super().__init__()
        self.theta = _frozen(layer.snconv1x1_theta.weight)
        self.phi_g = _frozen(torch.cat([layer.snconv1x1_phi.weight, layer.snconv1x1_g.weight]))
        self.out = _frozen(layer.gamma * layer.snconv1x1_o_conv.weight)

    def forward(self, x: Tensor, affines: Iterator[Affine]) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        query = F.conv2d(x, self.theta).flatten(2).mT  # (B, H * W, C / 8)
        pooled = F.max_pool2d(F.conv2d(x, self.phi_g), 2).flatten(2).mT  # (B, H * W / 4, C * 5 / 8)
        key, value = pooled.split([query.shape[-1], pooled.shape[-1] - query.shape[-1]], dim=-1)
        # Not torch's fused form, which on Apple's GPUs was wrong for a value of another width.
        seen = (query @ key.mT).softmax(dim=-1) @ value
        seen = seen.mT.reshape(len(x), -1, *x.shape[-2:])
        return x + F.conv2d(seen, self.out)


def _scale_shift_relu(x: Tensor, affine: Affine) -> Tensor:
    """``relu(scale * x + shift)`` with a scale and shift of each channel of each picture.

    Written as a batch normalisation, whose backward pass needs no picture-sized product.
    """
    scale, shift = affine
    num, channels = scale.shape
    mean, half = scale.new_zeros(num * channels), scale.new_full((num * channels,), 0.5)
    flat = x.reshape(1, num * channels, *x.shape[-2:])
    # Variance and eps add up to exactly 1; some versions of torch refuse an eps of 0.
    flat = F.batch_norm(flat, mean, half, scale.flatten(), shift.flatten(), eps=0.5)
    return flat.relu_().view_as(x)


def _at(table: Tensor, truncation: float) -> Tensor:
    """A row of statistics for tau; the rows stand for tau from 0 to 1.

    The package has the two weights of its interpolation the wrong way round; here they are right.
    """
    position = truncation * (len(table) - 1)
    low = min(int(position), len(table) - 2)
    return torch.lerp(table[low], table[low + 1], position - low)


def _upsampling_kernel(weight: Tensor) -> Tensor:
    """The transposed convolution that doubles the side and then convolves with a 3 x 3 kernel.

    Along one axis, output p takes input q with weight ``T[p + 1 - 2 q]``: of the three taps of the
    kernel those that fall on either copy of q.

    Args:
        weight: Shape ``(C_out, C_in, 3, 3)``.

    Returns:
        Shape ``(C_in, C_out, 4, 4)``, for stride 2 and padding 1.
    """
    taps = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    return torch.einsum("oiyx,ty,sx->iots", weight, taps, taps)


def _to_rgb(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3 x 3 convolution with padding 1 to three channels.

    On a CPU as a matrix product that says what each pixel gives to its neighbours, and a sum over
    these: libraries there pad so few channels to many, and are slow.

    Args:
        x: Shape ``(B, C, H, W)``.
        weight: Shape ``(3, C, 3, 3)``.
        bias: Shape ``(3,)``.
    """
    if x.device.type != "cpu":
        return F.conv2d(x, weight, bias, padding=1)
    taps = weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)  # (27, C)
    return F.fold(taps @ x.flatten(2), x.shape[-2:], 3, padding=1) + bias[:, None, None]


def _channels_first(rows: Tensor) -> Tensor:
    """Rows ``(4 * 4 * C, ...)`` of the first layer as ``(C * 4 * 4, ...)``."""
    return rows.view(4, 4, -1, rows.shape[-1]).permute(2, 0, 1, 3).reshape(len(rows), -1)


def _is_block(layer: nn.Module) -> bool:
    """Whether a layer of the package's is a residual block; else it is attention."""
    return hasattr(layer, "conv_0")


def _norms_of(layer: Any) -> list[tuple[BigGANBatchNorm, Tensor | None]]:  # noqa: ANN401
    """A layer's normalisations, each with the bias of the convolution before it."""
    if not _is_block(layer):
        return []
    return [
        (layer.bn_0, None),
        (layer.bn_1, layer.conv_0.bias),
        (layer.bn_2, layer.conv_1.bias),
        (layer.bn_3, layer.conv_2.bias),
    ]


def _frozen(tensor: Tensor) -> nn.Parameter:
    """A weight that takes no gradient."""
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
