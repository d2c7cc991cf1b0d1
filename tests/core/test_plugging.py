"""The examples of docs/library.md: a generator and an encoder of one's own, in a few lines each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core import (
    Gan,
    ImageTextEncoder,
    OptimizeConfig,
    Recipe,
    SearchConfig,
    generate,
    truncated_normal,
)


class PlainColors:
    """Images of one colour, which is z itself."""

    gan_id, class_names, device = "plain-colors", ("any",), torch.device("cpu")
    truncation = z_std = y_std = 1.0

    def sample_z(self, num: int, *, truncation: float, generator: torch.Generator) -> Tensor:
        return truncation * truncated_normal((num, 3), generator=generator)

    def embed(self, class_index: Tensor) -> Tensor:
        return torch.zeros(len(class_index), 1)

    def decode(self, z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
        return z.tanh()[:, :, None, None].expand(-1, 3, 16, 16) + 0 * y[..., None, None]


class ColorWords:
    """Knows three words, and of an image its mean colour."""

    clip_id, device = "color-words", torch.device("cpu")
    words: ClassVar = {
        "red": (1.0, -1.0, -1.0),
        "green": (-1.0, 1.0, -1.0),
        "blue": (-1.0, -1.0, 1.0),
    }

    def encode_images(self, images: Tensor) -> Tensor:
        return F.normalize(images.mean(dim=(2, 3)), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(torch.tensor([self.words[text] for text in texts]).float(), dim=-1)

    def truncates(self, text: str) -> bool:
        return False


class TestPlugging:
    def test_protocols(self) -> None:
        gan: Gan = PlainColors()
        clip: ImageTextEncoder = ColorWords()
        recipe = Recipe(
            search=SearchConfig(num_candidates=50), optimize=OptimizeConfig(num_steps=30)
        )
        for seed, word in enumerate(ColorWords.words):
            result = generate(word, seed=seed, gan=gan, clip=clip, recipe=recipe)
            signs = result.images[0, :, 8, 8].sign().tolist()
            assert tuple(signs) == ColorWords.words[word]
