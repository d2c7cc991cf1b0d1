"""Files that come at the end of much work: tried before it, and never lost for want of a place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import SaveError
from .weights import shown, why_not_written, write_whole


def try_output(path: Path) -> None:
    """Check that a file can be written, by doing it; missing folders are made.

    A file that is there already stays as it is, and one that is not is gone again.

    Raises:
        SaveError: If it cannot.
    """
    try:
        _check_kinds(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):  # the name itself: too long, or not allowed here
            pass
        if not existed:
            path.resolve().unlink()  # not a link to it
        with tempfile.TemporaryFile(dir=path.parent):  # what is written goes beside it first
            pass
    except SaveError:
        raise
    except (OSError, ValueError) as error:
        raise SaveError(
            f"{shown(path)} cannot be written ({why_not_written(error)}); give another place."
        ) from error


def _check_kinds(path: Path) -> None:
    """Refuse what is there and is no file, and folders that are none."""
    if path.exists() and not path.is_file():
        raise SaveError(f"{shown(path)} is there and is no file; give the name of a file.")
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise SaveError(
                f"{shown(folder)} is a file, so {shown(path)} cannot be in it; give another name."
            )


def write_or_keep(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; where that fails, keep its content elsewhere.

    Raises:
        SaveError: If it could not be written; says where the content is.
    """
    try:
        write_whole(path, content)
    except SaveError as error:
        kept = _keep(path.suffix, content)
        place = f"it is kept as {kept}" if kept else "nor into the folder for temporary files"
        raise SaveError(f"{str(error).rstrip('.')}; {place}.") from error


def _keep(suffix: str, content: bytes) -> str | None:
    """Write to the folder for temporary files; None if even that fails."""
    try:
        handle, name = tempfile.mkstemp(prefix="fusedream-", suffix=suffix)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
    except OSError:
        return None
    return name
