"""Nodes on latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.errors import ConfigError
from ._boundary import autograd_scope, core_to_image, decode
from ._models import Managed, activation_bytes, use_models
from ._types import GanLatent, GanSocket, LatentSocket, make_schema

if TYPE_CHECKING:
    from ..fusedream_core.gan.base import Gan


class FuseDreamDecodeLatent(io.ComfyNode):
    """Draws the picture of a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamDecodeLatent",
            display_name="Decode Latent (FuseDream)",
            description=(
                "Draws the pictures of the latents that Optimize or Compose returned, with no "
                "search."
            ),
            search_aliases=["FuseDream", "BigGAN", "generate"],
            inputs=[
                GanSocket.Input("gan", tooltip="The GAN that the latent belongs to."),
                LatentSocket.Input("latent", tooltip="From Optimize or Compose (FuseDream)."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="One picture per latent.")],
        )

    @classmethod
    def execute(cls, gan: Managed[Gan], latent: GanLatent) -> io.NodeOutput:
        memory = activation_bytes(gan, pictures=len(latent.latent.z))
        with autograd_scope():
            (generator,) = use_models(gan, activation_bytes=memory)
            if latent.gan_id != generator.gan_id:
                raise ConfigError(
                    f"The latent belongs to the GAN {latent.gan_id!r}, but the GAN connected here "
                    f"is {generator.gan_id!r}; connect the one that the latent was made with."
                )
            return io.NodeOutput(core_to_image(decode(generator, latent.latent)))
