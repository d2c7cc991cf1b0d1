from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from fusedream_core import ImageError
from fusedream_core.images import from_images01, save_png, to_images01, to_pil


class TestRanges:
    def test_value(self) -> None:
        values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])
        assert to_images01(values).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]

    def test_round_trip(self, images: Tensor) -> None:
        torch.testing.assert_close(from_images01(to_images01(images)), images)


class TestPng:
    def test_value(self, images: Tensor, tmp_path: Path) -> None:
        path = tmp_path / "new" / "picture.png"
        save_png(images[0], path, {"prompt": "ein Wört", "seed": "7"})
        with Image.open(path) as picture:
            assert picture.text == {"prompt": "ein Wört", "seed": "7"}  # type: ignore[attr-defined]
            assert picture.tobytes() == to_pil(images[:1])[0].tobytes()
            assert picture.getpixel((3, 5)) == tuple(
                round((value + 1) * 127.5) for value in images[0, :, 5, 3].tolist()
            )


def test_pictures_are_saved_as_png_alone(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"does not end in \.png"):
        save_png(torch.zeros(3, 4, 4), tmp_path / "picture.jpg", {})
    assert not any(tmp_path.iterdir())
