"""Perceptual distance: LPIPS, based on the package ``lpips``, from local files.

The package downloads its trunk, and its heads fit ImageNet trunks only. Here both come from a local
file, so nothing is downloaded, and other trunks are possible.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_shape
from ..errors import CheckpointError, MissingDependencyError, ShapeError
from ..finite import check_finite_output
from .weights import check_floats, load_weights, read_state_dict

# A tensor that only one net has, by torchvision's name -> the package's name of the net.
_SIGNATURES = {
    "features.3.squeeze.weight": "squeeze",
    "features.28.weight": "vgg",
    "features.10.weight": "alex",
}
# First index of each of the package's slices in torchvision's ``features``.
_SLICES = {
    "squeeze": (0, 2, 5, 8, 10, 11, 12),
    "vgg": (0, 4, 9, 16, 23),
    "alex": (0, 2, 5, 8, 10),
}


MIN_SIDE = 32  # pixels; the last layers need as many


class Perceptual(Protocol):
    """Protocol of a perceptual distance."""

    @property
    def device(self) -> torch.device:
        """Device of the weights and of the inputs."""

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the perceptual distance of two images at each pixel.

        Args:
            images: Shape ``(B, 3, H, W)``, in ``[-1, 1]``.
            others: Same shape and range.

        Returns:
            Shape ``(B, 1, H, W)``, at least 0, differentiable in both.
        """


class Lpips(nn.Module):
    """A frozen LPIPS that follows the ``Perceptual`` protocol.

    References:
        Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
        Metric". Differs from the package: maps are upsampled by matrix products, whose gradient is
        deterministic on every device.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap and freeze a loaded ``lpips.LPIPS``, version 0.1."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        """Return LPIPS at each pixel, shape ``(B, 1, H, W)``; see ``Perceptual.distance_map``.

        Raises:
            ShapeError: If the images are not ``(B, 3, H, W)``, differ in shape, or have a side
                under 32 pixels.
            NonFiniteError: If a distance is NaN or infinite.
        """
        check_shape(images)
        if min(images.shape[-2:]) < MIN_SIDE:
            raise ShapeError(
                f"The images are {images.shape[-1]} x {images.shape[-2]} pixels, but LPIPS needs "
                f'at least {MIN_SIDE} x {MIN_SIDE}; set consistency to "none", or enlarge them.'
            )
        if images.shape != others.shape:
            raise ShapeError(
                f"The images have the shapes {tuple(images.shape)} and {tuple(others.shape)}, "
                "but only images of one shape can be compared; resize one of them."
            )
        from lpips import normalize_tensor

        network: Any = self.network
        # One batch of both: on a CPU, the gradient of a batch of one with 1 x 1 maps is not
        # deterministic.
        both = torch.cat([images, others]).to(next(network.parameters()))
        layers = network.net(network.scaling_layer(both))
        pairs = (normalize_tensor(layer).chunk(2) for layer in layers)
        parts = [
            _upsample(head((own - other).square()), images)
            for (own, other), head in zip(pairs, network.lins, strict=True)
        ]
        distance = torch.stack(parts).sum(dim=0).to(images)
        return check_finite_output(
            distance,
            "LPIPS",
            dtype=distance.dtype,
            inputs=(images, others),
            source="the images",
        )

    forward = distance_map


@torch.inference_mode(False)
def load_lpips(path: Path | str) -> Lpips:
    """Load LPIPS from a local file; the network is not used.

    Args:
        path: A state dict (safetensors, or a PyTorch file of tensors), either of a whole
            ``lpips.LPIPS``, or of torchvision's AlexNet, VGG16 or SqueezeNet 1.1, to which the
            package's heads are added.

    Returns:
        The frozen distance on the CPU, in float32.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or of another model.
        MissingDependencyError: If ``lpips`` is not installed.
    """
    path = Path(path)
    content = read_state_dict(path)
    check_floats(content, path)
    state = {name: value.float() for name, value in content.items()}
    if any(name.startswith("net.slice") for name in state):
        # The heads are in the state dict twice: as attributes, and in a list.
        state = {name: value for name, value in state.items() if not name.startswith("lins.")}
        net = _net_of({_unsliced(name) for name in state}, path)
    else:
        net = _net_of(set(state), path)
        state = _sliced(state, net)
    network = make_lpips(net)
    constants = network.get_submodule("scaling_layer").named_buffers()  # ImageNet's mean and std
    scaling = {f"scaling_layer.{name}": value for name, value in constants}
    heads = _package_heads(net) if "lin0.model.1.weight" not in state else {}
    whole = scaling | heads | state
    whole |= {f"lins.{name[3:]}": value for name, value in whole.items() if name[:3] == "lin"}
    load_weights(network, whole, path)
    return Lpips(network)


def _upsample(maps: Tensor, like: Tensor) -> Tensor:
    """Upsample maps to the size of images, bilinearly."""
    rows, columns = (
        F.interpolate(
            torch.eye(old, dtype=maps.dtype, device=maps.device)[None, None],
            (new, old),
            mode="bilinear",
        )[0, 0]
        for old, new in zip(maps.shape[-2:], like.shape[-2:], strict=True)
    )
    return rows @ maps @ columns.T


def make_lpips(net: str) -> nn.Module:
    """Return a random ``lpips.LPIPS`` of a net ("alex", "vgg", "squeeze"), without a download.

    Raises:
        MissingDependencyError: If ``lpips`` is not installed.
    """
    try:
        import lpips
    except ImportError as error:
        raise MissingDependencyError.of("lpips", "the perceptual distance") from error
    # The constructor draws from the global generator and uses a deprecated call of torchvision.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    return network


def _net_of(names: set[str], path: Path) -> str:
    """Return the net that has these torchvision names."""
    for signature, net in _SIGNATURES.items():
        if signature in names:
            return net
    raise CheckpointError(
        f"The file {path} holds none of the nets that LPIPS is made of; give the weights of "
        "torchvision's AlexNet, VGG16 or SqueezeNet 1.1, or those of a whole lpips.LPIPS."
    )


def _unsliced(name: str) -> str:
    """Convert the package's name of a trunk tensor, as net.slice2.3.bias, to torchvision's."""
    parts = name.split(".")
    return ".".join(["features", *parts[2:]]) if parts[0] == "net" else name


def _sliced(state: dict[str, Tensor], net: str) -> dict[str, Tensor]:
    """Return a trunk's tensors under the package's names, without the classifier."""
    sliced = {}
    for name, value in state.items():
        kind, *place = name.split(".")
        if kind != "features" or not place or not place[0].isdigit():
            continue
        index, *rest = place
        number = sum(int(index) >= start for start in _SLICES[net])
        sliced[".".join([f"net.slice{number}", index, *rest])] = value
    return sliced


def _package_heads(net: str) -> dict[str, Tensor]:
    """Return the package's heads for ImageNet trunks."""
    import lpips

    return read_state_dict(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth")
