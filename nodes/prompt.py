"""The nodes that encode a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.augclip.target import encode_target, image_target, prompt_remarks
from ._boundary import autograd_scope, image_to_core, show_text
from ._models import Managed, use_models
from ._node import Node
from ._types import ClipSocket, TargetSocket, make_schema

if TYPE_CHECKING:
    from torch import Tensor

    from ..fusedream_core.models.clip.base import ImageTextEncoder


class FuseDreamEncodePrompt(Node):
    """Encodes a text as the target of the following nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamEncodePrompt",
            display_name="Encode Prompt (FuseDream)",
            description=(
                "Encodes the prompt. Lines, or parts separated by |, are added up. A number "
                "after a colon is the weight of a part, and a negative weight pushes away: a "
                "blue dog | blurry:-0.3"
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
                        "The prompt. One line is enough; more lines or | add parts, "
                        "'part:weight' weighs them, and negative weights push away. If no "
                        "number follows a colon, it belongs to the text."
                    ),
                ),
            ],
            outputs=[
                TargetSocket.Output(
                    display_name="target",
                    tooltip="The encoded prompt, valid only for the CLIP that encoded it.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip: Managed[ImageTextEncoder], text: str) -> io.NodeOutput:
        with autograd_scope():
            (encoder,) = use_models(clip)
            target = encode_target(encoder, text).to("cpu")
        _show_remarks(encoder, text)
        return io.NodeOutput(target)


class FuseDreamImagePrompt(Node):
    """Encodes images as a target, alone or mixed with a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamImagePrompt",
            display_name="Image Prompt (FuseDream)",
            description=(
                "Uses the CLIP features of pictures as the target, alone or mixed with a "
                "text. Several pictures are averaged."
            ),
            search_aliases=["FuseDream", "image prompt", "variation", "unclip"],
            inputs=[
                ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
                io.Image.Input("images", tooltip="Any pictures."),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="",
                    dynamic_prompts=False,
                    placeholder="optional text to mix in",
                    tooltip="As in Encode Prompt. Empty: only the pictures.",
                ),
                io.Float.Input(
                    "text_share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Weight of the text, if there is one; the pictures have the rest.",
                ),
            ],
            outputs=[
                TargetSocket.Output(
                    display_name="target",
                    tooltip="The encoded target, valid only for the CLIP that encoded it.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, clip: Managed[ImageTextEncoder], images: Tensor, text: str, text_share: float
    ) -> io.NodeOutput:
        with autograd_scope():
            core_images = image_to_core(images)
            (encoder,) = use_models(clip)
            target = image_target(encoder, core_images, prompt=text, text_share=text_share)
        if text.strip():
            _show_remarks(encoder, text)
        return io.NodeOutput(target.to("cpu"))


def _show_remarks(encoder: ImageTextEncoder, text: str) -> None:
    """Show warnings about the text below the node."""
    remarks = prompt_remarks(encoder, text)
    if remarks:
        show_text("\n".join(remarks))
