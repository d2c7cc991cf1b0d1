"""Operations of the generators' layers, with few copies of large feature maps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Affine = tuple[Tensor, Tensor]  # scale and shift per image and channel, (B, C) each


def scale_shift_relu(x: Tensor, affine: Affine) -> Tensor:
    """Return ``relu(scale * x + shift)`` with a scale and shift per image and channel.

    Implemented as a batch normalisation, whose backward pass needs no image-sized product.
    """
    scale, shift = affine
    num, channels = scale.shape
    mean, half = scale.new_zeros(num * channels), scale.new_full((num * channels,), 0.5)
    flat = x.reshape(1, num * channels, *x.shape[-2:])
    # Variance and eps sum to exactly 1; some versions of torch refuse an eps of 0.
    flat = F.batch_norm(flat, mean, half, scale.flatten(), shift.flatten(), eps=0.5)
    return flat.relu_().view_as(x)


def pixelwise(x: Tensor, weight: Tensor) -> Tensor:
    """Apply a 1 x 1 convolution ``(C', C)`` to ``(B, C, H, W)``.

    A matrix product is faster on large images than the convolutions of libraries.
    """
    pixels: Tensor = (weight @ x.flatten(2)).unflatten(2, x.shape[-2:])
    return pixels


class _AddPixelwise(torch.autograd.Function):
    """Add a 1 x 1 convolution of x to a sum in place.

    Equal to torch's in-place ``baddbmm_``, without its copy of the gradient.
    """

    @staticmethod
    def forward(ctx: Any, total: Tensor, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401
        """``total`` ``(B, C', H, W)`` is modified; x ``(B, C, H, W)``, weight ``(C', C)``."""
        ctx.save_for_backward(weight)
        ctx.mark_dirty(total)
        total.flatten(2).baddbmm_(weight.expand(len(x), -1, -1), x.flatten(2))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
        """Return the gradient, and its transposed product."""
        (weight,) = ctx.saved_tensors
        return grad, pixelwise(grad, weight.mT), None


def plus_pixelwise(plus: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return ``plus`` and a 1 x 1 convolution of x, ``(B, C', H, W)``."""
    weights = weight.expand(len(x), -1, -1)
    pixels = torch.baddbmm(plus.flatten(2), weights, x.flatten(2))
    return pixels.view_as(plus)


def upsampled_plus_pixelwise(plus: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the same with ``plus`` at half the side, which is upsampled first."""
    upsampled = F.interpolate(plus, scale_factor=2, mode="nearest").contiguous()
    total: Tensor = _AddPixelwise.apply(upsampled, x, weight)  # type: ignore[no-untyped-call]
    return total


def upsampling_kernel(weight: Tensor) -> Tensor:
    """Return the transposed convolution equal to nearest upsampling and a 3 x 3 convolution.

    Along one axis, the weight of input q in output p is ``T[p + 1 - 2 q]``. It is the sum of the
    taps on either copy of q.

    Args:
        weight: Shape ``(C_out, C_in, 3, 3)``.

    Returns:
        Shape ``(C_in, C_out, 4, 4)``, for stride 2 and padding 1.
    """
    taps = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    return torch.einsum("oiyx,ty,sx->iots", weight, taps, taps)


def to_rgb(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a 3 x 3 convolution with padding 1 to three channels.

    On a CPU it is a matrix product and a fold, since libraries there pad three channels to many.

    Args:
        x: Shape ``(B, C, H, W)``.
        weight: Shape ``(3, C, 3, 3)``.
        bias: Shape ``(3,)``.
    """
    if x.device.type != "cpu":
        return F.conv2d(x, weight, bias, padding=1)
    taps = weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)  # (27, C)
    return F.fold(taps @ x.flatten(2), x.shape[-2:], 3, padding=1) + bias[:, None, None]


def channels_first(rows: Tensor) -> Tensor:
    """Permute rows ``(4 * 4 * C, ...)`` of the first layer to ``(C * 4 * 4, ...)``."""
    return rows.view(4, 4, -1, rows.shape[-1]).permute(2, 0, 1, 3).reshape(len(rows), -1)


def frozen(tensor: Tensor) -> nn.Parameter:
    """Return a copy as a parameter without gradient."""
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
