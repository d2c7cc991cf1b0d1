"""The node that inverts an image to a latent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.config import InvertConfig
from ..fusedream_core.optimize.invert import invert_image
from ..fusedream_core.optimize.latent_file import GanLatent
from ..fusedream_core.rng import make_generator
from ._boundary import Progress, autograd_scope, core_to_image, image_to_core
from ._models import Managed, activation_bytes, use_models
from ._node import Node
from ._types import (
    ClipSocket,
    GanSocket,
    LatentSocket,
    LpipsSocket,
    Trace,
    TraceSocket,
    make_schema,
    seed_input,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.models.gan.base import Gan
    from ..fusedream_core.models.lpips import Perceptual

_D = InvertConfig()


class FuseDreamInvertImage(Node):
    """Finds the latent whose image is closest to a given one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamInvertImage",
            display_name="Invert Image (FuseDream)",
            description=(
                "Finds the latent whose picture is closest to a given one, by LPIPS, CLIP "
                "and colour. Use it to start from a picture. What the GAN cannot generate "
                "stays different."
            ),
            search_aliases=["FuseDream", "inversion", "img2img", "projection"],
            inputs=[
                GanSocket.Input("gan", tooltip="The GAN that generates the picture."),
                ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
                LpipsSocket.Input("lpips", tooltip="From Load LPIPS (FuseDream)."),
                io.Image.Input(
                    "image", tooltip="One picture from any source; its central square is used."
                ),
                seed_input("Which random latents the search draws."),
                io.Int.Input(
                    "num_steps",
                    default=_D.optimize.num_steps,
                    min=1,
                    max=10_000,
                    tooltip="Optimisation steps; more give a closer match and take longer.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The picture that the GAN generates from the latent.",
                ),
                LatentSocket.Output(
                    display_name="latent",
                    tooltip="Its latent: for Latent to Basis, Interpolate Latents or Save Latent.",
                ),
                io.Float.Output(
                    display_name="distance",
                    tooltip="LPIPS between the two pictures; 0 means identical.",
                ),
                TraceSocket.Output(
                    display_name="trace", tooltip="The loss after each step, for Plot Trace."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        gan: Managed[Gan],
        clip: Managed[ImageTextEncoder],
        lpips: Managed[Perceptual],
        image: Tensor,
        seed: int,
        num_steps: int,
    ) -> io.NodeOutput:
        config = replace(_D, optimize=replace(_D.optimize, num_steps=num_steps))
        num = config.search.num_basis
        memory = activation_bytes(gan, clip, lpips, images=num, gradients=True)
        with autograd_scope():
            core_image = image_to_core(image)
            generator, encoder, distance = use_models(gan, clip, lpips, activation_bytes=memory)
            result = invert_image(
                generator,
                encoder,
                distance,
                core_image,
                config=config,
                generator=make_generator(seed),
                callback=Progress(),
            ).to("cpu")
            inverted = core_to_image(result.images)
        name = generator.class_names[int(result.class_index[0])]
        about = {"prompt": f"inverted from a picture, near {name}", "clip": clip.name}
        trace = Trace(tuple(result.trace.tolist()), "loss", f"inversion, near {name}")
        latent = GanLatent(
            result.latent, generator.gan_id, about, (inverted.shape[1], inverted.shape[2])
        )
        return io.NodeOutput(inverted, latent, float(result.distance[0]), trace)
