"""Seed banks: precomputed CLIP features of a fixed set of candidates.

The paper draws 10,000 latents per prompt. The features of their images do not depend on the prompt,
so a bank stores them. A search over the bank is a matrix product. The latents are drawn again
from the bank's seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config.require import require, require_count
from ..determinism import deterministic
from ..errors import CheckpointError
from ..models.clip.base import ImageTextEncoder
from ..models.demo import demo_bank_path
from ..models.gan.base import Gan
from ..models.weights import read_safetensors, reading
from ..output import write_whole
from ..rng import make_generator
from ..types import Callback, Record, StepInfo

BANK_SIZE = 20_000  # a search scores half of them, as many as the paper
_BANK_STREAM = 2
_FORMAT = "fusedream-bank-1"
_MAX_ID_LENGTH = 1_000  # characters of a model's id
_MAX_ROUNDING = 0.05  # of a feature's length, in half precision


@dataclass(frozen=True, slots=True, eq=False)
class Bank(Record):
    """CLIP features of the images of M candidates.

    Attributes:
        features: Unit-norm image features, shape ``(M, D)``; float16 in files.
        class_index: Class of each candidate, shape ``(M,)``, int64, cycling over all classes.
        gan_id: Name of the GAN.
        clip_id: Name of the CLIP.
        truncation: Truncation of the latents.
        seed: Seed of the latents.
    """

    features: Tensor
    class_index: Tensor
    gan_id: str
    clip_id: str
    truncation: float
    seed: int = 0

    @classmethod
    def empty(
        cls, num: int, gan: Gan, clip: ImageTextEncoder, *, truncation: float, seed: int
    ) -> Bank:
        """Return a bank of M candidates without features.

        Raises:
            ConfigError: If ``num`` is below 1, or the truncation not above 0 and at most 1.
        """
        require_count("num", num, 1)
        require(0.0 < truncation <= 1.0, "truncation", truncation, "above 0 and at most 1")
        classes = torch.arange(num) % len(gan.class_names)
        return cls(torch.empty(num, 0), classes, gan.gan_id, clip.clip_id, float(truncation), seed)

    def __len__(self) -> int:
        return len(self.class_index)

    @property
    def key(self) -> str:
        """Hash of models, truncation, seed and size, which determine the bank."""
        own = (_FORMAT, len(self), self.gan_id, self.clip_id, self.truncation, self.seed)
        return hashlib.sha256(repr(own).encode()).hexdigest()[:24]

    def fits(self, gan: Gan, clip: ImageTextEncoder, truncation: float) -> bool:
        """Return whether the bank is of these models, at this truncation."""
        own = (self.gan_id, self.clip_id, self.truncation)
        return own == (gan.gan_id, clip.clip_id, truncation)

    def check_sizes(self, num_classes: int, dim: int) -> None:
        """Check that classes and features fit the models of the bank.

        Raises:
            CheckpointError: If not.
        """
        if self.features.shape[1] != dim or int(self.class_index.max()) >= num_classes:
            raise CheckpointError(
                f"The seed bank is damaged, as its features have {self.features.shape[1]} numbers "
                f"and its classes go to {int(self.class_index.max())}, but those of its models "
                f"have {dim} and go to {num_classes - 1}; delete it to have one made."
            )

    def sample_z(self, gan: Gan) -> Tensor:
        """Draw the candidates' z, shape ``(M, dim_z)``."""
        generator = make_generator(self.seed, _BANK_STREAM)
        return gan.sample_z(len(self), truncation=self.truncation, generator=generator)


@deterministic()
@torch.no_grad()
def build_bank(
    gan: Gan,
    clip: ImageTextEncoder,
    *,
    truncation: float | None = None,
    num: int = BANK_SIZE,
    seed: int = 0,
    batch_size: int = 10,
    callback: Callback | None = None,
) -> Bank:
    """Decode and encode all candidates of a new bank.

    Args:
        gan: The generator.
        clip: The encoder.
        truncation: None means the GAN's recommendation.
        num: M, the number of candidates.
        seed: Seed of the latents, from 0 to 2**64 - 1.
        batch_size: Images per decoded batch; changes memory, not the result.
        callback: Called after each batch; it may raise to stop.

    Raises:
        ConfigError: If a number is below 1, or the truncation not above 0 and at most 1.
    """
    require_count("batch_size", batch_size, 1)
    truncation = gan.truncation if truncation is None else truncation
    bank = Bank.empty(num, gan, clip, truncation=truncation, seed=seed)
    z, features = bank.sample_z(gan), list[Tensor]()
    total = -(-num // batch_size)
    for step, rows in enumerate(torch.arange(num).split(batch_size), start=1):
        images = gan.decode(
            z[rows.to(z.device)], gan.embed(bank.class_index[rows]), truncation=truncation
        )
        features.append(clip.encode_images(images).half().cpu())
        if callback is not None:
            callback(StepInfo("bank", step, total, torch.zeros(1), images[:1]))
    return dataclasses.replace(bank, features=torch.cat(features))


def save_bank(bank: Bank, path: Path | str) -> None:
    """Write a bank to a file atomically.

    Raises:
        SaveError: If the file cannot be written, for example on a full disk.
    """
    from safetensors.torch import save

    metadata = {
        "format": _FORMAT,
        "gan_id": bank.gan_id,
        "clip_id": bank.clip_id,
        "truncation": repr(bank.truncation),
        "seed": str(bank.seed),
    }
    tensors = {"features": bank.features.half(), "class_index": bank.class_index.to(torch.int32)}
    write_whole(Path(path), save({k: v.cpu().contiguous() for k, v in tensors.items()}, metadata))


@torch.inference_mode(False)
def load_bank(path: Path | str) -> Bank:
    """Read a bank.

    Raises:
        CheckpointError: If the file is missing, damaged, or not a bank.
    """
    path = Path(path)
    state, metadata = read_safetensors(path)
    with reading(path):
        if metadata.get("format") != _FORMAT or state.keys() != {"features", "class_index"}:
            raise CheckpointError(f"The file {path} is no seed bank; delete it to have one made.")
        if state["class_index"].dtype not in (torch.int32, torch.int64):
            raise _damaged(path)
        bank = Bank(
            state["features"],
            state["class_index"].long(),
            metadata["gan_id"],
            metadata["clip_id"],
            float(metadata["truncation"]),
            int(metadata["seed"]),
        )
    numbers, index = bank.features, bank.class_index
    whole = numbers.ndim == 2 and index.ndim == 1 and len(numbers) == len(index) > 0
    stated = 0.0 < bank.truncation <= 1.0 and 0 <= bank.seed < 1 << 64
    named = max(len(bank.gan_id), len(bank.clip_id)) <= _MAX_ID_LENGTH
    sound = whole and stated and named and numbers.is_floating_point() and int(index.min()) >= 0
    # Features have length 1 up to rounding; the comparison is false for NaN.
    if not sound or not bool(_is_unit(numbers.float().norm(dim=1)).all()):
        raise _damaged(path)
    return bank


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"The seed bank {path} is damaged; delete it to have one made.")


def _is_unit(lengths: Tensor) -> Tensor:
    return (lengths - 1.0).abs() < _MAX_ROUNDING


def load_demo_bank() -> Bank:
    """Load the demo pair's seed bank.

    Raises:
        CheckpointError: If its file is missing or damaged.
    """
    return load_bank(demo_bank_path())
