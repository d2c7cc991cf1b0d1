"""Relatives of BigGAN that are not read, by what they are."""

from __future__ import annotations

from .layouts import LAYOUTS, Layout, State, has_first

_AJBROCK, OPENMMLAB = LAYOUTS[0], LAYOUTS[-1]


def name_variant(state: State, layout: Layout | None) -> str | None:
    """What a state dict is, if it is a relative of BigGAN that is known and not supported.

    Args:
        state: All tensors of a file.
        layout: That of a BigGAN by its first layers, if they are there.

    Returns:
        A noun phrase, or None.
    """
    if "blocks.0.0.conv4.weight" in state:
        return "a BigGAN-deep of ajbrock/BigGAN-PyTorch"
    if "embed.weight" in state and "blocks.0.0.conv1.weight" in state:
        return "a discriminator of ajbrock/BigGAN-PyTorch, of which the generator is in G_ema.pth"
    for own in (_AJBROCK, OPENMMLAB):
        whose = f"a BigGAN of {own.title}'s layout"
        gain = _gain(own, state)
        if gain is None:
            continue
        if own.classes not in state:
            return f"{whose} without a shared class embedding"
        if layout is own and gain == state[own.classes].shape[1]:
            return f"{whose} whose blocks take no part of z (no hierarchical latent)"
        last = own.last[0]
        if layout is own and not any(last + mean in state for mean, _ in own.statistics):
            return f"{whose} without batch normalisation"
    return None


def _gain(layout: Layout, state: State) -> int | None:
    """How many numbers the first normalisation's gain is a product of; None without blocks."""
    if not has_first(layout, state):
        return None
    name = f"{layout.block(0)}.{layout.layers[3]}{layout.spectral_of(state).weight}"
    return int(state[name].shape[-1]) if name in state else None
