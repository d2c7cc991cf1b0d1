from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fusedream_core import ImageError, PromptError
from fusedream_core.images import (
    from_images01,
    read_image,
    read_png_text,
    save_png,
    to_images01,
    to_pil,
)


class TestRanges:
    def test_value(self) -> None:
        values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])
        assert to_images01(values).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]

    def test_round_trip(self, images: Tensor) -> None:
        torch.testing.assert_close(from_images01(to_images01(images)), images)


class TestPng:
    def test_value(self, images: Tensor, tmp_path: Path) -> None:
        path = tmp_path / "new" / "image.png"
        save_png(images[0], path, {"prompt": "ein Wört", "seed": "7"})
        with Image.open(path) as image:
            assert image.text == {"prompt": "ein Wört", "seed": "7"}  # type: ignore[attr-defined]
            assert image.tobytes() == to_pil(images[:1])[0].tobytes()
            assert image.getpixel((3, 5)) == tuple(
                round((value + 1) * 127.5) for value in images[0, :, 5, 3].tolist()
            )


def test_images_are_saved_as_png_alone(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"does not end in \.png"):
        save_png(torch.zeros(3, 4, 4), tmp_path / "image.jpg", {})
    assert not any(tmp_path.iterdir())


class TestText:
    def test_read(self, images: Tensor, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        save_png(images[0], path, {"prompt": "ein W\u00f6rt", "long": "x" * 50_000})
        assert read_png_text(path, "prompt") == "ein W\u00f6rt"
        assert read_png_text(path, "long") == "x" * 50_000
        assert read_png_text(path, "other") is None

    def test_what_is_no_text_is_refused(self, images: Tensor, tmp_path: Path) -> None:
        with pytest.raises(PromptError, match="The prompt holds something that is no character"):
            save_png(images[0], tmp_path / "image.png", {"prompt": "a\udcff"})
        assert not any(tmp_path.iterdir())

    def test_other_files(self, tmp_path: Path) -> None:
        Image.new("RGB", (4, 4)).save(tmp_path / "image.jpg")
        for name in ("image.jpg", "nowhere.png"):
            with pytest.raises(ImageError, match="cannot be read as an image"):
                read_png_text(tmp_path / name, "prompt")


class TestReadImage:
    def test_value(self, images: Tensor, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        save_png(images[0], path, {})
        found = read_image(path)
        assert to_pil(found)[0].tobytes() == to_pil(images[:1])[0].tobytes()

    def test_alpha_lies_over_white_and_cameras_turn(self, tmp_path: Path) -> None:
        clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
        clear.save(tmp_path / "clear.png")
        assert read_image(tmp_path / "clear.png").unique().tolist() == [1.0]
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        Image.new("RGB", (8, 4)).save(tmp_path / "photo.jpg", exif=exif)
        assert read_image(tmp_path / "photo.jpg").shape == (1, 3, 8, 4)

    def test_16_bits_are_not_cut_off(self, tmp_path: Path) -> None:
        levels = np.array([[0, 40_000, 65_535]], dtype=np.uint16)
        Image.fromarray(levels).save(tmp_path / "scan.png")
        found = to_images01(read_image(tmp_path / "scan.png")) * 255
        assert found[0, :, 0].round().tolist() == [[0, 156, 255]] * 3
        Image.fromarray(levels.astype(np.float32)).save(tmp_path / "scan.tiff")
        with pytest.raises(ImageError, match=r"of the kind F; save it as 8-bit RGB"):
            read_image(tmp_path / "scan.tiff")

    def test_exception(self, tmp_path: Path) -> None:
        (tmp_path / "odd.png").write_bytes(b"odd")
        with pytest.raises(ImageError, match="cannot be read as an image"):
            read_image(tmp_path / "odd.png")
