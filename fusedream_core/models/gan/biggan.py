"""BigGAN and BigGAN-deep, from whatever public file of their weights.

BigGAN-deep's names and config are those of the package ``pytorch_pretrained_biggan``. It has traps
that this folder keeps from the rest of the core: spectral normalisation that is recomputed at each
call, normalisation statistics mixed the wrong way round, and a loader that asks the network and
ignores wrong files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import rng
from ...determinism import repeatable
from ...errors import CheckpointError, ConfigError
from ...finite import check_finite_output
from ..weights import (
    check_finite,
    check_floats,
    find_weights,
    fingerprint,
    part_of,
    read_checkpoint,
    reading,
    weight_files,
)
from .biggan_deep import LeanNetwork
from .biggan_original import OriginalNetwork
from .conversion import read_original
from .deep_checkpoint import as_package, is_deep, make_network, settings_of
from .layouts import find_layout
from .settings import GanSettings, find_config, read_settings
from .variants import channel_order

logger = logging.getLogger(__name__)

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
TRUNCATED_NORMAL_STD = 0.8796  # of N(0, 1) within [-2, 2]


class BigGan(nn.Module):
    """A frozen BigGAN or BigGAN-deep that follows the ``Gan`` protocol.

    Attributes:
        gan_id: Name of the weights.
        class_names: One name for each class.
        truncation: The tau that the weights look best at.
        dim_z: Length of z.
        dim_y: Length of y.
        num_classes: Number of classes.
        resolution: Side of the pictures in pixels.
        z_std: Spread of one coordinate of z at truncation 1.
        y_std: Spread of one coordinate of the class embeddings, near 0.067 for the released ones.
    """

    def __init__(
        self,
        network: LeanNetwork | OriginalNetwork,
        class_weight: Tensor,
        *,
        gan_id: str,
        class_names: Sequence[str] | None = None,
        truncation: float = 1.0,
    ) -> None:
        """Wrap a network that has its weights.

        Args:
            network: Makes pictures of z and y.
            class_weight: Class embeddings, shape ``(dim_y, num_classes)``.
            gan_id: Name of the weights.
            class_names: One name for each class; if not given, ImageNet's for 1,000 classes, and
                else "class 0" and so on.
            truncation: The tau that the weights look best at, above 0 and at most 1.

        Raises:
            ConfigError: If the names do not match the classes, or tau is out of range.
        """
        super().__init__()
        self.dim_y, self.num_classes = class_weight.shape
        names = class_names or _usual_names(self.num_classes)
        if len(names) != self.num_classes:
            raise ConfigError(
                f"There are {len(names)} class names, but the GAN has {self.num_classes} "
                "classes; give one name for each."
            )
        if not 0.0 < truncation <= 1.0:
            raise ConfigError(
                f"truncation is {truncation!r}, but it must be above 0 and at most 1."
            )
        self.class_weight = nn.Parameter(class_weight.clone(), requires_grad=False)
        self.network = network
        self.gan_id = gan_id
        self.class_names: tuple[str, ...] = tuple(names)
        self.truncation = float(truncation)
        self.dim_z, self.resolution = network.dim_z, network.resolution
        self.z_std = TRUNCATED_NORMAL_STD
        self.y_std = float(class_weight.std())
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.class_weight.device

    def compute_in(self, dtype: torch.dtype) -> None:
        """Do the bulk of ``decode`` in this precision, for devices that are good at a lower one.

        Latents and pictures stay as they are. float16 and bfloat16 take half the memory.
        """
        self.network.compute_in(dtype)

    def sample_z(self, num: int, *, truncation: float, generator: torch.Generator) -> Tensor:
        """Draw ``z ~ truncation * truncnorm(-2, 2)``, shape ``(num, dim_z)``.

        Args:
            num: Number of rows.
            truncation: tau, above 0 and at most 1.
            generator: CPU generator, advanced by this call.

        References:
            The convention of the TF Hub release, whose weights the package converts.
        """
        z = truncation * rng.truncated_normal((num, self.dim_z), generator=generator)
        return z.to(self.class_weight)

    def embed(self, class_index: Tensor) -> Tensor:
        """Class embeddings, shape ``(N, dim_y)``, of indices ``(N,)``."""
        return self.class_weight[:, class_index.to(self.device)].T.contiguous()

    @repeatable()
    def decode(self, z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
        """Decode latents into pictures.

        Args:
            z: Latent noise, shape ``(N, dim_z)``.
            y: Class embeddings, shape ``(N, dim_y)``.
            truncation: tau, above 0 and at most 1; picks the normalisation statistics only.

        Returns:
            Pictures, shape ``(N, 3, H, W)``, in ``[-1, 1]``; differentiable in z and y.

        Raises:
            NonFiniteError: If an image or a latent holds NaN or infinite numbers.
        """
        images: Tensor = self.network(torch.cat((z, y), dim=1), truncation)
        return check_finite_output(
            images,
            f"the GAN {self.gan_id}",
            dtype=self.network.rgb_weight.dtype,
            inputs=(z, y),
            source="the gradient of a step before",
        )


def _usual_names(num_classes: int) -> Sequence[str]:
    """Names of classes that come without."""
    if num_classes == 1000:
        from open_clip import IMAGENET_CLASSNAMES

        return tuple(IMAGENET_CLASSNAMES)
    return [f"class {index}" for index in range(num_classes)]


@torch.inference_mode(False)
def load_biggan(path: Path | str) -> BigGan:
    """Load a generator from local files, never touching the network.

    Which BigGAN it is, and who converted it, is read from the names of its weights.

    Args:
        path: A file of weights, or a folder of one; with, if need be, a config beside it, see
            ``settings.find_config``: optionally ``class_names``, ``truncation``, ``eps``,
            ``channel_order``, and the fields of the package's ``BigGANConfig`` (BigGAN-deep).

    Returns:
        The frozen generator on the CPU, in float32.

    Raises:
        CheckpointError: If a file is missing, damaged, unsafe or of another model.
        MissingDependencyError: If ``pytorch_pretrained_biggan`` is not installed.

    References:
        pytorch_pretrained_biggan, ``BigGAN.from_pretrained``. Differs: strict about names and
        shapes, runs no code from pickles.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"There is no folder or file {path}; check the name of the GAN's weights."
        )
    weights_path = path if path.is_file() else find_weights(path, WEIGHT_NAMES)
    config_path = find_config(weights_path, is_folder=path.is_dir())
    settings = GanSettings() if config_path is None else read_settings(config_path)
    files = ([] if config_path is None else [config_path]) + [*weight_files(weights_path)]
    state, notes = _read(weights_path)
    parts = _read_deep if is_deep(state) else _read_original
    class_weight, network = parts(state, settings, weights_path)
    if (settings.channel_order or channel_order(state, notes, weights_path)) == "bgr":
        for parameter in (network.rgb_weight, network.rgb_bias):
            parameter.data = parameter.data.flip(0)
    check_finite(network.state_dict(), weights_path)  # which a singular value of 0 makes of them
    return BigGan(
        network,
        class_weight,
        gan_id=f"biggan-{fingerprint(*files)}",
        class_names=settings.class_names,
        truncation=settings.truncation,
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A state dict in float32, without what some put before all names; and the file's notes."""
    content, notes = read_checkpoint(path)
    state = part_of(
        content,
        ("module.", "generator_ema.", "generator."),
        lambda part: is_deep(part) or find_layout(part) is not None,
    )
    own = set(map(id, state.values()))
    check_floats({name: tensor for name, tensor in content.items() if id(tensor) in own}, path)
    # Copies, as what was read may be the file itself in memory, which others may change.
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}, notes


def _read_deep(
    state: dict[str, Tensor], settings: GanSettings, path: Path
) -> tuple[Tensor, LeanNetwork]:
    """Class embeddings and network of a BigGAN-deep."""
    state = as_package(state)
    fields = dict(settings.network)
    if "layers" not in fields:  # those of a released shape, but for what is said
        fields = settings_of(state, path) | fields
    network = make_network(fields, state, path)
    with reading(path):  # layers that do not fit each other
        return network.embeddings.weight.detach(), LeanNetwork(network)


def _read_original(
    state: dict[str, Tensor], settings: GanSettings, path: Path
) -> tuple[Tensor, OriginalNetwork]:
    """Class embeddings and network of an original BigGAN."""
    left_out = settings.network.keys() - {"eps"}
    if left_out:
        logger.warning(
            "FuseDream does not use %s in the config of %s: an original BigGAN's weights say it.",
            ", ".join(sorted(left_out)),
            path,
        )
    weights = read_original(state, path, eps=settings.eps)
    return weights.classes.T, OriginalNetwork(weights)
