"""BigGAN-deep, over the package ``pytorch_pretrained_biggan``.

The package has traps that this folder keeps from the rest of the core: spectral normalisation that
is recomputed at each call, normalisation statistics mixed the wrong way round, and a loader that
asks the network and ignores wrong files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import CheckpointError, ConfigError, MissingDependencyError
from ..weights import find_file, fingerprint, load_weights, read_json, read_state_dict
from .lean import LeanNetwork

if TYPE_CHECKING:
    from pytorch_pretrained_biggan import BigGAN

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
TRUNCATED_NORMAL_STD = 0.8796  # of N(0, 1) within [-2, 2]


class BigGan(nn.Module):
    """A frozen BigGAN-deep generator that follows the ``Gan`` protocol.

    Attributes:
        gan_id: Name of the weights.
        class_names: One name for each class.
        truncation: The tau that the weights look best at.
        dim_z: Length of z.
        dim_y: Length of y (the package gives both the same length).
        num_classes: Number of classes.
        resolution: Side of the pictures in pixels.
        z_std: Spread of one coordinate of z at truncation 1.
        y_std: Spread of one coordinate of the class embeddings, near 0.067 for the released ones.
    """

    def __init__(
        self,
        network: BigGAN,
        *,
        gan_id: str,
        class_names: Sequence[str] | None = None,
        truncation: float = 1.0,
    ) -> None:
        """Wrap a network that has its weights.

        Args:
            network: The package's model, whose weights are taken over; it is of no use afterwards.
            gan_id: Name of the weights.
            class_names: One name for each class; "class 0" and so on if not given.
            truncation: The tau that the weights look best at, above 0 and at most 1.

        Raises:
            ConfigError: If the names do not match the classes, or tau is out of range.
        """
        super().__init__()
        config = network.config
        names = class_names or [f"class {index}" for index in range(config.num_classes)]
        if len(names) != config.num_classes:
            raise ConfigError(
                f"There are {len(names)} class names, but the GAN has {config.num_classes} "
                "classes; give one name for each."
            )
        if not 0.0 < truncation <= 1.0:
            raise ConfigError(
                f"truncation is {truncation!r}, but it must be above 0 and at most 1."
            )
        self.class_weight = nn.Parameter(network.embeddings.weight.detach().clone(), False)
        self.network = LeanNetwork(network)
        self.gan_id = gan_id
        self.class_names: tuple[str, ...] = tuple(names)
        self.truncation = float(truncation)
        self.dim_z: int = config.z_dim
        self.dim_y: int = config.z_dim
        self.num_classes: int = config.num_classes
        self.resolution: int = 4 * 2 ** sum(bool(layer[0]) for layer in config.layers)
        self.z_std = TRUNCATED_NORMAL_STD
        self.y_std = float(self.class_weight.float().std())
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

    def decode(self, z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
        """Decode latents into pictures.

        Args:
            z: Latent noise, shape ``(N, dim_z)``.
            y: Class embeddings, shape ``(N, dim_y)``.
            truncation: tau, above 0 and at most 1; picks the normalisation statistics only.

        Returns:
            Pictures, shape ``(N, 3, H, W)``, in ``[-1, 1]``; differentiable in z and y.
        """
        images: Tensor = self.network(torch.cat((z, y), dim=1), truncation)
        return images


def load_biggan(folder: Path | str) -> BigGan:
    """Load a generator from a local folder, never touching the network.

    Args:
        folder: Holds ``config.json`` (the package's ``BigGANConfig``, and optionally
            ``class_names`` and ``truncation``) and ``model.safetensors`` or
            ``pytorch_model.bin``.

    Returns:
        The frozen generator on the CPU, in float32.

    Raises:
        CheckpointError: If a file is missing, damaged, unsafe or of another model.
        MissingDependencyError: If ``pytorch_pretrained_biggan`` is not installed.

    References:
        pytorch_pretrained_biggan, ``BigGAN.from_pretrained``. Differs: strict about names and
        shapes, runs no code from pickles.
    """
    folder = Path(folder)
    config_path = find_file(folder, ("config.json",))
    weights_path = find_file(folder, WEIGHT_NAMES)
    settings = read_json(config_path)
    class_names = settings.pop("class_names", None)
    truncation = settings.pop("truncation", 1.0)
    network = make_network(settings, config_path)
    load_weights(network, read_state_dict(weights_path), weights_path)
    return BigGan(
        network,
        gan_id=f"biggan-{fingerprint(config_path, weights_path)}",
        class_names=class_names,
        truncation=truncation,
    )


def make_network(settings: dict[str, Any], path: Path) -> BigGAN:
    """Build the package's network from the fields of ``BigGANConfig``; some of it is unset.

    Args:
        settings: Fields of ``BigGANConfig``.
        path: The file they come from, for the message.

    Raises:
        CheckpointError: If they do not describe a network.
        MissingDependencyError: If the package is not installed.
    """
    try:
        from pytorch_pretrained_biggan import BigGAN, BigGANConfig
    except ImportError as error:
        raise MissingDependencyError(
            "The package pytorch_pretrained_biggan is needed for BigGAN; "
            "run 'pip install pytorch-pretrained-biggan'."
        ) from error
    try:
        config = BigGANConfig(**settings)
        if config.n_stats < 2:
            raise ValueError("n_stats must be at least 2")
        # The constructor draws initial values from the global generator; leave it as it was.
        with torch.random.fork_rng(devices=[]):
            return BigGAN(config)
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"The config {path} does not describe a BigGAN ({error}); use the one that came with "
            "the weights."
        ) from error
