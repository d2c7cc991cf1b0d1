"""Inputs of a run: a job of plain settings, and the models."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from ..augclip.prompt import parse_prompt
from ..checks import check_shape
from ..compose.placement import Placement
from ..config import CompositionRecipe, InvertConfig, Recipe
from ..config.plain import MAX_LENGTH, check_readable, to_plain
from ..errors import ConfigError, PromptError, ShapeError
from ..images import check_text
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..rng import make_generator
from ..search.bank import Bank

MAX_RECORD_LENGTH = 200_000  # characters of a record as JSON; a typical one has 3,000
_MIN_SIDE = 8  # pixels of an initial image
_MAX_MODELS_LENGTH = 10_000  # part of it for the models


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All settings that determine an image, besides models and hardware.

    Attributes:
        prompt: Text of the image.
        seed: From 0 to 2**64 - 1.
        recipe: Settings; a ``CompositionRecipe`` makes a composition.
        placements: Scales and positions of a composition; None means the paper's 18.
        foreground_prompt: Text of the foreground.
        background_prompt: Text of the background.
        start_image: Hash of the initial image, see ``hash_image``; None means a search.
        invert: Settings of the inversion of the initial image.
    """

    prompt: str
    seed: int
    recipe: CompositionRecipe | Recipe
    placements: tuple[Placement, ...] | None = None
    foreground_prompt: str | None = None
    background_prompt: str | None = None
    start_image: str | None = None
    invert: InvertConfig | None = None

    @property
    def needs_perceptual(self) -> bool:
        """Whether the job needs a perceptual distance."""
        if isinstance(self.recipe, CompositionRecipe):
            return self.recipe.compose.consistency != "none"
        return self.start_image is not None

    def __post_init__(self) -> None:
        parts = {
            "prompt": self.prompt,
            "foreground prompt": self.foreground_prompt,
            "background prompt": self.background_prompt,
        }
        for name, text in parts.items():
            if text is not None:
                check_text(name, text)
                _check_length(name, text)
                parse_prompt(text)
        make_generator(self.seed)  # checks the seed
        check_readable(self)
        length, limit = len(json.dumps(to_plain(self))), MAX_RECORD_LENGTH - _MAX_MODELS_LENGTH
        if length > limit:
            raise ConfigError(
                f"The record of this job would have {length:,} characters, but at most {limit:,} "
                "can be read again; shorten the prompts, or name fewer classes."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The models of a run, all on one device.

    Attributes:
        gan: The generator.
        clip: The encoder.
        bank: Precomputed candidates of the search.
        selector: A second encoder, which selects the checkpoint and computes the final score.
        perceptual: Perceptual distance of consistency loss and inversion.
    """

    gan: Gan
    clip: ImageTextEncoder
    bank: Bank | None = None
    selector: ImageTextEncoder | None = None
    perceptual: Perceptual | None = None

    def __post_init__(self) -> None:
        others = {"CLIP": self.clip, "selector": self.selector, "LPIPS": self.perceptual}
        for name, model in others.items():
            if model is not None and not same_device(model.device, self.gan.device):
                raise ConfigError(
                    f"The {name} is on {model.device} and the GAN on {self.gan.device}; move both "
                    "to one device."
                )


def _check_length(name: str, text: str) -> None:
    """Check that a prompt is short enough to be read again from a file."""
    if len(text) > MAX_LENGTH:
        raise PromptError(
            f"The {name} has {len(text):,} characters, but at most {MAX_LENGTH:,} can be kept with "
            "the image; shorten it."
        )


def same_device(first: torch.device, second: torch.device) -> bool:
    """Return whether two devices are the same; a missing index matches any."""
    return first.type == second.type and len({first.index, second.index} - {None}) < 2


def check_start_image(image: Tensor) -> None:
    """Check that an initial image is a single RGB image of sufficient size.

    Raises:
        ShapeError: If it is not ``(1, 3, H, W)``, or has a side under 8 pixels.
    """
    check_shape(image)
    if len(image) != 1 or min(image.shape[2:]) < _MIN_SIDE:
        raise ShapeError(
            f"The image to start from is {len(image)} of {image.shape[3]} x {image.shape[2]} "
            f"pixels, but one of at least {_MIN_SIDE} x {_MIN_SIDE} is needed; give a larger "
            "one."
        )


def hash_image(image: Tensor) -> str:
    """Return a hash of an image's size and pixels."""
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(image.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
