"""Which models the loaders offer, and where each of them lies.

A name from a workflow is only ever looked up among the names that ComfyUI's own listing of the
model folders gives; it is never joined to a path.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..fusedream_core.demo import demo_clip_dir, demo_gan_dir, demo_lpips_path
from ..fusedream_core.errors import CheckpointError

DEMO = "demo"
GAN_FOLDER = "gan"
CLIP_FOLDER = "open_clip"
LPIPS_FOLDER = "lpips"

# The file that makes a folder one model; None where every model is a single file.
_CONFIG_NAMES = {
    GAN_FOLDER: "config.json",
    CLIP_FOLDER: "open_clip_config.json",
    LPIPS_FOLDER: None,
}
_DEMO_PATHS = {
    GAN_FOLDER: demo_gan_dir,
    CLIP_FOLDER: demo_clip_dir,
    LPIPS_FOLDER: demo_lpips_path,
}


def register_folders() -> None:
    """Tell ComfyUI of ``models/gan``, ``models/open_clip`` and ``models/lpips``.

    May be called any number of times, and keeps what extra_model_paths.yaml put there; that file
    is read before the packs are, and its keys accept every file until extensions are set.
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
    """Names for a loader's list: ``demo`` first, then folders with a config, then bare files."""
    return [DEMO, *sorted(name for name in _found(key) if name != DEMO)]


def resolve_model(key: str, name: str) -> Path:
    """The folder or file behind a name of :func:`list_models`.

    Raises:
        CheckpointError: If no model of that name is there now.
    """
    if name == DEMO:
        return Path(_DEMO_PATHS[key]())
    found = _found(key).get(name)
    if found is None:
        raise CheckpointError(
            f"There is no model {name!r} in ComfyUI's model folder {key!r}; "
            "put it there, press R to refresh the list, and choose it again."
        )
    return found


def file_identity(path: Path) -> tuple[tuple[str, int, int], ...]:
    """``(path, size, mtime_ns)`` of a file, or of every file directly in a folder."""
    real = Path(os.path.realpath(path))
    files = sorted(real.iterdir()) if real.is_dir() else [real]
    identity = []
    for file in files:
        if file.is_file():
            status = file.stat()
            identity.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(identity)


def fingerprint(key: str, name: str | None, *more: str | None) -> str:
    """What a loader's output depends on; a model that is gone or linked is known by its name.

    A digest, as ComfyUI writes it into every saved picture: nobody is to read folders from there.
    """
    try:
        identity = file_identity(resolve_model(key, name)) if name is not None else ()
    except (CheckpointError, OSError):
        identity = ()
    return hashlib.sha256(repr((name, *more, identity)).encode()).hexdigest()


def _found(key: str) -> dict[str, Path]:
    """Every model under ``models/<key>``: name in the list -> folder (or file, where no config)."""
    import folder_paths

    register_folders()
    config_name = _CONFIG_NAMES[key]
    found: dict[str, Path] = {}
    for file_name in folder_paths.get_filename_list(key):
        full_path = folder_paths.get_full_path(key, file_name)
        if full_path is None:
            continue
        path = Path(full_path)
        relative_folder = Path(file_name).parent
        has_folder = config_name is not None and relative_folder.parts
        if has_folder and (path.parent / config_name).is_file():
            found.setdefault(relative_folder.as_posix(), path.parent)
        else:
            found.setdefault(Path(file_name).as_posix(), path)
    return found
