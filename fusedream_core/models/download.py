"""Downloads of the catalogue's models: resumable, checked, and whole or not at all.

The transfer is ``huggingface_hub``'s, which open_clip brings along; it retries, resumes, and heeds
the proxy settings of the environment. Nothing is downloaded unless a caller asks for that model.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import DownloadError, MissingDependencyError
from .catalogue import CatalogueModel, RemoteFile, Source

if TYPE_CHECKING:
    from typing_extensions import Buffer

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]  # bytes of a file that are there, and all, if known

_BLOCK = 1 << 20
_HUB = "hf://"
_RANGE_NOT_SATISFIABLE = 416
_POLL_SECONDS = 0.1


def download_model(
    model: CatalogueModel, root: Path | str, *, progress: Progress | None = None
) -> Path:
    """Bring a model's files into its folder; those that are there already stay as they are.

    A file is written under another name beside its last one, and takes that when it is whole: when
    its size is the server's and its hash the catalogue's, the Hub's, or, where neither is known,
    the one of the first download into this folder. A download that was broken off goes on where it
    was, as long as the file on the server is the same.

    Args:
        model: What to download.
        root: The model folder; a folder of the model's name is made in it.
        progress: Called from time to time; it may raise to stop.

    Returns:
        The model's folder.

    Raises:
        DownloadError: If a file could not be had, or another process is downloading it. The message
            names its addresses, its size, and where to put it by hand.
        MissingDependencyError: If ``huggingface_hub`` is not installed.
    """
    folder = Path(root) / model.name
    for file in model.files:
        if not (folder / file.name).is_file():
            _fetch(model, file, folder / file.name, progress)
    return folder


def cached_folder(model: CatalogueModel) -> Path | None:
    """Where all of a model's files lie in the Hub's own cache, if they do; asks no server."""
    hub = _hub()
    found = []
    for file in model.files:
        urls = [source.url for source in file.sources if source.url.startswith(_HUB)]
        places = (hub.try_to_load_from_cache(*_in_repository(url)) for url in urls)
        found += [Path(place) for place in places if isinstance(place, str)][:1]
    whole = len(found) == len(model.files) and len({path.parent for path in found}) == 1
    return found[0].parent if whole else None


def _in_repository(url: str) -> tuple[str, str]:
    """A Hub file's repository and its name there."""
    owner, repository, name = url.removeprefix(_HUB).split("/", 2)
    return f"{owner}/{repository}", name


def _fetch(model: CatalogueModel, file: RemoteFile, path: Path, progress: Progress | None) -> None:
    """Try a file's sources in order."""
    from filelock import FileLock, Timeout

    hub = _hub()
    if importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE:
        raise DownloadError(_by_hand(file, path, ["HF_HUB_OFFLINE is set"]))
    faults = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock"), timeout=0):
            for source in file.sources:
                logger.info(
                    "FuseDream downloads %s (%s) from %s", model.name, model.licence, source.url
                )
                fault = _try(hub, source, path, progress)
                if fault is None:
                    return
                faults.append(f"{_address(hub, source)}: {fault}")
    except Timeout as error:
        raise DownloadError(
            f"Another process is downloading {path}; wait for it, or stop it, and try again."
        ) from error
    except OSError as error:  # the folder's
        faults.append(f"{path.parent}: {error.strerror or error}")
    raise DownloadError(_by_hand(file, path, faults))


def _by_hand(file: RemoteFile, path: Path, faults: list[str]) -> str:
    """What went wrong, and what can be done instead."""
    size = f"about {file.megabytes} MB" if file.megabytes else "less than 1 MB"
    places = " or ".join(_readable(source.url) for source in file.sources)
    return (
        f"The file {file.name} could not be downloaded ({'; '.join(faults)}); try again later, or "
        f"get it ({size}) from {places} by hand, and save it as {path}."
    )


def _readable(url: str) -> str:
    """An address that a browser takes."""
    if not url.startswith(_HUB):
        return url
    repository, name = _in_repository(url)
    return f"https://huggingface.co/{repository}/resolve/main/{name}"


def _address(hub: ModuleType, source: Source) -> str:
    """Where a source is now: the Hub's files are where ``HF_ENDPOINT`` says."""
    if not source.url.startswith(_HUB):
        return source.url
    address: str = hub.hf_hub_url(*_in_repository(source.url))
    return address


