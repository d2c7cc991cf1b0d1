"""Fused operations for frozen open_clip image towers, equal up to rounding.

A frozen batch normalisation is folded into the convolution before it. A patch convolution is a
matrix product, since libraries are slow at its gradient, most of all on a CPU. Self-attention
computes queries, keys and values in one matrix product; torch's module with frozen weights computes
one per token.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fuse_image_tower(visual: nn.Module) -> None:
    """Fuse the operations of a frozen image tower in place; unknown modules are unchanged."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import ResidualAttentionBlock

    if isinstance(visual, ModifiedResNet):
        _fold_batch_norms(visual)
    for module in list(visual.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Conv2d and _cuts_patches(child):
                setattr(module, name, _PatchConv(child))
        if isinstance(module, ResidualAttentionBlock) and not hasattr(module, "ln_1_kv"):
            attention = module.attn
            if isinstance(attention, nn.MultiheadAttention) and _is_plain(attention):
                module.attn = _SelfAttention(attention)
    visual.requires_grad_(False)


def activation_floats(visual: nn.Module | None, image_size: tuple[int, int]) -> int:
    """Estimate the floats that an image tower saves per image for the backward pass.

    For a transformer the estimate follows from its shape, slightly above measurements of ViT-B/16
    and ViT-L/14 with OpenAI's activation, which saves the most. Any other tower, or None, counts as
    a ResNet.
    """
    pixels = image_size[0] * image_size[1]
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if visual is None or blocks is None:
        return 500 * pixels
    tokens, width = visual.get_parameter("positional_embedding").shape
    heads: int = blocks[0].attn.num_heads
    return 20 * pixels + len(blocks) * tokens * (16 * width + heads * tokens)


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it.

    open_clip's ResNet defines its layers in the order of their use.
    """
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())


def _cuts_patches(conv: nn.Conv2d) -> bool:
    """Return whether a convolution has non-overlapping patches."""
    own = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return own == (conv.kernel_size, (0, 0), (1, 1), 1) and conv.kernel_size != (1, 1)


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    """Return whether attention is batch-first, of one width and without extras."""
    extras = (attention.bias_k, attention.bias_v, attention.add_zero_attn or None)
    plain = attention._qkv_same_embed_dim and extras == (None, None, None)
    return plain and attention.batch_first


class _SelfAttention(nn.Module):
    """``nn.MultiheadAttention`` as self-attention; state dict names are kept."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """``(N, L, C)`` to the same shape; query, key and value are the same tensor."""
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        heads = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind()
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


class _PatchConv(nn.Module):
    """A patch convolution as a matrix product; state dict names are kept."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', H // k, W // k)``."""
        height, width = self.weight.shape[2:]
        rows, columns = x.shape[2] // height, x.shape[3] // width
        x = x[..., : rows * height, : columns * width]
        patches = x.unflatten(3, (columns, width)).unflatten(2, (rows, height))
        # (N, C, r, k, c, k) -> (N, r, c, C * k * k)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
