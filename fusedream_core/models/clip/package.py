"""Lazy import of open_clip, and its error messages."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from ...errors import MissingDependencyError, pip_install

OLDEST = (3, 0)  # of open_clip_torch; as in requirements.txt


def open_clip_package() -> ModuleType:
    """Import open_clip, which takes seconds.

    Raises:
        MissingDependencyError: If the package is not installed, or too old.
    """
    try:
        package = importlib.import_module("open_clip")
    except ImportError as error:
        raise MissingDependencyError.of("open_clip", "CLIP", "open_clip_torch") from error
    installed = str(getattr(package, "__version__", "of an unknown version"))
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < OLDEST:
        needed = ".".join(str(part) for part in OLDEST)
        raise MissingDependencyError(
            f"The installed open_clip is {installed}, but {needed} or newer is needed for CLIP; "
            f"run: {pip_install('--upgrade open_clip_torch')}"
        )
    return package


def in_one_line(error: Exception) -> str:
    """Return the type and first line of an error."""
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {reason}"
