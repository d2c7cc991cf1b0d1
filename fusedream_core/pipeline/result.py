"""An image that was made from a text, and how it came about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..compose import ComposeResult
from ..images import save_png, to_pil
from ..types import Basis, Latent, Record, Score
from .provenance import CHUNK, Provenance

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class GenerationResult(Record):
    """An image and how it came about.

    Attributes:
        images: The image, shape ``(1, 3, H, W)``, in ``[-1, 1]``.
        score: Its held-out AugCLIP score, shape ``(1,)``.
        latent: Its latent, mixed; of a composition those of foreground and background.
        basis: What the search found.
        prompt: The text it was made from.
        seed: The seed it was made from.
        seconds: Time of search and optimisation, without loading.
        composition: All of a composition's outcome; None for a single image.
        provenance: All that is needed to make it again; None if that is not known.
    """

    images: Tensor
    score: Score
    latent: Latent
    basis: Basis
    prompt: str
    seed: int
    seconds: float
    composition: ComposeResult | None = None
    provenance: Provenance | None = None

    @property
    def image(self) -> Image.Image:
        """The image as a PIL image."""
        return to_pil(self.images)[0]

    @property
    def score_text(self) -> str:
        """The score as people read it, with its standard error where that is known."""
        return format_score(self.score)

    def save(self, path: Path | str) -> None:
        """Save the image as PNG; its text chunks say how to make it again.

        Raises:
            ImageError: If the name does not end in .png.
            SaveError: If it cannot be written; says where the image is kept instead.
        """
        metadata = {"prompt": self.prompt, "seed": str(self.seed), "score": self.score_text}
        if self.composition is not None:
            metadata["placement"] = self.composition.placement.name
        if self.provenance is not None:
            metadata[CHUNK] = self.provenance.to_json()
        save_png(self.images[0], Path(path), metadata)


def format_score(score: Score) -> str:
    """A score of one image as text, with its standard error where there is one."""
    mean, stderr = float(score.mean), float(score.stderr)
    return f"{mean:.4f}" if math.isnan(stderr) else f"{mean:.4f} +- {stderr:.4f}"
