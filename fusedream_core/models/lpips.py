"""Perceptual distance: LPIPS, over the package ``lpips``, from files that lie on this machine.

The package downloads its trunk when it is constructed, and its heads fit ImageNet's trunks only.
Here both come from a local file, so that nothing is fetched and a trunk of one's own will do.
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

# Tensor that only one of the package's nets has, in torchvision's names -> the package's name.
_SIGNATURES = {
    "features.3.squeeze.weight": "squeeze",
    "features.28.weight": "vgg",
    "features.10.weight": "alex",
}
# Where each of the package's slices begins in torchvision's ``features``.
_SLICES = {
    "squeeze": (0, 2, 5, 8, 10, 11, 12),
    "vgg": (0, 4, 9, 16, 23),
    "alex": (0, 2, 5, 8, 10),
}


MIN_SIDE = 32  # pixels; smaller pictures do not reach the last layers


class Perceptual(Protocol):
    """What composition asks of a perceptual distance."""

    @property
    def device(self) -> torch.device:
        """Where its weights are, and its pictures have to be."""

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        """How different two pictures look, at each pixel.

        Args:
            images: Shape ``(B, 3, H, W)``, in ``[-1, 1]``.
            others: Pictures of the same shape.

        Returns:
            Shape ``(B, 1, H, W)``, at least 0, differentiable in both.
        """


class Lpips(nn.Module):
    """A frozen LPIPS that follows the ``Perceptual`` protocol.

    References:
        Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
        Metric". Differs from the package: its maps are enlarged by matrix products, which have the
        same gradient twice on every device.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap the package's ``LPIPS``, version 0.1, once it has its weights; it is frozen."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        """LPIPS at each pixel, shape ``(B, 1, H, W)``; see ``Perceptual.distance_map``.

        Raises:
            ShapeError: If the pictures are not ``(B, 3, H, W)``, differ in shape, or have a side
                under 32 pixels.
            NonFiniteError: If a distance is NaN or infinite.
        """
        check_shape(images)
        if min(images.shape[-2:]) < MIN_SIDE:
            raise ShapeError(
                f"The pictures are {images.shape[-1]} x {images.shape[-2]} pixels, but LPIPS needs "
                f'at least {MIN_SIDE} x {MIN_SIDE}; set consistency to "none", or enlarge them.'
            )
        if images.shape != others.shape:
            raise ShapeError(
                f"The pictures have the shapes {tuple(images.shape)} and {tuple(others.shape)}, "
                "but only pictures of one shape can be compared; resize one of them."
            )
        from lpips import normalize_tensor

        network: Any = self.network
        # One batch of both: a batch of one whose maps have shrunk to a pixel takes another way on a
        # CPU, whose gradient differs from time to time by rounding.
        layers = network.net(network.scaling_layer(torch.cat([images, others])))
        pairs = (normalize_tensor(layer).chunk(2) for layer in layers)
        parts = [
            _enlarge(head((own - other).square()), images)
            for (own, other), head in zip(pairs, network.lins, strict=True)
        ]
        distance = torch.stack(parts).sum(dim=0)
        return check_finite_output(
            distance,
            "LPIPS",
            dtype=distance.dtype,
            inputs=(images, others),
            source="whatever made the images",
        )


@torch.inference_mode(False)
def load_lpips(path: Path | str) -> Lpips:
    """Load LPIPS from a local file, never touching the network.

    Args:
        path: A state dict (safetensors, or a PyTorch file of tensors): either that of a whole
            ``lpips.LPIPS``, or that of torchvision's AlexNet, VGG16 or SqueezeNet 1.1, to which
            the package's own heads are added. Which it is, is told by its names.

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
        # The heads stand in the state dict twice: by themselves, and in a list.
        state = {name: value for name, value in state.items() if not name.startswith("lins.")}
        net = _net_of({_unsliced(name) for name in state}, path)
    else:
        net = _net_of(set(state), path)
        state = _sliced(state, net)
    network = make_lpips(net)
    scaling = {f"scaling_layer.{name}": value for name, value in _scaling(network).items()}
    heads = _package_heads(net) if "lin0.model.1.weight" not in state else {}
    whole = scaling | heads | state
    whole |= {f"lins.{name[3:]}": value for name, value in whole.items() if name[:3] == "lin"}
    load_weights(network, whole, path)
    return Lpips(network)


def _enlarge(maps: Tensor, like: Tensor) -> Tensor:
    """Maps at the size of pictures, bilinear."""
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
    """The package's ``LPIPS`` of a net ("alex", "vgg", "squeeze"), at random, not downloaded.

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
    """Which of the package's nets has these names, as torchvision gives them."""
    for signature, net in _SIGNATURES.items():
        if signature in names:
            return net
    raise CheckpointError(
        f"The file {path} holds none of the nets that LPIPS is made of; give the weights of "
        "torchvision's AlexNet, VGG16 or SqueezeNet 1.1, or those of a whole lpips.LPIPS."
    )


def _unsliced(name: str) -> str:
    """The package's name of a trunk's tensor as torchvision's: net.slice2.3.bias."""
    parts = name.split(".")
    return ".".join(["features", *parts[2:]]) if parts[0] == "net" else name


def _sliced(state: dict[str, Tensor], net: str) -> dict[str, Tensor]:
    """A trunk's tensors under the package's names; the classifier is left out."""
    sliced = {}
    for name, value in state.items():
        kind, *place = name.split(".")
        if kind != "features" or not place or not place[0].isdigit():
            continue
        index, *rest = place
        number = sum(int(index) >= start for start in _SLICES[net])
        sliced[".".join([f"net.slice{number}", index, *rest])] = value
    return sliced


def _scaling(network: nn.Module) -> dict[str, Tensor]:
    """ImageNet's mean and spread, which the package keeps as buffers."""
    return dict(network.get_submodule("scaling_layer").named_buffers())


def _package_heads(net: str) -> dict[str, Tensor]:
    """The heads that the package ships for ImageNet's trunks."""
    import lpips

    return read_state_dict(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth")
