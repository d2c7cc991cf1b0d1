"""open_clip's image towers with less work and the same numbers.

A frozen batch normalisation is a scale and a shift, which the convolution before it can do. A
convolution that cuts a picture into patches is a matrix product; libraries are slow at its
gradient, most of all on a CPU. Self-attention makes its queries, keys and values with one matrix
product; torch's own module, whose weights take no gradient here, does one for each token.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def make_lean(visual: nn.Module) -> None:
    """Rewrite a frozen image tower in place; what it does not know it leaves as it is."""
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


def kept_numbers(visual: nn.Module | None, image_size: tuple[int, int]) -> int:
    """How many numbers an image tower keeps of one picture for its gradient.

    For a transformer by its shape, a little above what was measured for ViT-B/16 and ViT-L/14 with
    OpenAI's activation, which keeps the most; for any other tower, and for one that is not known,
    what a ResNet keeps.
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

    open_clip's ResNet defines its layers in the order in which they are used.
    """
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())


def _cuts_patches(conv: nn.Conv2d) -> bool:
    """Whether each pixel of the input is used once, or not at all."""
    own = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return own == (conv.kernel_size, (0, 0), (1, 1), 1) and conv.kernel_size != (1, 1)


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    """Whether it is of one width, over tokens in the second dimension, and of nothing else."""
    extras = (attention.bias_k, attention.bias_v, attention.add_zero_attn or None)
    plain = attention._qkv_same_embed_dim and extras == (None, None, None)
    return plain and attention.batch_first


class _SelfAttention(nn.Module):
    """torch's self-attention; its weights keep their names."""

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
        """``(N, L, C)`` to the same shape; the three are one, as open_clip's blocks call it."""
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        heads = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind()
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self.out_proj(seen.transpose(1, 2).flatten(2)), None


class _PatchConv(nn.Module):
    """A convolution that cuts patches, as a matrix product; its weights keep their names."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', H // k, W // k)``."""
        tall, wide = self.weight.shape[2:]
        rows, columns = x.shape[2] // tall, x.shape[3] // wide
        x = x[..., : rows * tall, : columns * wide]
        patches = x.unflatten(3, (columns, wide)).unflatten(2, (rows, tall))  # (N, C, r, k, c, k)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (N, r, c, C * k * k)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
