"""Models that a loader is asked for and that may not be there yet."""

from __future__ import annotations

import logging
from pathlib import Path

from ..fusedream_core.models.catalogue import CatalogueModel
from ..fusedream_core.models.download import cached_folder, download_model
from ._boundary import show_text
from ._folders import download_root, offered_model, place_of, resolve_model

logger = logging.getLogger(__name__)


def obtain_model(key: str, name: str) -> Path:
    """The folder or file behind a name of a loader's list; downloaded first, where it says so.

    Raises:
        CheckpointError: If no model of that name is there now.
        DownloadError: If it could not be downloaded.
    """
    model = offered_model(key, name)
    if model is None:
        return resolve_model(key, name)
    place = place_of(model) or cached_folder(model)
    if place is None:
        logger.info("FuseDream downloads %s (%s).", model.title, model.licence)
        download_model(model, download_root(key), progress=_Progress(model))
        place = resolve_model(key, name)
    return place


class _Progress:
    """Shows how much of a file is there, on the node and its bar; Cancel is looked at each time."""

    def __init__(self, model: CatalogueModel) -> None:
        import comfy.utils

        self._bar = comfy.utils.ProgressBar(100)
        self._name = model.name
        self._told = ""

    def __call__(self, done: int, total: int | None) -> None:
        import comfy.model_management as management

        management.throw_exception_if_processing_interrupted()
        of_all = f" of {total / 1e6:.0f}" if total else ""
        text = f"{self._name}: {done / 1e6:.0f}{of_all} MB"
        if text != self._told:
            self._told = text
            show_text(text)
            if total:
                self._bar.update_absolute(round(100 * done / total), 100)
