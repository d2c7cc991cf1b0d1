"""The catalogue of downloadable models: names, licences and addresses.

The data is in ``catalogue.json``. This module does not use the network; see ``download.py``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError

Folder = Literal["gan", "open_clip", "lpips"]

_DATA = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True, slots=True)
class Source:
    """One download source of a file.

    Attributes:
        url: Address; ``hf://owner/repository/file`` is a file of the Hugging Face Hub.
        sha256: Hash of the content, complete or its first digits; empty if unknown.
    """

    url: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a model.

    Attributes:
        name: File name in the model's folder.
        megabytes: Approximate size; 0 for less than one.
        sources: Sources, in order of preference. Their contents may differ, if the loader reads
            all of them alike.
    """

    name: str
    megabytes: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A downloadable model.

    Attributes:
        name: Name of the model and its folder.
        folder: ComfyUI model folder.
        title: Description.
        licence: Licence of the weights.
        resolution: Side of the output or input images in pixels.
        files: Files in download order; a loader's entry file is the last.
        note: Further notes.
    """

    name: str
    folder: Folder
    title: str
    licence: str
    resolution: int | None
    files: tuple[RemoteFile, ...]
    note: str = ""

    @property
    def megabytes(self) -> int:
        """Approximate size of the download."""
        return sum(file.megabytes for file in self.files)

    def is_in(self, root: Path) -> bool:
        """Return whether all files are in the model's folder below ``root``."""
        return all((root / self.name / file.name).is_file() for file in self.files)


def catalogue(folder: Folder | None = None) -> tuple[CatalogueModel, ...]:
    """Return all models of the catalogue, or those of one model folder.

    Raises:
        ConfigError: If an address is plain http without a complete hash, or a name is not a valid
            file name.
    """
    entries: list[dict[str, Any]] = json.loads(_DATA.read_text(encoding="utf-8"))
    models = (_model(entry) for entry in entries)
    return tuple(model for model in models if folder in (None, model.folder))


def find_model(name: str) -> CatalogueModel:
    """Return a model by name.

    Raises:
        ConfigError: If the name is unknown; the message lists all names.
    """
    models = {model.name: model for model in catalogue()}
    if name not in models:
        raise ConfigError(f"There is no model {name!r}; there are {', '.join(models)}.")
    return models[name]


def _model(entry: dict[str, Any]) -> CatalogueModel:
    """Parse a model."""
    _require_plain(entry["name"])
    files = tuple(_file(file) for file in entry["files"])
    return CatalogueModel(**{**entry, "files": files})


def _file(entry: dict[str, Any]) -> RemoteFile:
    """Parse a file."""
    _require_plain(entry["name"])
    sources = tuple(Source(**source) for source in entry["sources"])
    for source in sources:
        safe = source.url.startswith(("https://", "hf://"))
        if not safe and not re.fullmatch("[0-9a-f]{64}", source.sha256):
            raise ConfigError(
                f"The catalogue's address {source.url} is refused, because what comes over plain "
                "http can be exchanged on the way; give its https address, or its whole SHA-256."
            )
    return RemoteFile(entry["name"], entry["megabytes"], sources)


def _require_plain(name: str) -> None:
    """Refuse a name that would escape its folder."""
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ConfigError(
            f"The catalogue's name {name!r} is refused, because it becomes a file; use letters, "
            "digits, dots, dashes and underscores."
        )
