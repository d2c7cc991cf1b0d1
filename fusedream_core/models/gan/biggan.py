"""BigGAN and BigGAN-deep, from any public file of their weights.

Names and config of BigGAN-deep are those of the package ``pytorch_pretrained_biggan``. Its defects
are avoided: spectral normalisation recomputed at each call, interpolation weights of the statistics
swapped, and a loader that downloads and ignores wrong files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import rng
from ...errors import CheckpointError, ConfigError
from ...finite import check_finite_output
from ..precision import MixedPrecision
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
from .biggan_deep import DeepNetwork
from .biggan_original import OriginalNetwork
from .conversion import read_original
from .deep_checkpoint import as_package, is_deep, make_network, settings_of
from .layouts import find_layout
from .settings import GanSettings, find_config, read_settings
from .variants import channel_order

logger = logging.getLogger(__name__)

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
TRUNCATED_NORMAL_STD = 0.8796  # of N(0, 1) within [-2, 2]


class BigGan(MixedPrecision):
    """A frozen BigGAN or BigGAN-deep that follows the ``Gan`` protocol.

    In half precision, as after ``.to(torch.bfloat16)``, only the convolutions are; latents, class
    embeddings and images stay in float32.

    Attributes:
        gan_id: Name of the weights.
        class_names: One name per class.
        truncation: Recommended value.
        dim_z: Length of z.
        dim_y: Length of y.
        num_classes: Number of classes.
        resolution: Side of the images in pixels.
        z_std: Standard deviation of a coordinate of z at truncation 1.
        y_std: Standard deviation of the class embeddings, about 0.067 for the released weights.
    """

    half_prefixes = ("network.",)

    def __init__(
        self,
        network: DeepNetwork | OriginalNetwork,
        class_weight: Tensor,
        *,
        gan_id: str,
        class_names: Sequence[str] | None = None,
        truncation: float = 1.0,
    ) -> None:
        """Wrap a loaded network.

        Args:
            network: Decodes z and y to images.
            class_weight: Class embeddings, shape ``(dim_y, num_classes)``.
            gan_id: Name of the weights.
            class_names: One name per class; None means ImageNet's for 1,000 classes, else
                "class 0" and so on.
            truncation: Recommended value, above 0 and at most 1.

        Raises:
            ConfigError: If the number of names is wrong, or the truncation is out of range.
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
        """Device of the weights."""
        return self.class_weight.device

    def sample_z(self, num: int, *, truncation: float, generator: torch.Generator) -> Tensor:
        """Draw ``z ~ truncation * truncnorm(-2, 2)``, shape ``(num, dim_z)``.

        Args:
            num: Number of rows.
            truncation: Above 0 and at most 1.
            generator: CPU generator, advanced by this call.

        References:
            The convention of the release on TensorFlow Hub.
        """
        z = truncation * rng.truncated_normal((num, self.dim_z), generator=generator)
        return z.to(self.class_weight)

    def embed(self, class_index: Tensor) -> Tensor:
        """Return class embeddings, shape ``(N, dim_y)``, of indices ``(N,)``."""
        return self.class_weight[:, class_index.to(self.device)].T.contiguous()

    def decode(self, z: Tensor, y: Tensor, *, truncation: float | None = None) -> Tensor:
        """Decode latents to images.

        Args:
            z: Latent noise, shape ``(N, dim_z)``.
            y: Class embeddings, shape ``(N, dim_y)``.
            truncation: Above 0 and at most 1, which selects the normalisation statistics; None
                means the recommended one.

        Returns:
            Images, shape ``(N, 3, H, W)``, in ``[-1, 1]``; differentiable in z and y.

        Raises:
            NonFiniteError: If an image or a latent has NaN or infinite values.
        """
        images: Tensor = self.network(torch.cat((z, y), dim=1), truncation or self.truncation)
        return check_finite_output(
            images,
            f"the GAN {self.gan_id}",
            dtype=self.network.rgb_weight.dtype,
            inputs=(z, y),
            source="the gradient of an earlier step",
        )

    forward = decode


def _usual_names(num_classes: int) -> Sequence[str]:
    """Return default class names."""
    if num_classes == 1000:
        from open_clip import IMAGENET_CLASSNAMES

        return tuple(IMAGENET_CLASSNAMES)
    return [f"class {index}" for index in range(num_classes)]


@torch.inference_mode(False)
def load_biggan(path: Path | str) -> BigGan:
    """Load a generator from local files, without network access.

    The architecture and the layout of the file are detected from the names of the weights.

    Args:
        path: A weights file, or a folder with one, with an optional config file, see
            ``settings.find_config``. Its keys are ``class_names``, ``truncation``, ``eps``,
            ``channel_order``, and the fields of the package's ``BigGANConfig`` (BigGAN-deep).

    Returns:
        The frozen generator on the CPU, in float32.

    Raises:
        CheckpointError: If a file is missing, damaged, unsafe or of another model.
        MissingDependencyError: If ``pytorch_pretrained_biggan`` is not installed.

    References:
        pytorch_pretrained_biggan, ``BigGAN.from_pretrained``. Differs: names and shapes
        are checked, and pickled code is not run.
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
    check_finite(network.state_dict(), weights_path)  # a singular value of 0 gives NaN
    return BigGan(
        network,
        class_weight,
        gan_id=f"biggan-{fingerprint(*files)}",
        class_names=settings.class_names,
        truncation=settings.truncation,
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a float32 state dict without common prefixes, and the metadata of the file."""
    content, notes = read_checkpoint(path)
    state = part_of(
        content,
        ("module.", "generator_ema.", "generator."),
        lambda part: is_deep(part) or find_layout(part) is not None,
    )
    used = set(map(id, state.values()))
    check_floats({name: tensor for name, tensor in content.items() if id(tensor) in used}, path)
    # Copies, since the tensors may be memory-mapped.
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}, notes


def _read_deep(
    state: dict[str, Tensor], settings: GanSettings, path: Path
) -> tuple[Tensor, DeepNetwork]:
    """Return class embeddings and network of a BigGAN-deep."""
    state = as_package(state)
    fields = dict(settings.network)
    if "layers" not in fields:  # from a released shape, with overrides
        fields = settings_of(state, path) | fields
    network = make_network(fields, state, path)
    with reading(path):  # layers may not fit each other
        return network.embeddings.weight.detach(), DeepNetwork(network)


def _read_original(
    state: dict[str, Tensor], settings: GanSettings, path: Path
) -> tuple[Tensor, OriginalNetwork]:
    """Return class embeddings and network of an original BigGAN."""
    left_out = settings.network.keys() - {"eps"}
    if left_out:
        logger.warning(
            "FuseDream does not use %s in the config of %s: its weights determine it.",
            ", ".join(sorted(left_out)),
            path,
        )
    weights = read_original(state, path, eps=settings.eps)
    return weights.classes.T, OriginalNetwork(weights)
