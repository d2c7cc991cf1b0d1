"""What an image is made from: the job, which is plain settings, and the models that do it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ..augclip.prompt import parse_prompt
from ..compose.placement import Placement
from ..config import CompositionRecipe, InvertConfig, Recipe
from ..errors import ConfigError
from ..images import check_text
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..models.lpips import Perceptual
from ..rng import make_generator
from ..search.bank import Bank


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
                parse_prompt(text)
        make_generator(self.seed)  # refuses what is no seed


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


def same_device(first: torch.device, second: torch.device) -> bool:
    """Whether two devices are one; a name without a number is any of its kind."""
    numbers = {first.index, second.index} - {None}
    return first.type == second.type and len(numbers) < 2


def hash_image(image: Tensor) -> str:
    """A hash of an image's size and pixels."""
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(image.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
