from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fusedream_core import Basis, GenerationResult, ImageError, Latent, Score
from fusedream_core.pipeline.result import format_score


def make(stderr: float = 0.01) -> GenerationResult:
    latent = Latent(torch.zeros(1, 3), torch.zeros(1, 2), 1.0)
    basis = Basis(latent, torch.zeros(1), torch.zeros(1, dtype=torch.int64), "gan", "a dog")
    score = Score(torch.tensor([0.51234]), torch.tensor([stderr]))
    image = torch.full((1, 3, 4, 5), -1.0)
    return GenerationResult(image, score, latent, basis, "a dog", 7, 1.5)


@pytest.mark.parametrize(("stderr", "text"), [(0.01, "0.5123 +- 0.0100"), (float("nan"), "0.5123")])
def test_format_score(stderr: float, text: str) -> None:
    assert format_score(make(stderr).score) == make(stderr).score_text == text


class TestSave:
    def test_image_and_metadata(self, tmp_path: Path) -> None:
        make().save(tmp_path / "dog.png")
        with Image.open(tmp_path / "dog.png") as image:
            assert image.size == (5, 4)
            assert image.getpixel((0, 0)) == (0, 0, 0)
            assert image.info == {"prompt": "a dog", "seed": "7", "score": "0.5123 +- 0.0100"}

    def test_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="png"):
            make().save(tmp_path / "dog.jpg")
        assert not list(tmp_path.iterdir())
