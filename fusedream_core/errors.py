"""Errors of the core: one base class, and a standard Python kind beside each.

Every message is one sentence that says what was given, what is accepted and what to do.
"""

from __future__ import annotations

import sys


class FuseDreamError(Exception):
    """Base class of every error that the core raises on purpose."""


class ShapeError(FuseDreamError, ValueError):
    """A tensor does not have the shape that the function accepts."""


class ImageError(FuseDreamError, ValueError):
    """A picture holds values that cannot be scored, such as NaN."""


class ConfigError(FuseDreamError, ValueError):
    """A setting is out of range, or two settings (or models) do not fit together.

    Attributes:
        setting: The name of the setting that the message begins with, if it begins with one.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class PromptError(FuseDreamError, ValueError):
    """A prompt holds no text, or its weights cancel."""


class CheckpointError(FuseDreamError, RuntimeError):
    """A weight file is missing, damaged, unsafe, or made for another model."""


class DownloadError(FuseDreamError, RuntimeError):
    """A file could not be had from any of its places."""


class NonFiniteError(FuseDreamError, FloatingPointError):
    """What a model makes holds NaN or infinite values."""


class SaveError(FuseDreamError, OSError):
    """A file could not be written; what was there before is as it was."""


class MissingDependencyError(FuseDreamError, ImportError):
    """A Python package is needed that is not installed."""

    @classmethod
    def of(
        cls, package: str, purpose: str, distribution: str | None = None
    ) -> MissingDependencyError:
        """The sentence for a package, with the command that installs it for this Python.

        Args:
            package: What is imported.
            purpose: What it is needed for.
            distribution: What is installed, where that has another name.
        """
        command = pip_install(distribution or package)
        return cls(f"The package {package} is needed for {purpose}; run: {command}")


def pip_install(arguments: str) -> str:
    """The command that installs a package for the Python that is running."""
    return f'"{sys.executable}" -m pip install {arguments}'