def _try(hub: ModuleType, source: Source, path: Path, progress: Progress | None) -> str | None:
    """Bring a file from one source to its place. Returns what went wrong, or nothing."""
    address = _address(hub, source)
    try:
        # Without the user's token, which is the Hub's and nobody else's business.
        about = hub.get_hf_file_metadata(address, token=False)
    except Exception as error:  # whatever the library of the day raises
        return _reason(error)
    size = about.size or None  # some versions take a redirect's own, which is 0
    part = path.with_name(f"{path.name}.{_short(f'{address} {about.etag} {size}')}.part")
    transfer = _Transfer(address, part, size)
    transfer.follow(progress)
    if transfer.error is not None or not part.is_file():
        return _reason(transfer.error) if transfer.error else "nothing came"
    digest = _sha256(part)
    fault = _hash_fault(digest, source, about.etag, path)
    if fault:
        part.unlink()
        return fault
    part.replace(path)
    for left in path.parent.glob(f"{path.name}.*.part"):  # of sources that failed
        left.unlink(missing_ok=True)
    try:
        _pin(path, source).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    except OSError as error:
        logger.warning("FuseDream could not note the hash of %s (%s).", path, error)
    return None


class _Transfer(threading.Thread):
    """Brings the rest of a file to the part that is there.

    In a thread of its own, since the library may wait for a silent server for a minute, and nobody
    who cancels wants to.
    """

    def __init__(self, address: str, part: Path, size: int | None) -> None:
        super().__init__(daemon=True, name="FuseDream download")
        self.address, self.part, self.size = address, part, size
        self.stopped = threading.Event()
        self.error: Exception | None = None

    def follow(self, progress: Progress | None) -> None:
        """Start, and tell of it until it ends; where telling raises, nothing more is written."""
        self.start()
        try:
            while self.is_alive():
                self.join(_POLL_SECONDS)
                if progress is not None and self.part.is_file():
                    progress(self.part.stat().st_size, self.size)
        except BaseException:
            self.stopped.set()
            raise

    def run(self) -> None:
        """Bring the file; what went wrong is kept."""
        there = self.part.stat().st_size if self.part.is_file() else 0
        if there == self.size:
            return
        try:
            self._bring(there)
        except Exception as error:  # whatever the library of the day raises
            status = getattr(getattr(error, "response", None), "status_code", None)
            if there and status == _RANGE_NOT_SATISFIABLE:
                return  # nothing was left to bring; the hash will tell
            self.error = error
            if self.size is not None and self.part.stat().st_size > self.size:
                self.part.unlink()

    def _bring(self, there: int) -> None:
        from huggingface_hub.file_download import http_get

        with _Stoppable(self.part, self.stopped) as stream:
            http_get(self.address, stream, resume_size=there, expected_size=self.size)


class _Stoppable(io.FileIO):
    """A file that is only written to until it is told to stop."""

    def __init__(self, path: Path, stopped: threading.Event) -> None:
        super().__init__(path, "ab")
        self._stopped = stopped

    def write(self, data: Buffer, /) -> int:
        """Write all of the data."""
        rest = memoryview(data).cast("B")
        total = len(rest)
        while rest:
            if self._stopped.is_set():
                raise InterruptedError("stopped")
            rest = rest[super().write(rest) :]
        return total


def _reason(error: Exception) -> str:
    """A short reason for an error."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def _hash_fault(digest: str, source: Source, etag: str | None, path: Path) -> str | None:
    """What is wrong with a hash, if it is known."""
    is_sha256 = etag is not None and re.fullmatch(r"[0-9a-f]{64}", etag)
    pin = _pin(path, source)
    pinned = pin.read_text(encoding="utf-8").split()[:1] if pin.is_file() else []
    if source.sha256:
        expected, whose = source.sha256, "the catalogue's"
    elif is_sha256:
        expected, whose = str(etag), "the server's"
    elif pinned:
        expected, whose = pinned[0], f"that of the first download, in {pin}"
    else:
        return None
    if digest.startswith(expected):
        return None
    return f"its SHA-256 is {digest[:12]}..., not {expected[:12]}... ({whose})"


def _pin(path: Path, source: Source) -> Path:
    """Where the hash of a file's first download from a source is kept."""
    return path.with_name(f"{path.name}.{_short(source.url)}.sha256")


def _sha256(path: Path) -> str:
    """The hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _short(text: str) -> str:
    """A few letters that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _hub() -> ModuleType:
    """The package, imported when first needed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingDependencyError.of(
            "huggingface_hub", "downloads (or put the files into the model folder by hand)"
        ) from error
