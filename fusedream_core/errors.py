"""Errors of the core: one base class, and a standard Python kind beside each.

Every message is one sentence that says what was given, what is accepted and what to do.
"""

from __future__ import annotations


class FuseDreamError(Exception):
    """Base class of every error that the core raises on purpose."""


class ShapeError(FuseDreamError, ValueError):
    """A tensor does not have the shape that the function accepts."""


class ImageError(FuseDreamError, ValueError):
    """A picture holds values that cannot be scored, such as NaN."""


class ConfigError(FuseDreamError, ValueError):
    """A setting is out of range, or two settings (or models) do not fit together."""


class PromptError(FuseDreamError, ValueError):
    """A prompt holds no text, or its weights cancel."""


class CheckpointError(FuseDreamError, RuntimeError):
    """A weight file is missing, damaged, unsafe, or made for another model."""


class DownloadError(FuseDreamError, RuntimeError):
    """A file could not be had from any of its places."""


class OutputError(FuseDreamError, OSError):
    """A file cannot be written where it was asked for."""


class MissingDependencyError(FuseDreamError, ImportError):
    """A Python package is needed that is not installed."""
