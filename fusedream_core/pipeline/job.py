"""What an image is made from: the job, which is plain settings, and the models that do it."""

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
from ..config.plain import LONGEST, check_readable, to_plain
from ..errors import ConfigError, PromptError, ShapeError
from ..images import check_text
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..rng import make_generator
from ..search.bank import Bank

LONGEST_RECORD = 200_000  # characters of a job and its models as JSON; most have some 3,000
_LEAST_SIDE = 8  # pixels of an image to start from
_LONGEST_MODELS = 10_000  # of these, for what is known of the models


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that decides an image, but for the models and the machine.

    Attributes:
        prompt: What it is to show.
        seed: From 0 to 2**64 - 1.
        recipe: The settings; that of a composition makes one.
        placements: Scales and positions that a composition tries; None means the paper's 18.
        foreground_prompt: What the pasted image is to show by itself.
        background_prompt: The same of the image that it is pasted on.
        start_image: Hash of an image to start from instead of a search; see ``hash_image``.
        invert: How that image's latent is found.
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
        """Whether images are compared by LPIPS."""
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
        make_generator(self.seed)  # refuses what is no seed
        check_readable(self)
        length, most = len(json.dumps(to_plain(self))), LONGEST_RECORD - _LONGEST_MODELS
        if length > most:
            raise ConfigError(
                f"The record of this job would have {length:,} characters, but at most {most:,} "
                "can be read again; shorten the prompts, or name fewer classes."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The models of a run, all on one device.

    Attributes:
        gan: The generator.
        clip: The encoder.
        bank: Candidates for the search.
        selector: A second encoder, which chooses among the iterates and gives the score.
        perceptual: The distance behind consistency and inversion.
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
    """Check that a prompt is not longer than what is read again from a file."""
    if len(text) > LONGEST:
        raise PromptError(
            f"The {name} has {len(text):,} characters, but at most {LONGEST:,} can be kept with "
            "the image; shorten it."
        )


def same_device(first: torch.device, second: torch.device) -> bool:
    """Whether two devices are one; a name without a number is any of its kind."""
    numbers = {first.index, second.index} - {None}
    return first.type == second.type and len(numbers) < 2


def check_start_image(image: Tensor) -> None:
    """Check that an image to start from is one of RGB, and not too small.

    Raises:
        ShapeError: If it is not ``(1, 3, H, W)``, or has a side under 8 pixels.
    """
    check_shape(image)
    if len(image) != 1 or min(image.shape[2:]) < _LEAST_SIDE:
        raise ShapeError(
            f"The image to start from is {len(image)} of {image.shape[3]} x {image.shape[2]} "
            f"pixels, but one of at least {_LEAST_SIDE} x {_LEAST_SIDE} is needed; give a larger "
            "one."
        )


def hash_image(image: Tensor) -> str:
    """A hash of an image's size and pixels."""
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(image.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
