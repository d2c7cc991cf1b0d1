"""Text to picture in one call: encode, search, optimise or compose."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from .autograd import with_gradients
from .bank import Bank
from .clip.base import ImageTextEncoder
from .clip.target import encode_target
from .composition import ComposeResult, compose
from .config import DEFAULT, CompositionRecipe, Recipe, SearchConfig
from .demo import load_demo, load_demo_bank, load_demo_lpips
from .errors import ConfigError
from .gan.base import Gan
from .images import save_png, to_pil
from .optimize import optimize
from .perceptual import Perceptual
from .placement import Placement
from .rng import make_generator
from .search import search_basis
from .types import Basis, Callback, Latent, Record, Score

if TYPE_CHECKING:
    from PIL import Image

# Streams of a run's seed: what one stage draws does not move the numbers of the other.
SEARCH_STREAM = 0
OPTIMIZE_STREAM = 1


@dataclass(frozen=True, slots=True, eq=False)
class GenerationResult(Record):
    """A picture and how it came about.

    Attributes:
        images: The picture, shape ``(1, 3, H, W)``, in ``[-1, 1]``.
        score: Its held-out AugCLIP score, shape ``(1,)``.
        latent: Its latent, mixed; of a composition those of foreground and background.
        basis: What the search found.
        prompt: The text it was made from.
        seed: The seed it was made from.
        seconds: Time of search and optimisation, without loading.
        composition: All of a composition's outcome; None for a single picture.
    """

    images: Tensor
    score: Score
    latent: Latent
    basis: Basis
    prompt: str
    seed: int
    seconds: float
    composition: ComposeResult | None = None

    @property
    def image(self) -> Image.Image:
        """The picture as a PIL image."""
        return to_pil(self.images)[0]

    def save(self, path: Path | str) -> None:
        """Save the picture as PNG, with prompt, seed and score in its text chunks."""
        score = f"{float(self.score.mean):.4f} +- {float(self.score.stderr):.4f}"
        metadata = {"prompt": self.prompt, "seed": str(self.seed), "score": score}
        if self.composition is not None:
            metadata["placement"] = self.composition.placement.name
        save_png(self.images[0], Path(path), metadata)


@with_gradients
def generate(
    prompt: str,
    *,
    seed: int = 0,
    gan: Gan | None = None,
    clip: ImageTextEncoder | None = None,
    bank: Bank | None = None,
    recipe: Recipe = DEFAULT,
    callback: Callback | None = None,
) -> GenerationResult:
    """Make a picture from a text.

    Args:
        prompt: What to show; see ``parse_prompt`` for pieces and weights.
        seed: From 0 to 2**64 - 1; the same seed gives the same picture.
        gan: The generator.
        clip: The encoder. With neither generator nor encoder, the demo pair is loaded.
        bank: Candidates that CLIP has seen before; None means none, and so another picture. Where
            this call loads the demo pair, its bank comes along, unless the recipe tells the number
            of candidates or a truncation.
        recipe: The settings of all stages.
        callback: Called after each scored batch and each step; it may raise to stop.

    Returns:
        The picture with its score, latent and basis.

    Raises:
        FuseDreamError: If the prompt is empty, the seed out of range, or models do not fit.
    """
    search_generator = make_generator(seed, SEARCH_STREAM)
    gan, clip, bank = _models(gan, clip, bank, recipe.search)
    begin = time.perf_counter()
    target = encode_target(clip, prompt)
    bases = search_basis(
        gan,
        clip,
        [target],
        config=recipe.search,
        augment=recipe.augment,
        generator=search_generator,
        bank=bank,
        callback=callback,
    )
    result = optimize(
        gan,
        clip,
        [target],
        bases,
        config=recipe.optimize,
        augment=recipe.augment,
        generators=[make_generator(seed, OPTIMIZE_STREAM)],
        callback=callback,
    )
    seconds = time.perf_counter() - begin
    return GenerationResult(
        result.images, result.score, result.latent, bases[0], prompt, seed, seconds
    )


@with_gradients
def generate_composition(
    prompt: str,
    *,
    seed: int = 0,
    gan: Gan | None = None,
    clip: ImageTextEncoder | None = None,
    perceptual: Perceptual | None = None,
    bank: Bank | None = None,
    recipe: CompositionRecipe = CompositionRecipe(),  # noqa: B008 - frozen
    placements: Sequence[Placement] | None = None,
    foreground_prompt: str | None = None,
    background_prompt: str | None = None,
    callback: Callback | None = None,
) -> GenerationResult:
    """Make a picture of two things from a text: one picture pasted on another.

    Args:
        prompt: What the whole is to show; see ``parse_prompt`` for pieces and weights.
        seed: From 0 to 2**64 - 1; the same seed gives the same picture.
        gan: The generator.
        clip: The encoder. With neither generator nor encoder, the demo models are loaded.
        perceptual: The distance behind consistency; None means the demo's, if any is needed.
        bank: Candidates that CLIP has seen before; see :func:`generate`.
        recipe: The settings of all stages.
        placements: Scales and positions to try; None means the paper's 18.
        foreground_prompt: What the pasted picture is to show. With it, its basis has a search of
            its own; without, foreground and background share the search for ``prompt``.
        background_prompt: The same of the picture that it is pasted on.
        callback: Called after each scored batch and each step; it may raise to stop.

    Returns:
        The composite with its score, latents and basis (the foreground's).

    Raises:
        FuseDreamError: If a prompt is empty, the seed out of range, or models do not fit.

    References:
        Liu et al. 2021, section 3.3, where one text serves all; the others are an addition.
    """
    search_generator = make_generator(seed, SEARCH_STREAM)
    gan, clip, bank = _models(gan, clip, bank, recipe.search)
    if perceptual is None and recipe.compose.consistency != "none":
        perceptual = load_demo_lpips().to(gan.device)
    begin = time.perf_counter()
    target = encode_target(clip, prompt)
    parts = [
        encode_target(clip, text) if text is not None else None
        for text in (foreground_prompt, background_prompt)
    ]
    bases = search_basis(
        gan,
        clip,
        [part or target for part in parts] if any(parts) else [target],
        config=recipe.search,
        augment=recipe.augment,
        generator=search_generator,
        bank=bank,
        callback=callback,
    )
    (result,) = compose(
        gan,
        clip,
        [target],
        bases[:1],
        bases[-1:],
        config=recipe.compose,
        augment=recipe.augment,
        generators=[make_generator(seed, OPTIMIZE_STREAM)],
        placements=placements,
        perceptual=perceptual,
        foreground_targets=parts[:1],
        background_targets=parts[1:],
        callback=callback,
    )
    seconds = time.perf_counter() - begin
    return GenerationResult(
        result.images, result.score, result.latent, bases[0], prompt, seed, seconds, result
    )


def _models(
    gan: Gan | None, clip: ImageTextEncoder | None, bank: Bank | None, search: SearchConfig
) -> tuple[Gan, ImageTextEncoder, Bank | None]:
    """The generator, encoder and bank that were given, or the demo's."""
    if gan is None and clip is None:
        as_usual = search.num_candidates is None and search.truncation is None
        return *load_demo(), load_demo_bank() if bank is None and as_usual else bank
    if gan is None or clip is None:
        raise ConfigError(
            "Only one of gan and clip was given; give both, or neither for the demo pair."
        )
    return gan, clip, bank
