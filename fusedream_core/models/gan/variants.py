"""Relatives of BigGAN: those that are not read, by what they are, and those in another order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .deep_checkpoint import is_openmmlab_deep
from .layouts import LAYOUTS, Layout, State, find_layout, has_first

logger = logging.getLogger(__name__)

_AJBROCK, _OPENMMLAB = LAYOUTS[0], LAYOUTS[-1]


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
    for own in (_AJBROCK, _OPENMMLAB):
        own_kind = f"a BigGAN of {own.title}'s layout"
        gain = _gain(own, state)
        if gain is None:
            continue
        if own.classes not in state:
            return f"{own_kind} without a shared class embedding"
        if layout is own and gain == state[own.classes].shape[1]:
            return f"{own_kind} with blocks that take no part of z (no hierarchical latent)"
        last = own.last[0]
        if layout is own and not any(last + mean in state for mean, _ in own.statistics):
            return f"{own_kind} without batch normalisation"
    return None


def channel_order(state: State, notes: Mapping[str, Any], path: Path) -> Literal["rgb", "bgr"]:
    """In which order a generator makes its channels.

    OpenMMLab trains in BGR; the weights that it converted from others make RGB, and have "_rgb" in
    their files' names. A file of its own training says of how many steps it is.

    Args:
        state: All tensors of a generator.
        notes: What else the file holds.
        path: The file.
    """
    meta = notes.get("meta")
    if not isinstance(meta, Mapping) or "_rgb" in path.name:
        return "rgb"
    steps = meta.get("iter")
    trained = isinstance(steps, int) and steps > 0
    theirs = find_layout(state) is _OPENMMLAB or is_openmmlab_deep(state)
    turned = "rgb2bgr=True" in str(meta.get("config", "")) + str(meta.get("cfg", ""))
    if not theirs or not trained or turned:
        return "rgb"
    logger.warning(
        "FuseDream takes the channels of %s as BGR, as OpenMMLab trains (%d steps, by the file); "
        'if red and blue are exchanged, set "channel_order": "rgb" in its config.json.',
        path,
        steps,
    )
    return "bgr"


def _gain(layout: Layout, state: State) -> int | None:
    """How many numbers the first normalisation's gain is a product of; None without blocks."""
    if not has_first(layout, state):
        return None
    name = f"{layout.block(0)}.{layout.layers[3]}{layout.spectral_of(state).weight}"
    return int(state[name].shape[-1]) if name in state else None
