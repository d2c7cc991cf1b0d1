"""Files that are written: whole or not at all, tried before much work, and never lost."""

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
    """Check that a file can be written, by doing it; missing folders are made.

    A file that is there already stays as it is, and one that is not is gone again.

    Raises:
        SaveError: If it cannot.
    """
    try:
        path = _followed(path)
        _check_kinds(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _try_name(path)
        with tempfile.TemporaryFile(dir=path.parent):  # what is written goes beside it first
            pass
    except SaveError:
        raise
    except (OSError, ValueError) as error:
        raise SaveError(
            f"{shown(path)} cannot be written ({why_not_written(error)}); give another place."
        ) from error


def _try_name(path: Path) -> None:
    """Open a file of this name, which may be too long, or not allowed here; leave no new one."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        with path.open("r+b"):
            return
    own = os.fstat(handle)
    os.close(handle)
    there = path.stat() if path.exists() else None  # another process may have put its file there
    if there is not None and os.path.samestat(own, there) and there.st_size == 0:
        path.unlink()


def _followed(path: Path) -> Path:
    """The file that a link stands for, there or not; other paths as they are.

    Raises:
        OSError: If links lead back to themselves.
    """
    try:
        return path.resolve() if path.is_symlink() else path
    except RuntimeError as error:  # of older Pythons
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error


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


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn what hinders the writing of a file, or of its folder, into a ``SaveError``."""
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
    """Why the system refused to write a file, in words, without its path."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return "the disk is full"
    return getattr(error, "strerror", None) or str(error)


def shown(path: Path) -> str:
    """A path as text, also where it holds bytes that are no text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, whoever else is writing it; missing folders are made.

    A link is written through.

    Raises:
        SaveError: If it cannot be written, as where the disk is full. Nothing is left of it then,
            and what was there before is as it was.
    """
    with saving(path):
        path = _followed(path)  # the link itself stays
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside its place, and move it there when it is whole."""
    # A name of its own for each writer, and no longer than a name may be; the last to finish wins.
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name[:20], suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(part).chmod(0o666 & ~_umask())  # as any other file; mkstemp's is for one user only
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The mask of new files, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
