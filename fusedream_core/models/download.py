"""Downloads of catalogue models: resumable, checked and atomic.

The transfer uses ``huggingface_hub``, a dependency of open_clip, which retries, resumes and reads
the proxy settings of the environment. Nothing is downloaded without an explicit call.
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

Progress = Callable[[int, int | None], None]  # bytes so far, and total bytes if known

_BLOCK = 1 << 20
_HUB = "hf://"
_RANGE_NOT_SATISFIABLE = 416
_POLL_SECONDS = 0.1


def download_model(
    model: CatalogueModel, root: Path | str, *, progress: Progress | None = None
) -> Path:
    """Download the missing files of a model into its folder.

    A file has a temporary name until its size equals the server's and its hash is verified: against
    the catalogue, the Hub, or, where neither has one, the first download into this folder. An
    interrupted download resumes if the file on the server is unchanged.

    Args:
        model: The model.
        root: Parent folder; the files are saved in a subfolder with the model's name.
        progress: Called periodically; it may raise to stop.

    Returns:
        The model's folder.

    Raises:
        DownloadError: If a download failed, or another process is downloading the file. The message
            has its addresses, its size, and the path for a manual download.
        MissingDependencyError: If ``huggingface_hub`` is not installed.
    """
    folder = Path(root) / model.name
    for file in model.files:
        if not (folder / file.name).is_file():
            _fetch(model, file, folder / file.name, progress)
    return folder


def cached_folder(model: CatalogueModel) -> Path | None:
    """Return the folder of the Hub's cache with all files of a model, or None; works offline."""
    hub = _hub()
    found = []
    for file in model.files:
        urls = [source.url for source in file.sources if source.url.startswith(_HUB)]
        places = (hub.try_to_load_from_cache(*_in_repository(url)) for url in urls)
        found += [Path(place) for place in places if isinstance(place, str)][:1]
    whole = len(found) == len(model.files) and len({path.parent for path in found}) == 1
    return found[0].parent if whole else None


def _in_repository(url: str) -> tuple[str, str]:
    """Return the repository and file name of a Hub address."""
    owner, repository, name = url.removeprefix(_HUB).split("/", 2)
    return f"{owner}/{repository}", name


def _fetch(model: CatalogueModel, file: RemoteFile, path: Path, progress: Progress | None) -> None:
    """Download a file from the first source that works."""
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
    """Return the message of a failed download, with the manual alternative."""
    size = f"about {file.megabytes} MB" if file.megabytes else "less than 1 MB"
    places = " or ".join(_readable(source.url) for source in file.sources)
    return (
        f"The file {file.name} could not be downloaded ({'; '.join(faults)}); try again later, or "
        f"get it ({size}) from {places} by hand, and save it as {path}."
    )


def _readable(url: str) -> str:
    """Return an address for a browser."""
    if not url.startswith(_HUB):
        return url
    repository, name = _in_repository(url)
    return f"https://huggingface.co/{repository}/resolve/main/{name}"


def _address(hub: ModuleType, source: Source) -> str:
    """Return the address of a source; for the Hub, ``HF_ENDPOINT`` is used."""
    if not source.url.startswith(_HUB):
        return source.url
    address: str = hub.hf_hub_url(*_in_repository(source.url))
    return address


def _try(hub: ModuleType, source: Source, path: Path, progress: Progress | None) -> str | None:
    """Download and verify a file from one source. Returns the reason of a failure, or None."""
    address = _address(hub, source)
    try:
        # Without the user's token, which must only be sent to the Hub.
        about = hub.get_hf_file_metadata(address, token=False)
    except Exception as error:  # the library's errors vary by version
        return _reason(error)
    size = about.size or None  # some versions return a redirect's size, 0
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
    """A thread that downloads the rest of a partial file.

    In a thread, so that a cancellation need not wait for the library's timeout of a minute.
    """

    def __init__(self, address: str, part: Path, size: int | None) -> None:
        super().__init__(daemon=True, name="FuseDream download")
        self.address, self.part, self.size = address, part, size
        self.stopped = threading.Event()
        self.error: Exception | None = None

    def follow(self, progress: Progress | None) -> None:
        """Start, and report progress until the end; stop writing if ``progress`` raises."""
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
        """Download the file; an error is stored."""
        there = self.part.stat().st_size if self.part.is_file() else 0
        if there == self.size:
            return
        try:
            self._download(there)
        except Exception as error:  # the library's errors vary by version
            status = getattr(getattr(error, "response", None), "status_code", None)
            if there and status == _RANGE_NOT_SATISFIABLE:
                return  # the file was complete; the hash is checked later
            self.error = error
            if self.size is not None and self.part.stat().st_size > self.size:
                self.part.unlink()

    def _download(self, there: int) -> None:
        from huggingface_hub.file_download import http_get

        with _Stoppable(self.part, self.stopped) as stream:
            http_get(self.address, stream, resume_size=there, expected_size=self.size)


class _Stoppable(io.FileIO):
    """A file that refuses writes after a stop event."""

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
    """Return a short reason for an error."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def _hash_fault(digest: str, source: Source, etag: str | None, path: Path) -> str | None:
    """Return the mismatch of a hash, or None if it is right or unknown."""
    is_sha256 = etag is not None and re.fullmatch(r"[0-9a-f]{64}", etag)
    pin = _pin(path, source)
    pinned = pin.read_text(encoding="utf-8").split()[:1] if pin.is_file() else []
    if source.sha256:
        expected, origin = source.sha256, "the catalogue's"
    elif is_sha256:
        expected, origin = str(etag), "the server's"
    elif pinned:
        expected, origin = pinned[0], f"that of the first download, in {pin}"
    else:
        return None
    if digest.startswith(expected):
        return None
    return f"its SHA-256 is {digest[:12]}..., not {expected[:12]}... ({origin})"


def _pin(path: Path, source: Source) -> Path:
    """Return the path of the recorded hash of the first download from a source."""
    return path.with_name(f"{path.name}.{_short(source.url)}.sha256")


def _sha256(path: Path) -> str:
    """Return the hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _short(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _hub() -> ModuleType:
    """Import huggingface_hub when first needed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingDependencyError.of(
            "huggingface_hub", "downloads (or put the files into the model folder by hand)"
        ) from error
