"""The node that searches for a basis."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.config import CompositionRecipe
from ..fusedream_core.pipeline.generate import SEARCH_STREAM
from ..fusedream_core.rng import make_generator
from ..fusedream_core.search.search import search_basis
from ._boundary import Progress, autograd_scope, core_to_image, decode
from ._models import Managed, activation_bytes, use_models
from ._node import Node
from ._report import search_report
from ._types import (
    AS_PRESET,
    PRESETS,
    BankSocket,
    BasisSocket,
    ClipSocket,
    GanSocket,
    TargetSocket,
    chosen,
    make_schema,
    seed_input,
    truncation_input,
)

if TYPE_CHECKING:
    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.models.gan.base import Gan
    from ..fusedream_core.search.bank import Bank
    from ..fusedream_core.types import Target

_D = PRESETS["default"].search
_COMPOSE = CompositionRecipe().search


class FuseDreamSeedSearch(Node):
    """Generates many random images and keeps those that fit the prompt best."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamSeedSearch",
            display_name="Seed Search (FuseDream)",
            description=(
                "Generates many random pictures and keeps the few that fit the prompt best. "
                "CLIP ranks all of them, AugCLIP the best few per cent. They are the "
                "starting point for Optimize and Compose."
            ),
            search_aliases=["FuseDream", "best of N", "basis", "init"],
            inputs=[
                GanSocket.Input("gan", tooltip="From Load GAN (FuseDream)."),
                ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
                TargetSocket.Input("target", tooltip="From Encode Prompt, with the same CLIP."),
                seed_input("Which random pictures are drawn; the same seed draws the same ones."),
                io.Int.Input(
                    "num_candidates",
                    default=AS_PRESET,
                    min=AS_PRESET,
                    max=1_000_000,
                    tooltip=(
                        "How many random pictures to generate. More give a better fit and "
                        "take longer. -1: automatic, 10,000 on a GPU and 400 on a CPU (the "
                        "presets paper and reference code: 10,000 everywhere)."
                    ),
                ),
                io.Int.Input(
                    "num_basis",
                    default=_D.num_basis,
                    min=1,
                    max=64,
                    tooltip=(
                        "How many of the best to keep; Optimize mixes them. The paper has 5. "
                        f"For Compose {_COMPOSE.num_basis} are better."
                    ),
                ),
                truncation_input(),
                io.String.Input(
                    "classes",
                    default="",
                    placeholder="all; or: dog, cat",
                    tooltip=(
                        "Only generate pictures of these classes of the GAN, names separated "
                        "by commas. Empty means all. For an unknown name, the message "
                        "suggests similar ones."
                    ),
                ),
                io.Int.Input(
                    "max_per_class",
                    default=_D.max_per_class,
                    min=0,
                    max=64,
                    tooltip=(
                        "Keep at most this many pictures of one class, as far as other "
                        "classes fill the rest. Optimize then starts from the best picture "
                        f"of each class. For Compose {_COMPOSE.max_per_class} are better. 0: "
                        "no limit."
                    ),
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="default",
                    tooltip=(
                        "How candidates are ranked. default: by CLIP, then the best "
                        f"{_D.num_reranked} by AugCLIP. paper: all by AugCLIP, which is slow. "
                        "reference code: by plain CLIP alone, as in the authors' code."
                    ),
                ),
                BankSocket.Input(
                    "bank",
                    optional=True,
                    tooltip=(
                        "From Seed Bank, with the same models: search a random half of it "
                        "instead of new pictures, in moments. num_candidates is then "
                        "ignored."
                    ),
                ),
            ],
            outputs=[
                BasisSocket.Output(
                    display_name="basis", tooltip="The best latents, for Optimize or Compose."
                ),
                io.Image.Output(display_name="images", tooltip="Their pictures, best first."),
                io.String.Output(
                    display_name="scores", tooltip="Their scores and classes, one a line."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        gan: Managed[Gan],
        clip: Managed[ImageTextEncoder],
        target: Target,
        seed: int,
        num_candidates: int,
        num_basis: int,
        truncation: float,
        classes: str,
        max_per_class: int,
        preset: str,
        bank: Bank | None = None,
    ) -> io.NodeOutput:
        config = replace(
            chosen(PRESETS, preset, "preset").search,
            num_basis=num_basis,
            truncation=truncation or (bank.truncation if bank else None),
            classes=_split_names(classes),
            max_per_class=max_per_class or None,
        )
        if num_candidates != AS_PRESET:
            config = replace(config, num_candidates=num_candidates)
        memory = activation_bytes(gan, clip, images=config.batch_size)
        with autograd_scope():
            generator, encoder = use_models(gan, clip, activation_bytes=memory)
            (basis,) = search_basis(
                generator,
                encoder,
                [target],
                config=config,
                augment=chosen(PRESETS, preset, "preset").augment,
                generator=make_generator(seed, SEARCH_STREAM),
                bank=bank,
                callback=Progress(),
            )
            images = core_to_image(decode(generator, basis.latent))
        return io.NodeOutput(basis.to("cpu"), images, search_report(basis, generator.class_names))


def _split_names(text: str) -> tuple[str, ...] | None:
    """Return the class names in the widget's text; None, for all classes, if it is empty."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) or None
