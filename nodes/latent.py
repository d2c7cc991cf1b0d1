"""Nodes for latents: decode, save, load, interpolate, and use as a basis."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.config import DEFAULT
from ..fusedream_core.errors import CheckpointError, ConfigError
from ..fusedream_core.optimize.latent_file import GanLatent, interpolate, load_latent, save_latent
from ..fusedream_core.output import saving
from ..fusedream_core.rng import make_generator
from ..fusedream_core.search.basis_from_latents import basis_from
from ._boundary import DECODE_BATCH, autograd_scope, core_to_image, decode
from ._folders import file_identity
from ._models import Managed, activation_bytes, use_models
from ._node import Node
from ._report import search_report
from ._types import (
    BasisSocket,
    ClipSocket,
    GanSocket,
    LatentSocket,
    NameInput,
    TargetSocket,
    make_schema,
)

if TYPE_CHECKING:
    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.models.gan.base import Gan
    from ..fusedream_core.types import Target

_SUFFIX = ".safetensors"
_FOLDER = "fusedream"  # in ComfyUI's output and input folders
_NOTHING = "(no latent was saved yet)"
_STREAM = 6
_MAX_NAME_BYTES, _MAX_PREFIX_LENGTH = 200, 1_000  # without the number; characters


class FuseDreamDecodeLatent(Node):
    """Decodes latents to images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamDecodeLatent",
            display_name="Decode Latent (FuseDream)",
            description=(
                "Decodes the latents that Optimize or Compose returned, without a search."
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
        memory = activation_bytes(gan, images=min(len(latent.latent.z), DECODE_BATCH))
        with autograd_scope():
            (generator,) = use_models(gan, activation_bytes=memory)
            _check_gan(latent, generator)
            return io.NodeOutput(core_to_image(decode(generator, latent.latent)))


class FuseDreamSaveLatent(Node):
    """Saves a latent to a file, with its prompt and settings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamSaveLatent",
            display_name="Save Latent (FuseDream)",
            description=(
                "Saves a latent to ComfyUI's output folder as a small safetensors file. The "
                "file holds the prompt, the models and the settings, so that a later run can "
                "continue from it."
            ),
            search_aliases=["FuseDream", "keep", "export"],
            is_output_node=True,
            inputs=[
                LatentSocket.Input("latent", tooltip="From Optimize, Compose or Invert Image."),
                io.String.Input(
                    "filename_prefix",
                    default="latent",
                    tooltip=(
                        "Name, or folder and name, in output/fusedream; a number is added, so that "
                        "nothing is overwritten. %width%, %height%, %year%, %month%, %day%, "
                        "%hour%, %minute% and %second% stand for these numbers."
                    ),
                ),
            ],
            outputs=[
                io.String.Output(display_name="name", tooltip="The file, as Load Latent lists it.")
            ],
        )

    @classmethod
    def execute(cls, latent: GanLatent, filename_prefix: str) -> io.NodeOutput:
        import folder_paths

        root = str(Path(folder_paths.get_output_directory()) / _FOLDER)
        width, height = _pixels(latent, filename_prefix)
        _check_prefix(filename_prefix, Path(root))
        with saving(Path(root)):  # creates the folder
            folder, name, counter, _, _ = folder_paths.get_save_image_path(
                filename_prefix, root, width, height
            )
        path = Path(folder) / f"{name}_{counter:05}_{_SUFFIX}"
        save_latent(latent, path)
        saved = f"{path.relative_to(root).as_posix()} [output]"
        return io.NodeOutput(saved, ui={"text": (saved,)})


class FuseDreamLoadLatent(Node):
    """Reads a latent from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamLoadLatent",
            display_name="Load Latent (FuseDream)",
            description=(
                "Reads a latent that Save Latent wrote. Decode it with Decode Latent, or "
                "continue from it with Latent to Basis, with the same prompt or another."
            ),
            search_aliases=["FuseDream", "import"],
            inputs=[
                NameInput(
                    "latent_name",
                    options=list(_saved()) or [_NOTHING],
                    tooltip=(
                        "Files of Save Latent in output/fusedream, and your own files in "
                        "input/fusedream."
                    ),
                )
            ],
            outputs=[
                LatentSocket.Output(display_name="latent", tooltip="The latent."),
                io.String.Output(
                    display_name="about", tooltip="Its prompt, models and settings, one a line."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, latent_name: str | None) -> bool | str:
        """Accept files newer than the list; a linked name is None here."""
        if latent_name is None or _place(latent_name) is not None:
            return True
        return _gone(latent_name)

    @classmethod
    def fingerprint_inputs(cls, latent_name: str | None = None) -> str:
        """Return size and time of the file, or of all files if the name is linked."""
        chosen = _saved().values() if latent_name is None else [_place(latent_name)]
        return "".join(repr(file_identity(path)[0][1:]) for path in chosen if path is not None)

    @classmethod
    def execute(cls, latent_name: str) -> io.NodeOutput:
        path = _place(latent_name)
        if path is None:
            raise CheckpointError(_gone(latent_name))
        with autograd_scope():
            own = load_latent(path)
        lines = [f"- {name}: {value}" for name, value in {**own.about, "gan": own.gan_id}.items()]
        return io.NodeOutput(own, "\n".join(lines))


class FuseDreamInterpolateLatents(Node):
    """Decodes the images between two latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamInterpolateLatents",
            display_name="Interpolate Latents (FuseDream)",
            description=(
                "Decodes the pictures between two latents, as a batch for video nodes. z is "
                "interpolated along a great circle, the class along a line."
            ),
            search_aliases=["FuseDream", "slerp", "morph", "video", "animation"],
            inputs=[
                GanSocket.Input("gan", tooltip="The GAN that both latents belong to."),
                LatentSocket.Input("first", tooltip="The latent of the first picture."),
                LatentSocket.Input("last", tooltip="The latent of the last picture."),
                io.Int.Input(
                    "num_frames",
                    default=16,
                    min=2,
                    max=1024,
                    tooltip="Number of pictures, both ends included.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The pictures, in order."),
                LatentSocket.Output(display_name="latents", tooltip="Their latents."),
            ],
        )

    @classmethod
    def execute(
        cls, gan: Managed[Gan], first: GanLatent, last: GanLatent, num_frames: int
    ) -> io.NodeOutput:
        memory = activation_bytes(gan, images=min(num_frames, DECODE_BATCH))
        with autograd_scope():
            (generator,) = use_models(gan, activation_bytes=memory)
            for end in (first, last):
                _check_gan(end, generator)
            way = interpolate(first.latent, last.latent, num_frames)
            images = core_to_image(decode(generator, way))
        about = {
            f"{side} {k}": v
            for side, end in (("first", first), ("last", last))
            for k, v in end.about.items()
        }
        height, width = images.shape[1:3]
        return io.NodeOutput(images, GanLatent(way, first.gan_id, about, (height, width)))


class FuseDreamLatentToBasis(Node):
    """Makes a basis from existing latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamLatentToBasis",
            display_name="Latent to Basis (FuseDream)",
            description=(
                "Starts Optimize from existing latents: loaded, inverted from a picture, or "
                "optimised before. The prompt may be the same or another."
            ),
            search_aliases=["FuseDream", "img2img", "continue", "refine"],
            inputs=[
                GanSocket.Input("gan", tooltip="The GAN that the latent belongs to."),
                ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
                TargetSocket.Input("target", tooltip="The prompt to continue with."),
                LatentSocket.Input("latent", tooltip="One latent or several."),
            ],
            outputs=[
                BasisSocket.Output(display_name="basis", tooltip="For Optimize, best first."),
                io.Image.Output(display_name="images", tooltip="Their pictures, best first."),
                io.String.Output(display_name="scores", tooltip="Their scores, one a line."),
            ],
        )

    @classmethod
    def execute(
        cls,
        gan: Managed[Gan],
        clip: Managed[ImageTextEncoder],
        target: Target,
        latent: GanLatent,
    ) -> io.NodeOutput:
        memory = activation_bytes(gan, clip, images=min(len(latent.latent.z), DECODE_BATCH))
        with autograd_scope():
            generator, encoder = use_models(gan, clip, activation_bytes=memory)
            _check_gan(latent, generator)
            basis = basis_from(
                generator,
                encoder,
                target,
                latent.latent,
                augment=DEFAULT.augment,
                generator=make_generator(0, _STREAM),
            )
            images = core_to_image(decode(generator, basis.latent))
        return io.NodeOutput(basis.to("cpu"), images, search_report(basis, generator.class_names))


def _pixels(latent: GanLatent, filename_prefix: str) -> tuple[int, int]:
    """Return width and height of a latent's images, for a file name that contains them."""
    asked = "%width%" in filename_prefix or "%height%" in filename_prefix
    if latent.image_size is None and asked:
        raise ConfigError(
            f"filename_prefix is {filename_prefix!r}, but the latent comes from a file that does "
            "not say how large its pictures are; leave %width% and %height% out.",
            setting="filename_prefix",
        )
    height, width = latent.image_size or (0, 0)
    return width, height


def _check_prefix(filename_prefix: str, root: Path) -> None:
    """Raise if no file in the folder can have a name.

    Raises:
        ConfigError: If it is empty, leads out of the folder, or has invalid characters.
    """
    kinds = {unicodedata.category(char) for char in filename_prefix}
    good = filename_prefix.strip() != "" and not kinds & {"Cc", "Cs", "Zl", "Zp"}
    if good:
        # Links are not resolved, as in ComfyUI.
        target = Path(os.path.abspath(root / filename_prefix))  # noqa: PTH100 - resolves no link
        good = target != root and target.is_relative_to(root)
        parts = target.parts[len(root.parts) :]
        good = good and max(len(os.fsencode(part)) for part in parts) <= _MAX_NAME_BYTES
    if not good or len(filename_prefix) > _MAX_PREFIX_LENGTH:
        raise ConfigError(
            f"filename_prefix is {filename_prefix!a:.80}, but it must be a name, or folders and a "
            f"name with / between them, within {_FOLDER} in ComfyUI's output folder, of at most "
            f"{_MAX_NAME_BYTES} bytes each and without line breaks; give another.",
            setting="filename_prefix",
        )


def _check_gan(latent: GanLatent, gan: Gan) -> None:
    """Raise if a latent belongs to another GAN."""
    if latent.gan_id != gan.gan_id:
        raise ConfigError(
            f"The latent belongs to the GAN {latent.gan_id!r}, but the GAN connected here is "
            f"{gan.gan_id!r}; connect the one that the latent was made with."
        )


def _saved() -> dict[str, Path]:
    """Return all files that may hold a latent: name with ComfyUI's mark -> path."""
    import folder_paths

    roots = {
        "output": Path(folder_paths.get_output_directory()) / _FOLDER,
        "input": Path(folder_paths.get_input_directory()) / _FOLDER,
    }
    found = {}
    for mark, root in roots.items():
        for path in sorted(root.rglob(f"*{_SUFFIX}"), reverse=True):
            found[f"{path.relative_to(root).as_posix()} [{mark}]"] = path
    return found


def _place(name: object) -> Path | None:
    """Return the file of a latent's name, or None."""
    return _saved().get(name) if isinstance(name, str) else None


def _gone(name: object) -> str:
    """Return the message for a latent that does not exist."""
    if not isinstance(name, str):
        return f"The name of a latent is a text, but {name!r} was given."
    return (
        f"There is no latent {name!r}; save one with Save Latent, or put it into input/fusedream, "
        "press R to refresh the list, and choose it."
    )
