"""How an image came about, as one JSON text: enough to make it again.

It holds the job, which models did it and their hashes, device and versions. What is read from a
image may have been written by anyone: names and types are compared with a fixed list, sizes are
bounded, and nothing in it is taken for a path or an address.
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
from .job import LONGEST_RECORD, Job, Models

logger = logging.getLogger(__name__)

CHUNK = "fusedream"  # the name of the PNG's text chunk
_FORMAT = "fusedream-run-1"
_NAMES = {"gan": "GAN", "clip": "CLIP", "selector": "selector", "perceptual": "LPIPS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """Which weights a model has.

    Attributes:
        id: Its name; of models from files it has the files' hash.
        sha256: Hash of all its tensors; None if it is no module.
    """

    id: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecords:
    """Which models did it; None where there was none of the kind."""

    gan: ModelRecord
    clip: ModelRecord
    selector: ModelRecord | None = None
    perceptual: ModelRecord | None = None
    bank: str | None = None

    @classmethod
    def of(cls, models: Models) -> ModelRecords:
        """Those of a run."""
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
    """What the numbers of a run depend on beside models and settings."""

    fusedream: str
    torch: str
    open_clip: str
    python: str
    threads: int

    @classmethod
    def here(cls) -> Versions:
        """Those of this process."""
        return cls(
            fusedream=VERSION,
            torch=torch.__version__,
            open_clip=_installed("open_clip_torch"),
            python=platform.python_version(),
            threads=torch.get_num_threads(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How an image came about."""

    job: Job
    models: ModelRecords
    device: str
    versions: Versions
    format: str = _FORMAT

    @classmethod
    def of(cls, job: Job, models: Models) -> Provenance:
        """That of a run in this process.

        Raises:
            ConfigError: If it could not be read again.
        """
        device = describe_device(models.gan.device)
        own = cls(job=job, models=ModelRecords.of(models), device=device, versions=Versions.here())
        cls.from_json(own.to_json())  # refuses what could not be read again, as a name too long
        return own

    def to_json(self) -> str:
        """It as JSON, in plain ASCII."""
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read it, trusting nothing.

        Raises:
            ConfigError: If it is something else, or has a name, type or size that none has.
        """
        if len(text) > LONGEST_RECORD:
            raise ConfigError(
                f"The record has {len(text)} characters, but at most {LONGEST_RECORD} are read."
            )
        try:
            plain: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"The record is no JSON ({error}).") from error
        if not isinstance(plain, dict) or plain.get("format") != _FORMAT:
            raise ConfigError("The record is of another program, or another version of this one.")
        return from_plain(cls, plain, "record")

    def check(self, models: Models) -> None:
        """Check that models are those of the record, and warn of what else has changed.

        Raises:
            ConfigError: If a model is missing, another, or one too many.
        """
        here = Provenance.of(self.job, models)
        changed = self._changes(here)
        for field, name in _NAMES.items():
            own, given = getattr(self.models, field), getattr(here.models, field)
            # The same file may be worked out in another way by another version.
            if own != given and not (changed and own and given and own.id == given.id):
                raise ConfigError(
                    f"This was made with {_said(name, own)}, but here is {_said(name, given)}; "
                    "give the models that it was made with."
                )
        if self.models.bank != here.models.bank:
            raise ConfigError(
                f"This was made with {_bank(self.models.bank)}, but here is "
                f"{_bank(here.models.bank)}; give what it was made with."
            )
        if changed:
            logger.warning("The image may come out otherwise: %s.", "; ".join(changed))

    def _changes(self, here: Provenance) -> list[str]:
        """What has changed between the record and this process, in words."""
        then, now = ({**to_plain(own.versions), "device": own.device} for own in (self, here))
        return [
            f"{name} was {then[name]!r:.80} and is {now[name]!r:.80}"
            for name in then
            if then[name] != now[name]
        ]


def _identify(model: object, name: str | None) -> ModelRecord:
    """A model's name, and the hash of its weights; without a name it is called by that."""
    digest = hash_weights(model.state_dict()) if isinstance(model, nn.Module) else None
    kind = type(model).__name__
    own = f"{kind}-{digest[:12]}" if digest else kind
    return ModelRecord(id=own if name is None else name, sha256=digest)


def hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    """A hash of tensors and their names; the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, since NumPy does not know all types.
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(content)  # type: ignore[arg-type]
    return digest.hexdigest()


def _said(name: str, model: ModelRecord | None) -> str:
    """A model in words."""
    if model is None:
        return f"no {name}"
    weights = f" with the weights {model.sha256[:12]}" if model.sha256 else ""
    return f"the {name} {model.id!r:.120}{weights}"


def _bank(key: str | None) -> str:
    """A bank in words."""
    return "no seed bank" if key is None else f"the seed bank {key!r:.80}"


def _installed(package: str) -> str:
    """The version of a package, "none" without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
