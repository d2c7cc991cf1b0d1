"""Nodes that read a GAN, a CLIP or an LPIPS from disk."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..fusedream_core.models.clip.loading import load_open_clip_file, load_open_clip_folder
from ..fusedream_core.models.clip.open_clip import OpenClip
from ..fusedream_core.models.gan.biggan import load_biggan
from ..fusedream_core.models.lpips import load_lpips
from ._downloads import obtain_model
from ._folders import (
    CLIP_FOLDER,
    DEMO,
    GAN_FOLDER,
    LPIPS_FOLDER,
    file_identity,
    fingerprint,
    list_models,
    validate_name,
)
from ._models import AUTO_PRECISION, PRECISIONS, compute_dtype, load_managed
from ._node import Node
from ._types import ClipSocket, GanSocket, LpipsSocket, NameInput, make_schema


def _precision_input() -> io.Combo.Input:
    """Return the widget for the compute dtype."""
    return io.Combo.Input(
        "precision",
        options=[AUTO_PRECISION, *PRECISIONS],
        default=AUTO_PRECISION,
        optional=True,  # so that prompts from before it are valid
        tooltip=(
            "Compute dtype of the model. 'auto' is bfloat16 or float16 on CUDA GPUs that "
            "support it well, which is faster and halves the memory, and float32 elsewhere. "
            "Latents and scores are always float32. In another precision the same seed gives "
            "nearly, not exactly, the same picture."
        ),
    )


def _load_clip(path: Path, architecture: str) -> OpenClip:
    """Load a CLIP from its folder, or from a bare weights file."""
    if path.is_dir():
        return load_open_clip_folder(path)
    return load_open_clip_file(path, architecture)


class FuseDreamLoadGAN(Node):
    """Reads a BigGAN or BigGAN-deep."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamLoadGAN",
            display_name="Load GAN (FuseDream)",
            description=(
                "Reads the image generator: the demo GAN that comes with the pack, or a BigGAN or "
                "BigGAN-deep from models/gan, which can be downloaded here."
            ),
            search_aliases=["BigGAN", "FuseDream", "generator"],
            inputs=[
                NameInput(
                    "gan_name",
                    options=list_models(GAN_FOLDER),
                    default=DEMO,
                    tooltip=(
                        "'demo' is the small emoji GAN of this pack. Others are files in ComfyUI's "
                        "models/gan, or folders of one with a config.json. Those marked as "
                        "download are fetched into that folder when the node runs."
                    ),
                ),
                _precision_input(),
            ],
            outputs=[
                GanSocket.Output(
                    display_name="gan",
                    tooltip="The generator, for Seed Search, Optimize, Compose and Decode Latent.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, gan_name: str | None) -> bool | str:
        """Accept names newer than the list; a linked name is None here."""
        return validate_name(GAN_FOLDER, gan_name)

    @classmethod
    def fingerprint_inputs(cls, gan_name: str | None = None, precision: str | None = None) -> str:
        """Return a digest of the files; the loader runs again when they change."""
        return fingerprint(GAN_FOLDER, gan_name, precision)

    @classmethod
    def execute(cls, gan_name: str, precision: str = AUTO_PRECISION) -> io.NodeOutput:
        path = obtain_model(GAN_FOLDER, gan_name)
        dtype = compute_dtype(precision)
        key = ("gan", file_identity(path), dtype)
        return io.NodeOutput(load_managed(key, gan_name, lambda: load_biggan(path).to(dtype)))


class FuseDreamLoadCLIP(Node):
    """Reads an open_clip model, from a folder or a bare weights file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamLoadCLIP",
            display_name="Load CLIP (FuseDream)",
            description=(
                "Reads the model that compares pictures with text: the demo CLIP that comes with "
                "the pack, or any open_clip model under models/open_clip."
            ),
            search_aliases=["open_clip", "CLIP", "FuseDream"],
            inputs=[
                NameInput(
                    "clip_name",
                    options=list_models(CLIP_FOLDER),
                    default=DEMO,
                    tooltip=(
                        "'demo' is the small CLIP of this pack. Others are folders in "
                        "ComfyUI's models/open_clip, with open_clip_config.json or with the "
                        "config.json of a transformers CLIPModel. Bare weights files there, "
                        "in clip_vision and in text_encoders are listed too. Those marked as "
                        "download are fetched into models/open_clip when the node runs."
                    ),
                ),
                io.String.Input(
                    "architecture",
                    default="",
                    placeholder="only for a bare weights file",
                    tooltip=(
                        "Only for a weights file without open_clip_config.json: the name of "
                        "its architecture in open_clip, such as ViT-B-32-quickgelu. Add the "
                        "tag, as in ViT-L-14/laion2b_s32b_b82k, if the message asks for it. "
                        "Otherwise, and for OpenAI's own .pt files, leave it empty."
                    ),
                ),
                _precision_input(),
            ],
            outputs=[
                ClipSocket.Output(
                    display_name="clip",
                    tooltip=(
                        "The scoring model, for Encode Prompt, Seed Search, Optimize, Compose "
                        "and AugCLIP Score. It is not ComfyUI's CLIP for diffusion models."
                    ),
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, clip_name: str | None) -> bool | str:
        """Accept names newer than the list; a linked name is None here."""
        return validate_name(CLIP_FOLDER, clip_name)

    @classmethod
    def fingerprint_inputs(
        cls,
        clip_name: str | None = None,
        architecture: str | None = None,
        precision: str | None = None,
    ) -> str:
        """Return a digest of the files; the loader runs again when they change."""
        return fingerprint(CLIP_FOLDER, clip_name, architecture, precision)

    @classmethod
    def execute(
        cls, clip_name: str, architecture: str = "", precision: str = AUTO_PRECISION
    ) -> io.NodeOutput:
        path = obtain_model(CLIP_FOLDER, clip_name)
        architecture = architecture.strip()
        dtype = compute_dtype(precision)
        key = ("clip", file_identity(path), architecture, dtype)
        return io.NodeOutput(
            load_managed(key, clip_name, lambda: _load_clip(path, architecture).to(dtype))
        )


class FuseDreamLoadLPIPS(Node):
    """Reads a perceptual distance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamLoadLPIPS",
            display_name="Load LPIPS (FuseDream)",
            description=(
                "Reads LPIPS, a perceptual distance between pictures, for Compose and Invert "
                "Image. The pack comes with a small LPIPS; others are weights files under "
                "models/lpips."
            ),
            search_aliases=["LPIPS", "perceptual", "similarity", "FuseDream"],
            inputs=[
                NameInput(
                    "lpips_name",
                    options=list_models(LPIPS_FOLDER),
                    default=DEMO,
                    tooltip=(
                        "'demo' is the small LPIPS of this pack. Others are files in ComfyUI's "
                        "models/lpips: the weights of torchvision's AlexNet, VGG16 or SqueezeNet "
                        "1.1, or those of a whole lpips.LPIPS. Those marked as download are "
                        "fetched into that folder when the node runs."
                    ),
                ),
            ],
            outputs=[
                LpipsSocket.Output(
                    display_name="lpips", tooltip="The distance, for Compose and Invert Image."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, lpips_name: str | None) -> bool | str:
        """Accept names newer than the list; a linked name is None here."""
        return validate_name(LPIPS_FOLDER, lpips_name)

    @classmethod
    def fingerprint_inputs(cls, lpips_name: str | None = None) -> str:
        """Return a digest of the file; the loader runs again when it changes."""
        return fingerprint(LPIPS_FOLDER, lpips_name)

    @classmethod
    def execute(cls, lpips_name: str) -> io.NodeOutput:
        path = obtain_model(LPIPS_FOLDER, lpips_name)
        key = ("lpips", file_identity(path))
        return io.NodeOutput(load_managed(key, lpips_name, lambda: load_lpips(path)))
