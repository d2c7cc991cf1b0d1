"""Detection of unsupported variants of BigGAN, and of the channel order."""

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
    """Return the description of a known, unsupported variant of BigGAN, or None.

    Args:
        state: All tensors of a file.
        layout: Layout by the first layers, or None.

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
            return f"{own_kind} with blocks that have no chunk of z (no hierarchical latent)"
        last = own.last[0]
        if layout is own and not any(last + mean in state for mean, _ in own.statistics):
            return f"{own_kind} without batch normalisation"
    return None


def channel_order(state: State, notes: Mapping[str, Any], path: Path) -> Literal["rgb", "bgr"]:
    """Return the order of a generator's output channels.

    OpenMMLab trains in BGR; weights that it converted are RGB, with "_rgb" in their file names.
    Files of its own training record the number of steps.

    Args:
        state: All tensors of a generator.
        notes: Metadata of the file.
        path: The file.
    """
    meta = notes.get("meta")
    if not isinstance(meta, Mapping) or "_rgb" in path.name:
        return "rgb"
    steps = meta.get("iter")
    trained = isinstance(steps, int) and steps > 0
    theirs = find_layout(state) is _OPENMMLAB or is_openmmlab_deep(state)
    converts = "rgb2bgr=True" in str(meta.get("config", "")) + str(meta.get("cfg", ""))
    if not theirs or not trained or converts:
        return "rgb"
    logger.warning(
        "FuseDream reads the channels of %s as BGR, as OpenMMLab trains (%d steps, by the file); "
        'if red and blue are exchanged, set "channel_order": "rgb" in its config.json.',
        path,
        steps,
    )
    return "bgr"


def _gain(layout: Layout, state: State) -> int | None:
    """Return the input length of the first normalisation's gain, or None without blocks."""
    if not has_first(layout, state):
        return None
    name = f"{layout.block(0)}.{layout.layers[3]}{layout.spectral_of(state).weight}"
    return int(state[name].shape[-1]) if name in state else None
