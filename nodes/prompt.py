"""The node that turns text into a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.clip.target import encode_target
from ._boundary import autograd_scope, show_text
from ._models import Managed, use_models
from ._types import ClipSocket, TargetSocket, make_schema

if TYPE_CHECKING:
    from ..fusedream_core.clip.base import ImageTextEncoder


class FuseDreamEncodePrompt(io.ComfyNode):
    """Encodes a prompt once; everything downstream aims at the result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamEncodePrompt",
            display_name="Encode Prompt (FuseDream)",
            description=(
                "Says what the picture should show. Several lines, or parts between | signs, are "
                "added up; a number after a colon is a part's weight, and a negative weight "
                "pushes away: a blue dog | blurry:-0.3"
            ),
            search_aliases=["text", "prompt", "CLIP text encode", "FuseDream"],
            inputs=[
                ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="a blue dog",
                    dynamic_prompts=False,
                    placeholder="a blue dog:1 | blurry:-0.3",
                    tooltip=(
                        "What to make. One line is enough; more lines or | add parts, "
                        "'part:weight' weighs them, negative weights push away. What follows a "
                        "colon and is no number belongs to the text."
                    ),
                ),
            ],
            outputs=[
                TargetSocket.Output(
                    display_name="target",
                    tooltip="The encoded prompt, good for the CLIP that encoded it.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip: Managed[ImageTextEncoder], text: str) -> io.NodeOutput:
        with autograd_scope():
            (encoder,) = use_models(clip)
            target = encode_target(encoder, text).to("cpu")
        cut = [part.text for part in target.parts if encoder.truncates(part.text)]
        if cut:
            show_text(f"Too long for this CLIP, the end is ignored: {cut[0]}")
        return io.NodeOutput(target)
