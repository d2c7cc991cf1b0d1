"""Loading of the models for the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..devices import find_device
from ..errors import CheckpointError, ConfigError
from ..models.clip.loading import load_open_clip_file, load_open_clip_folder
from ..models.clip.open_clip import OpenClip
from ..models.gan.biggan import load_biggan
from ..models.lpips import load_lpips
from ..pipeline.generate import choose_models
from ..pipeline.job import Job, Models
from ..pipeline.kept_demo import kept_demo, kept_demo_bank, kept_demo_lpips
from ..pipeline.provenance import Provenance
from ..search.bank import load_bank


def load_models(options: argparse.Namespace, job: Job) -> Models:
    """Load the models for a new image, on the requested device."""
    device = find_device(options.device)
    return choose_models(job, device=device, **_given(options, job, device))


def load_models_again(options: argparse.Namespace, provenance: Provenance) -> Models:
    """Load the models for a recorded image: those of the options, or the demo's.

    Raises:
        ConfigError: If they differ from the record.
    """
    device = find_device(options.device)
    given = _given(options, provenance.job, device)
    if given.keys().isdisjoint({"gan", "clip"}):
        given["gan"], given["clip"] = kept_demo(device)
    if not {"gan", "clip"} <= given.keys():
        raise ConfigError("Only one of --gan and --clip was given; give both, or neither.")
    if provenance.models.bank is not None and "bank" not in given:
        given["bank"] = kept_demo_bank()
    if provenance.models.perceptual is not None and "perceptual" not in given:
        given["perceptual"] = kept_demo_lpips(device)
    models = Models(**given)
    provenance.check(models)
    return models


def load_clip(path: Path, architecture: str | None) -> OpenClip:
    """Load a CLIP from a folder, or from a weights file and an architecture name.

    Raises:
        CheckpointError: If the path does not exist or is not a CLIP.
        ConfigError: If the architecture is missing, unknown, or not allowed.
    """
    if path.is_dir():
        if architecture is not None:
            raise ConfigError(
                f"{path} is a folder, which has its own architecture; leave {architecture!r} out, "
                "or give a file of weights."
            )
        return load_open_clip_folder(path)
    if not path.exists():
        raise CheckpointError(f"There is no file or folder {path}; check the name of the CLIP.")
    return load_open_clip_file(path, architecture or "")


def _given(options: argparse.Namespace, job: Job, device: torch.device) -> dict[str, Any]:
    """Load the models of the options onto a device."""
    given: dict[str, Any] = {}
    if options.gan is not None:
        given["gan"] = load_biggan(options.gan).to(device)
    if options.clip is not None:
        given["clip"] = load_clip(options.clip, options.architecture).to(device)
    if options.bank is not None:
        given["bank"] = load_bank(options.bank)
    if getattr(options, "selector", None) is not None:
        selector = load_clip(options.selector, options.selector_architecture)
        given["selector"] = selector.to(device)
    if options.lpips is not None and job.needs_perceptual:
        given["perceptual"] = load_lpips(options.lpips).to(device)
    return given
