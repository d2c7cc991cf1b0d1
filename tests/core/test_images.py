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

    @pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
    def test_16_bits_are_scaled_not_clipped(self, suffix: str, tmp_path: Path) -> None:
        ramp = np.array([[0, 257, 32768, 40_000, 65535]], dtype=np.uint16)
        path = tmp_path / f"grey.{suffix}"
        Image.fromarray(ramp).save(path)
        found = read_image(path)[0, :, 0] / 2 + 0.5
        expected = torch.tensor([0.0, 1 / 255, 128 / 255, 156 / 255, 1.0]).expand(3, 5)
        torch.testing.assert_close(found, expected)

    def test_big_endian_grey(self, tmp_path: Path) -> None:
        path = tmp_path / "grey.tif"
        Image.frombytes("I;16B", (2, 1), bytes([255, 255, 128, 0])).save(path)
        assert (read_image(path)[0, 0, 0] / 2 + 0.5).mul(255).round().tolist() == [255, 128]

    def test_grey_of_32_bits(self, tmp_path: Path) -> None:
        path = tmp_path / "grey.tif"
        Image.fromarray(np.array([[0, 65535]], dtype=np.int32)).save(path)
        assert read_image(path)[0, 0, 0].tolist() == [-1.0, 1.0]
        for value in (-1, 65536, 2**31 - 1):
            Image.fromarray(np.array([[0, value]], dtype=np.int32)).save(path)
            with pytest.raises(ImageError, match="mode I with values outside 0 to 65535"):
                read_image(path)

    def test_grey_of_floats(self, tmp_path: Path) -> None:
        path = tmp_path / "grey.tif"
        Image.fromarray(np.array([[0.0, 0.2, 1.0]], dtype=np.float32)).save(path)
        found = read_image(path)[0, 0, 0] / 2 + 0.5
        torch.testing.assert_close(found, torch.tensor([0.0, 0.2, 1.0]))
        for value in (-0.1, 1.1, float("nan"), float("inf")):
            Image.fromarray(np.array([[0.0, value]], dtype=np.float32)).save(path)
            with pytest.raises(ImageError, match="mode F with values outside 0 to 1,"):
                read_image(path)

    def test_larger_than_needed_is_shrunk(self, tmp_path: Path) -> None:
        Image.new("RGB", (80, 20), (255, 0, 0)).save(tmp_path / "large.png")
        assert read_image(tmp_path / "large.png").shape == (1, 3, 20, 80)
        found = read_image(tmp_path / "large.png", max_pixels=400)
        assert found.shape == (1, 3, 10, 40)
        assert found[0, :, 5, 20].tolist() == [1.0, -1.0, -1.0]

    def test_colours_of_another_space(self, tmp_path: Path) -> None:
        path = tmp_path / "image.tif"
        Image.new("RGB", (2, 2)).convert("LAB").save(path)
        with pytest.raises(ImageError, match=r"has LAB colours; save it as 8-bit RGB\."):
            read_image(path)

    def test_exception(self, tmp_path: Path) -> None:
        (tmp_path / "odd.png").write_bytes(b"odd")
        with pytest.raises(ImageError, match="cannot be read as an image"):
            read_image(tmp_path / "odd.png")
