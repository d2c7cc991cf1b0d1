"""Latents outside of a run: kept in files, and on the way from one to another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..config.require import require_count
from ..errors import CheckpointError, ConfigError
from ..models.weights import read_safetensors, reading
from ..output import write_whole
from ..types import Latent, Record

_FORMAT = "fusedream-latent-1"
_MOST_NOTES, _LONGEST_NAME, _LONGEST_NOTE = 200, 200, 100_000
_ALIKE = 1e-4  # sine of the angle below which two directions are one


@dataclass(frozen=True, slots=True, eq=False)
class GanLatent(Record):
    """Latents, and whose they are.

    Attributes:
        latent: One or more latents.
        gan_id: The GAN that they belong to; another one would draw something else from them.
        about: How they came about, in words: the prompt, the CLIP, the settings.
        image_size: Height and width of their images in pixels, where that is known.
    """

    latent: Latent
    gan_id: str
    about: Mapping[str, str] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None


def save_latent(own: GanLatent, path: Path | str) -> None:
    """Write latents to a safetensors file, whole or not at all; what they are about goes along.

    Raises:
        SaveError: If the file cannot be written, as where the disk is full.
    """
    from safetensors.torch import save

    metadata = {
        **own.about,
        "format": _FORMAT,
        "gan_id": own.gan_id,
        "truncation": repr(own.latent.truncation),
    }
    if own.image_size is not None:
        metadata["image_size"] = "x".join(map(str, own.image_size))
    tensors = {"z": own.latent.z, "y": own.latent.y}
    write_whole(
        Path(path), save({k: v.float().cpu().contiguous() for k, v in tensors.items()}, metadata)
    )


@torch.inference_mode(False)
def load_latent(path: Path | str) -> GanLatent:
    """Read latents.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    state, about = read_safetensors(path)
    if about.pop("format", None) != _FORMAT or state.keys() != {"z", "y"}:
        raise CheckpointError(f"The file {path} holds no latents of FuseDream.")
    with reading(path):
        gan_id, truncation = about.pop("gan_id"), float(about.pop("truncation"))
        size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", about.pop("image_size", ""))
    z, y = state["z"], state["y"]
    whole = z.ndim == y.ndim == 2 and len(z) == len(y) > 0 and 0.0 < truncation <= 1.0
    numbers = z.is_floating_point() and y.is_floating_point()
    if not (whole and numbers) or not (z.isfinite().all() and y.isfinite().all()):
        raise CheckpointError(f"The latents in {path} are damaged; make or copy them again.")
    _check_notes(about | {"gan_id": gan_id}, path)
    image_size = (int(size[1]), int(size[2])) if size else None
    return GanLatent(Latent(z.float(), y.float(), truncation), gan_id, about, image_size)


def _check_notes(notes: Mapping[str, str], path: Path) -> None:
    """Refuse notes that nobody can read; what they say is shown, and never used."""
    longest = max(len(text) for text in notes.values())
    names = max(len(name) for name in notes)
    if len(notes) > _MOST_NOTES or names > _LONGEST_NAME or longest > _LONGEST_NOTE:
        raise CheckpointError(
            f"The latents in {path} are refused, because the notes beside them are more than "
            f"{_MOST_NOTES}, or longer than {_LONGEST_NOTE:,} characters; save them again."
        )


def interpolate(first: Latent, last: Latent, num: int) -> Latent:
    """Latents on the way from one to another, both included.

    z goes along a great circle, as points between two of a Gaussian lie in a thinner shell than
    these, and y along a line.

    Args:
        first: One latent.
        last: Another of the same GAN.
        num: How many, at least 2.

    Raises:
        ConfigError: If ``num`` is below 2, there are several latents, or the two do not fit.

    References:
        White 2016, "Sampling Generative Networks" (arXiv:1609.04468).
    """
    require_count("num", num, 2)
    same = first.z.shape == last.z.shape and first.y.shape == last.y.shape
    if len(first.z) != 1 or not same or first.truncation != last.truncation:
        raise ConfigError(
            f"The latents are {tuple(first.z.shape)} at truncation {first.truncation:g} and "
            f"{tuple(last.z.shape)} at {last.truncation:g}; give one and one, of one GAN and "
            "truncation."
        )
    share = torch.linspace(0.0, 1.0, num, device=first.z.device)[:, None]
    y = torch.lerp(first.y, last.y, share)
    return Latent(_slerp(first.z, last.z, share), y, first.truncation)


def _slerp(first: Tensor, last: Tensor, share: Tensor) -> Tensor:
    """Points on the great circle, their length between those of the ends."""
    lengths = torch.lerp(first.norm(dim=1, keepdim=True), last.norm(dim=1, keepdim=True), share)
    a, b = (torch.nn.functional.normalize(z, dim=1) for z in (first, last))
    angle = (a * b).sum(dim=1, keepdim=True).clamp(-1.0, 1.0).acos()
    sine = angle.sin()
    no_direction = float(torch.minimum(first.norm(), last.norm())) == 0.0
    if no_direction or float(sine) < _ALIKE:  # or one line, on which no circle is the shortest
        return torch.lerp(first, last, share)
    points = ((1.0 - share) * angle).sin() / sine * a + (share * angle).sin() / sine * b
    return lengths * points
