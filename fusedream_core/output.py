"""Atomic file output, with a check before the work and a fallback after it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FuseDreamError, SaveError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


def try_output(path: Path) -> None:
    """Check that a file can be written by opening it; missing folders are created.

    An existing file is unchanged, and a new one is deleted again.

    Raises:
        SaveError: If not.
    """
    try:
        path = _resolve_link(path)
        _check_kinds(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _try_open(path)
        with tempfile.TemporaryFile(dir=path.parent):  # the file is written beside its place first
            pass
    except SaveError:
        raise
    except (OSError, ValueError) as error:
        raise SaveError(
            f"{shown(path)} cannot be written ({why_not_written(error)}); give another place."
        ) from error


def _try_open(path: Path) -> None:
    """Open a file for writing; a new one is deleted again."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        with path.open("r+b"):
            return
    opened = os.fstat(handle)
    os.close(handle)
    present = path.stat() if path.exists() else None  # another process may have replaced it
    if present is not None and os.path.samestat(opened, present) and present.st_size == 0:
        path.unlink()


def _resolve_link(path: Path) -> Path:
    """Return the target of a link, existing or not; other paths are unchanged.

    Raises:
        OSError: If links form a loop.
    """
    try:
        return path.resolve() if path.is_symlink() else path
    except RuntimeError as error:  # of a loop, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error


def _check_kinds(path: Path) -> None:
    """Refuse a path that is a folder, or is inside a file."""
    if path.exists() and not path.is_file():
        raise SaveError(f"{shown(path)} is there and is no file; give the name of a file.")
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise SaveError(
                f"{shown(folder)} is a file, so {shown(path)} cannot be in it; give another name."
            )


def write_or_keep(path: Path, content: bytes) -> None:
    """Write a file atomically; on failure, save its content in the temporary folder.

    Raises:
        SaveError: If it could not be written; the message has the path of the fallback copy.
    """
    try:
        write_whole(path, content)
    except SaveError as error:
        kept = _keep(path.suffix, content)
        place = f"it is kept as {kept}" if kept else "nor into the folder for temporary files"
        raise SaveError(f"{str(error).rstrip('.')}; {place}.") from error


def _keep(suffix: str, content: bytes) -> str | None:
    """Write to the temporary folder. Returns the path, or None on failure."""
    try:
        handle, name = tempfile.mkstemp(prefix="fusedream-", suffix=suffix)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
    except OSError:
        return None
    return name


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Convert errors of writing a file or its folder to ``SaveError``."""
    try:
        yield
    except FuseDreamError:
        raise
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise SaveError(
            f"The file {shown(path)} could not be written ({why_not_written(error)}); free some "
            "space there, or choose a folder that can be written to."
        ) from error


def why_not_written(error: OSError | ValueError) -> str:
    """Return the reason for a failed write, without the path."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return "the disk is full"
    return getattr(error, "strerror", None) or str(error)


def shown(path: Path) -> str:
    """Return a path as text, with undecodable bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically, safe against concurrent writers; missing folders are created.

    A link is kept and its target written.

    Raises:
        SaveError: If it cannot be written, for example on a full disk. No partial file is left, and
            a previous file is unchanged.
    """
    with saving(path):
        path = _resolve_link(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary file in the same folder, then rename it."""
    # A unique, short name for each writer; the last to finish wins.
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name[:20], suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(part).chmod(0o666 & ~_umask())  # the usual mode; mkstemp's is for one user only
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Return the umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
