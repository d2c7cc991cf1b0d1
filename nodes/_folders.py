"""Lists the models of the loaders, and finds the files of each name.

A name from a workflow is only looked up in ComfyUI's listing of the model folders and in the
catalogue. It is never joined to a path.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from ..fusedream_core.errors import CheckpointError
from ..fusedream_core.models.catalogue import CatalogueModel, catalogue
from ..fusedream_core.models.clip.loading import CONFIG_NAMES, holds_open_clip
from ..fusedream_core.models.demo import demo_clip_dir, demo_gan_dir, demo_lpips_path

DEMO = "demo"
GAN_FOLDER = "gan"
CLIP_FOLDER = "open_clip"
LPIPS_FOLDER = "lpips"

# A folder with one of these files is one model; empty if every model is a single file.
_CONFIG_NAMES: dict[str, tuple[str, ...]] = {
    GAN_FOLDER: ("config.json",),
    CLIP_FOLDER: CONFIG_NAMES,
    LPIPS_FOLDER: (),
}
# Other folders that may hold a model; most of their files are of other kinds.
_OTHER_FOLDERS = {GAN_FOLDER: (), CLIP_FOLDER: ("clip_vision", "text_encoders"), LPIPS_FOLDER: ()}
_DEMO_PATHS = {
    GAN_FOLDER: demo_gan_dir,
    CLIP_FOLDER: demo_clip_dir,
    LPIPS_FOLDER: demo_lpips_path,
}


def register_folders() -> None:
    """Register ``models/gan``, ``models/open_clip`` and ``models/lpips`` with ComfyUI.

    May be called any number of times. Entries of extra_model_paths.yaml, which is read before the
    packs, are kept; they accept every file until extensions are set.
    """
    import folder_paths

    for key in _CONFIG_NAMES:
        folder_paths.add_model_folder_path(key, str(Path(folder_paths.models_dir) / key))
        paths, extensions = folder_paths.folder_names_and_paths[key]
        if not folder_paths.supported_pt_extensions <= set(extensions):
            merged = set(extensions) | folder_paths.supported_pt_extensions
            folder_paths.folder_names_and_paths[key] = (paths, merged)
            folder_paths.filename_list_cache.pop(key, None)


def list_models(key: str) -> list[str]:
    """Return a loader's list: ``demo``, installed models, and marked downloads."""
    found = _found(key)
    listed = set(found.values())
    offers = [
        offer(model)
        for model in catalogue()
        if model.folder == key and not _is_listed(model, listed)
    ]
    return [DEMO, *sorted(name for name in found if name != DEMO), *offers]


def offer(model: CatalogueModel) -> str:
    """Return the name of a download in a loader's list, with its size and licence."""
    return f"{model.name} (download, {model.megabytes} MB, {model.licence})"


def offered_model(key: str, name: object) -> CatalogueModel | None:
    """Return the model of such a name, installed or not; None for any other name."""
    offers = {offer(model): model for model in catalogue() if model.folder == key}
    return offers.get(name) if isinstance(name, str) else None


def validate_name(key: str, name: object) -> bool | str:
    """Return True if a loader accepts a name, or else the message for the user.

    ComfyUI passes None for a linked name, which only :func:`resolve_model` can check.
    """
    if name is None:
        return True
    if isinstance(name, str) and (name in list_models(key) or offered_model(key, name) is not None):
        return True
    return _no_model(key, name)


def _no_model(key: str, name: object) -> str:
    """Return the message for a model that is not installed."""
    if not isinstance(name, str):
        return f"The name of a model is a text, such as {DEMO!r}, but {name!r} was given."
    return (
        f"There is no model {name!r} in ComfyUI's model folder {key!r}; put it there, press R to "
        "refresh the list, and choose it again."
    )


def resolve_model(key: str, name: str) -> Path:
    """Return the folder or file of a name of :func:`list_models`.

    Raises:
        CheckpointError: If no model has that name.
    """
    if name == DEMO:
        return Path(_DEMO_PATHS[key]())
    model = offered_model(key, name)
    found = _found(key).get(name) if model is None else place_of(model)
    if found is None:
        raise CheckpointError(_no_model(key, name))
    return found


def download_root(key: str) -> Path:
    """Return the first of ComfyUI's folders of this key, the place for downloads."""
    import folder_paths

    register_folders()
    return Path(folder_paths.get_folder_paths(key)[0])


def place_of(model: CatalogueModel) -> Path | None:
    """Return the folder or file of an installed catalogue model, or None."""
    import folder_paths

    register_folders()
    for root in map(Path, folder_paths.get_folder_paths(model.folder)):
        if model.is_in(root):
            folder = root / model.name
            return folder / model.files[-1].name if model.folder == LPIPS_FOLDER else folder
    return None


def _is_listed(model: CatalogueModel, listed: set[Path]) -> bool:
    """Return whether a catalogue model is among the listed folders and files."""
    place = place_of(model)
    return place is not None and any(place == path or place in path.parents for path in listed)


def file_identity(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return ``(path, size, mtime_ns)`` of a file and its config, or of all files in a folder."""
    real = Path(os.path.realpath(path))
    beside = [real.with_suffix(".json"), real.with_name("config.json")]
    files = sorted(real.iterdir()) if real.is_dir() else [real, *beside]
    identity = []
    for file in files:
        if file.is_file():
            status = file.stat()
            identity.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(identity)


def fingerprint(key: str, name: str | None, *more: str | None) -> str:
    """Return a digest of the files that a loader's output depends on.

    A linked name, None here, stands for all models in the folder. ComfyUI writes the value into
    saved images, so it must not contain paths.
    """
    try:
        if name is None:
            identity = tuple(file for path in _found(key).values() for file in file_identity(path))
        elif offered_model(key, name) is not None:
            identity = ()  # the name alone: a finished download must not cause a new run
        else:
            identity = file_identity(resolve_model(key, name))
    except (CheckpointError, OSError):
        identity = ()
    return hashlib.sha256(repr((name, *more, identity)).encode()).hexdigest()


def _found(key: str) -> dict[str, Path]:
    """Return all models under ``models/<key>``: name -> folder, or file if it has no config."""
    import folder_paths

    register_folders()
    found: dict[str, Path] = {}
    for file_name in _file_names(key):
        full_path = folder_paths.get_full_path(key, file_name)
        if full_path is None:
            continue
        path = Path(full_path)
        relative_folder = Path(file_name).parent
        has_config = any((path.parent / name).is_file() for name in _CONFIG_NAMES[key])
        if relative_folder.parts and has_config:
            found.setdefault(relative_folder.as_posix(), path.parent)
        else:
            found.setdefault(Path(file_name).as_posix(), path)
    for other in _OTHER_FOLDERS[key]:
        for file_name in _file_names(other):
            full_path = folder_paths.get_full_path(other, file_name)
            if full_path is not None and _is_open_clip(*file_identity(Path(full_path))[0]):
                found.setdefault(f"{other}/{Path(file_name).as_posix()}", Path(full_path))
    return found


def _file_names(key: str) -> list[str]:
    """Return the files in a model folder, even if one of its cached folders was deleted."""
    import folder_paths

    try:
        return folder_paths.get_filename_list(key)
    except OSError:
        folder_paths.filename_list_cache.pop(key, None)
        return folder_paths.get_filename_list(key)


@functools.lru_cache(maxsize=1024)
def _is_open_clip(path: str, _size: int, _time: int) -> bool:
    """Return whether a file holds an open_clip model, from its header; cached by file state."""
    return holds_open_clip(path)
