"""The record of an image as JSON, sufficient to make it again.

It has the job, ids and hashes of the models, device and versions. Records from files are untrusted:
names and types are checked against the dataclasses, sizes are bounded, and no value is used as a
path or an address.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import nn

from ..config import from_plain, to_plain
from ..devices import describe_device
from ..errors import ConfigError
from ..version import VERSION
from .job import MAX_RECORD_LENGTH, Job, Models

logger = logging.getLogger(__name__)

CHUNK = "fusedream"  # name of the PNG text chunk
_FORMAT = "fusedream-run-1"
_NAMES = {"gan": "GAN", "clip": "CLIP", "selector": "selector", "perceptual": "LPIPS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """Identity of a model.

    Attributes:
        id: Name; for models from files it has the hash of the files.
        sha256: Hash of the state dict; None if the model is not a module.
    """

    id: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecords:
    """Identities of the models of a run; None for unused ones."""

    gan: ModelRecord
    clip: ModelRecord
    selector: ModelRecord | None = None
    perceptual: ModelRecord | None = None
    bank: str | None = None

    @classmethod
    def of(cls, models: Models) -> ModelRecords:
        """Return the identities of given models."""
        perceptual, selector = models.perceptual, models.selector
        return cls(
            gan=_identify(models.gan, models.gan.gan_id),
            clip=_identify(models.clip, models.clip.clip_id),
            selector=None if selector is None else _identify(selector, selector.clip_id),
            perceptual=None if perceptual is None else _identify(perceptual, None),
            bank=None if models.bank is None else models.bank.key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Versions and thread count, on which results can depend."""

    fusedream: str
    torch: str
    open_clip: str
    python: str
    threads: int

    @classmethod
    def here(cls) -> Versions:
        """Return the versions of this process."""
        return cls(
            fusedream=VERSION,
            torch=torch.__version__,
            open_clip=_installed("open_clip_torch"),
            python=platform.python_version(),
            threads=torch.get_num_threads(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The record of an image."""

    job: Job
    models: ModelRecords
    device: str
    versions: Versions
    format: str = _FORMAT

    @classmethod
    def of(cls, job: Job, models: Models) -> Provenance:
        """Return the record of a run in this process.

        Raises:
            ConfigError: If it could not be read again.
        """
        record = cls(
            job=job,
            models=ModelRecords.of(models),
            device=describe_device(models.gan.device),
            versions=Versions.here(),
        )
        cls.from_json(record.to_json())  # refuses unreadable records, as with a name too long
        return record

    def to_json(self) -> str:
        """Return the record as ASCII JSON."""
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Parse an untrusted record.

        Raises:
            ConfigError: If the text is not a record, or a name, type or size is invalid.
        """
        if len(text) > MAX_RECORD_LENGTH:
            raise ConfigError(
                f"The record has {len(text)} characters, but at most {MAX_RECORD_LENGTH} are read."
            )
        try:
            plain: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"The record is no JSON ({error}).") from error
        if not isinstance(plain, dict) or plain.get("format") != _FORMAT:
            raise ConfigError("The record is of another program, or another version of this one.")
        return from_plain(cls, plain, "record")

    def check(self, models: Models) -> None:
        """Check that models equal those of the record, and warn about other differences.

        Raises:
            ConfigError: If a model is missing, different, or additional.
        """
        here = Provenance.of(self.job, models)
        changed = self._changes(here)
        for field, name in _NAMES.items():
            own, given = getattr(self.models, field), getattr(here.models, field)
            # Another version may convert the same file differently.
            if own != given and not (changed and own and given and own.id == given.id):
                raise ConfigError(
                    f"This was made with {_describe(name, own)}, but here is "
                    f"{_describe(name, given)}; give the models that it was made with."
                )
        if self.models.bank != here.models.bank:
            raise ConfigError(
                f"This was made with {_bank(self.models.bank)}, but here is "
                f"{_bank(here.models.bank)}; give what it was made with."
            )
        if changed:
            logger.warning("The image may come out otherwise: %s.", "; ".join(changed))

    def _changes(self, here: Provenance) -> list[str]:
        """List the differences of versions and device between two records."""
        then, now = ({**to_plain(own.versions), "device": own.device} for own in (self, here))
        return [
            f"{name} was {then[name]!r:.80} and is {now[name]!r:.80}"
            for name in then
            if then[name] != now[name]
        ]


def _identify(model: object, name: str | None) -> ModelRecord:
    """Return a model's identity; the hash replaces a missing name."""
    digest = hash_weights(model.state_dict()) if isinstance(model, nn.Module) else None
    default = f"{type(model).__name__}-{digest[:12]}" if digest else type(model).__name__
    return ModelRecord(id=default if name is None else name, sha256=digest)


def hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of tensors and their names, equal on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, since NumPy does not have all dtypes.
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(content)  # type: ignore[arg-type]
    return digest.hexdigest()


def _describe(name: str, model: ModelRecord | None) -> str:
    """Describe a model for a message."""
    if model is None:
        return f"no {name}"
    weights = f" with the weights {model.sha256[:12]}" if model.sha256 else ""
    return f"the {name} {model.id!r:.120}{weights}"


def _bank(key: str | None) -> str:
    """Describe a bank for a message."""
    return "no seed bank" if key is None else f"the seed bank {key!r:.80}"


def _installed(package: str) -> str:
    """Return the version of a package, or "none"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
