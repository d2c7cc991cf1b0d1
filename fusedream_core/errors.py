"""Errors of the core, each also a standard Python error.

Every message is one sentence: what was given, what is accepted, and what to do.
"""

from __future__ import annotations

import sys


class FuseDreamError(Exception):
    """Base class of every error that the core raises on purpose."""


class ShapeError(FuseDreamError, ValueError):
    """A tensor does not have the shape that the function accepts."""


class ImageError(FuseDreamError, ValueError):
    """An image has values that cannot be scored, such as NaN, or a file is not an image."""


class ConfigError(FuseDreamError, ValueError):
    """A setting is out of range, or two settings (or models) do not fit together.

    Attributes:
        setting: Name of the setting at the start of the message, if there is one.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class PromptError(FuseDreamError, ValueError):
    """A prompt has no text, or its weights cancel."""


class CheckpointError(FuseDreamError, RuntimeError):
    """A weight file is missing, damaged, unsafe, or made for another model."""


class DownloadError(FuseDreamError, RuntimeError):
    """A file could not be downloaded from any of its sources."""


class NonFiniteError(FuseDreamError, FloatingPointError):
    """The output of a model has NaN or infinite values."""


class SaveError(FuseDreamError, OSError):
    """A file could not be written; a previous file of that name is unchanged."""


class MissingDependencyError(FuseDreamError, ImportError):
    """A required Python package is not installed."""

    @classmethod
    def of(
        cls, package: str, purpose: str, distribution: str | None = None
    ) -> MissingDependencyError:
        """Return the error for a package, with its install command for this Python.

        Args:
            package: Import name.
            purpose: What the package is needed for.
            distribution: Name on the package index, where it differs.
        """
        advice = f"run: {pip_install(distribution or package)}"
        return cls(f"The package {package} is needed for {purpose}; {advice}")


def pip_install(arguments: str) -> str:
    """Return the pip command for the running Python."""
    return f'"{sys.executable}" -m pip install {arguments}'
