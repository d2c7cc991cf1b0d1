"""The node that merges two CLIPs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.models.clip.ensemble import merge_clips
from ..fusedream_core.rng import make_generator
from ._boundary import Progress, autograd_scope
from ._models import Managed, activation_bytes, load_managed, use_models
from ._node import Node
from ._types import ClipSocket, GanSocket, make_schema

if TYPE_CHECKING:
    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.models.gan.base import Gan

_BATCH = 8
_STREAM = 5


class FuseDreamMergeCLIP(Node):
    """Merges two CLIPs, each score divided by its own spread."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamMergeCLIP",
            display_name="Merge CLIP (FuseDream)",
            description=(
                "Merges two CLIPs into one. A picture with a wrongly high score in one of "
                "them seldom has it in the other, so results have fewer artefacts. Each step "
                "takes as long as with both."
            ),
            search_aliases=["ensemble", "two CLIPs", "FuseDream"],
            inputs=[
                GanSocket.Input(
                    "gan",
                    tooltip=(
                        "Generates a few pictures, on which the scores of both are brought "
                        "to one scale."
                    ),
                ),
                ClipSocket.Input("clip_a", tooltip="From Load CLIP (FuseDream)."),
                ClipSocket.Input(
                    "clip_b", tooltip="A second CLIP, best with another architecture."
                ),
                io.Float.Input(
                    "share_b",
                    default=0.5,
                    min=0.05,
                    max=0.95,
                    step=0.05,
                    tooltip="Weight of clip_b; clip_a has the rest.",
                ),
            ],
            outputs=[
                ClipSocket.Output(
                    display_name="clip",
                    tooltip="The merged CLIP. Encode the prompt with it, and search with it.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        gan: Managed[Gan],
        clip_a: Managed[ImageTextEncoder],
        clip_b: Managed[ImageTextEncoder],
        share_b: float,
    ) -> io.NodeOutput:
        clips = (clip_a, clip_b)
        memory = sum(activation_bytes(gan, clip, images=_BATCH) for clip in clips)
        with autograd_scope():
            generator, *encoders = use_models(gan, *clips, activation_bytes=memory)
            pair = merge_clips(
                encoders,
                generator,
                shares=(1.0 - share_b, share_b),
                generator=make_generator(0, _STREAM),
                batch_size=_BATCH,
                callback=Progress(),
            )
        name = f"{clip_a.name} + {clip_b.name}"
        # It shares the loaders' modules, so its cache entry is identified by them.
        key = ("ensemble", pair.clip_id, id(clip_a.model), id(clip_b.model))
        return io.NodeOutput(load_managed(key, name, lambda: pair))
