"""The result of ``generate``, with PNG output."""

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
    """A generated image with its latent, score and record.

    Attributes:
        images: The image, shape ``(1, 3, H, W)``, in ``[-1, 1]``.
        score: Held-out AugCLIP score, shape ``(1,)``.
        latent: Mixed latent; for a composition those of foreground and background.
        basis: Basis of the search.
        prompt: Prompt of the image.
        seed: Seed of the run.
        seconds: Time of search and optimisation, without loading.
        composition: Full result of a composition; None for a single image.
        provenance: Record to make the image again; None if unknown.
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
        """The score as text, with its standard error if known."""
        return format_score(self.score)

    def save(self, path: Path | str) -> None:
        """Save the image as PNG, with the record in its text chunks.

        Raises:
            ImageError: If the name does not end in .png.
            SaveError: If it cannot be written; the message has the path of a fallback copy.
        """
        metadata = {"prompt": self.prompt, "seed": str(self.seed), "score": self.score_text}
        if self.composition is not None:
            metadata["placement"] = self.composition.placement.name
        if self.provenance is not None:
            metadata[CHUNK] = self.provenance.to_json()
        save_png(self.images[0], Path(path), metadata)


def format_score(score: Score) -> str:
    """Format the score of one image, with its standard error if known."""
    mean, stderr = float(score.mean), float(score.stderr)
    return f"{mean:.4f}" if math.isnan(stderr) else f"{mean:.4f} +- {stderr:.4f}"
