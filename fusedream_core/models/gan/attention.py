"""Self-attention of BigGAN and BigGAN-deep."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops import frozen, plus_pixelwise


class Attention(nn.Module):
    """Self-attention whose keys and values are max-pooled to half the side."""

    def __init__(
        self, theta: Tensor, phi: Tensor, g: Tensor, out: Tensor, *, missing: Tensor
    ) -> None:
        """Copy the weights of 1 x 1 convolutions.

        Args:
            theta: Shape ``(C / 8, C)``.
            phi: Same shape.
            g: Shape ``(C / 2, C)``.
            out: Shape ``(C, C / 2)``, multiplied by gamma.
            missing: Deferred bias of the input, shape ``(C,)``; it is also deferred in the output.
        """
        super().__init__()
        phi_g = torch.cat([phi, g])
        self.theta, self.theta_bias = frozen(theta), frozen((theta @ missing)[:, None])
        self.phi_g, self.phi_g_bias = frozen(phi_g), frozen((phi_g @ missing)[:, None])
        self.out = frozen(out)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        pixels = x.flatten(2)
        query = (self.theta @ pixels + self.theta_bias).mT  # (B, H * W, C / 8)
        phi_g = (self.phi_g @ pixels + self.phi_g_bias).unflatten(2, x.shape[-2:])
        pooled = F.max_pool2d(phi_g, 2).flatten(2).mT  # (B, H * W / 4, C * 5 / 8)
        key, value = pooled.split([query.shape[-1], pooled.shape[-1] - query.shape[-1]], dim=-1)
        # Not scaled_dot_product_attention, which was wrong on MPS for values of another width.
        attended = (query @ key.mT).softmax(dim=-1) @ value
        return plus_pixelwise(x, attended.mT.unflatten(2, x.shape[-2:]), self.out)
