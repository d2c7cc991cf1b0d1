"""Downloads models from the catalogue when a loader needs them."""

from __future__ import annotations

import logging
from pathlib import Path

from ..fusedream_core.models.catalogue import CatalogueModel
from ..fusedream_core.models.download import cached_folder, download_model
from ._boundary import show_text
from ._folders import download_root, offered_model, place_of, resolve_model

logger = logging.getLogger(__name__)


def obtain_model(key: str, name: str) -> Path:
    """Return the folder or file of a name in a loader's list; download it first if needed.

    Raises:
        CheckpointError: If no model has that name.
        DownloadError: If the download fails.
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
    """Callback that shows the downloaded MB on the node and its bar, and checks Cancel."""

    def __init__(self, model: CatalogueModel) -> None:
        import comfy.utils

        self._bar = comfy.utils.ProgressBar(100)
        self._name = model.name
        self._shown = ""

    def __call__(self, done: int, total: int | None) -> None:
        import comfy.model_management as management

        management.throw_exception_if_processing_interrupted()
        of_all = f" of {total / 1e6:.0f}" if total else ""
        text = f"{self._name}: {done / 1e6:.0f}{of_all} MB"
        if text != self._shown:
            self._shown = text
            show_text(text)
            if total:
                self._bar.update_absolute(round(100 * done / total), 100)
