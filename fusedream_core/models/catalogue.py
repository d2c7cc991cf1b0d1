"""The models that are known by name: what they are, under which licence, and where they lie.

The data is in ``catalogue.json``. Nothing here reads from the network; see ``download.py``.
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
    """One place of a file.

    Attributes:
        url: Its address; ``hf://owner/repository/file`` is a file of the Hugging Face Hub.
        sha256: Of its content, whole or the first digits; empty where it is not known.
    """

    url: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a model.

    Attributes:
        name: What it is called in the model's folder.
        megabytes: About how large it is; 0 for less than one.
        sources: Its places, in the order in which they are tried. Their contents may differ, as
            far as the loader reads all of them alike.
    """

    name: str
    megabytes: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model that can be downloaded.

    Attributes:
        name: Of the model, and of its folder.
        folder: The model folder of ComfyUI that it belongs in.
        title: What it is.
        licence: Of its weights.
        resolution: Side of the pictures that it makes or sees, in pixels.
        files: In the order in which they are downloaded; what a loader looks for comes last.
        note: What else is to be known.
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
        """About how much is downloaded."""
        return sum(file.megabytes for file in self.files)

    def is_in(self, root: Path) -> bool:
        """Whether all of the model's files lie in its folder below ``root``."""
        return all((root / self.name / file.name).is_file() for file in self.files)


def catalogue(folder: Folder | None = None) -> tuple[CatalogueModel, ...]:
    """All models that are known, or those of one model folder.

    Raises:
        ConfigError: If an address is plain http without a whole hash, or a name is no file's.
    """
    entries: list[dict[str, Any]] = json.loads(_DATA.read_text(encoding="utf-8"))
    models = (_model(entry) for entry in entries)
    return tuple(model for model in models if folder in (None, model.folder))


def find_model(name: str) -> CatalogueModel:
    """The model of a name.

    Raises:
        ConfigError: If none has it; the message names all.
    """
    models = {model.name: model for model in catalogue()}
    if name not in models:
        raise ConfigError(f"There is no model {name!r}; there are {', '.join(models)}.")
    return models[name]


def _model(entry: dict[str, Any]) -> CatalogueModel:
    """A model from its data."""
    _require_plain(entry["name"])
    files = tuple(_file(file) for file in entry["files"])
    return CatalogueModel(**{**entry, "files": files})


def _file(entry: dict[str, Any]) -> RemoteFile:
    """A file from its data."""
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
    """Refuse a name that would lead out of its folder."""
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ConfigError(
            f"The catalogue's name {name!r} is refused, because it becomes a file; use letters, "
            "digits, dots, dashes and underscores."
        )
