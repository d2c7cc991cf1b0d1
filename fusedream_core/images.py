"""Conversion of images between [-1, 1], [0, 1], PIL and PNG files."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .errors import FuseDreamError, ImageError, PromptError
from .output import write_or_keep

if TYPE_CHECKING:
    from PIL import Image


def to_images01(images: Tensor) -> Tensor:
    """Map images of any shape from ``[-1, 1]`` to ``[0, 1]``, with clamping.

    References:
        gnobitab/FuseDream stretches a saved image to its own minimum and maximum instead, so its
        colours differ from those that were scored.
    """
    return ((images + 1.0) / 2.0).clamp(0.0, 1.0)


def from_images01(images01: Tensor) -> Tensor:
    """Map images of any shape from ``[0, 1]`` to ``[-1, 1]``."""
    return images01 * 2.0 - 1.0


def to_pil(images: Tensor) -> list[Image.Image]:
    """Convert images ``(B, 3, H, W)`` in ``[-1, 1]`` to 8-bit PIL images."""
    from PIL import Image

    # (B, 3, H, W) -> (B, H, W, 3)
    pixels = (to_images01(images.detach()) * 255.0).round().to(torch.uint8).movedim(1, -1).cpu()
    return [Image.fromarray(image.numpy()) for image in pixels]


def save_png(image: Tensor, path: Path, metadata: Mapping[str, str]) -> None:
    """Save one image as PNG with text chunks, atomically.

    Args:
        image: Shape ``(3, H, W)``, in ``[-1, 1]``.
        path: Output file, ending in .png; missing folders are created.
        metadata: Text chunks, such as prompt, seed and score.

    Raises:
        ImageError: If the name does not end in .png.
        PromptError: If a text is not valid Unicode.
        SaveError: If the file cannot be written; the message has the path of a fallback copy.
    """
    check_png_name(path)
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for key, text in metadata.items():
        check_text(key, text)
        chunks.add_itxt(key, text)
    content = io.BytesIO()
    to_pil(image[None])[0].save(content, format="PNG", pnginfo=chunks)
    write_or_keep(path, content.getvalue())


def check_png_name(path: Path) -> None:
    """Check that a file name ends in .png.

    Raises:
        ImageError: If not.
    """
    if path.suffix.lower() != ".png":
        raise ImageError(f"{path} does not end in .png, but images are saved as PNG; rename it.")


def check_text(name: str, text: str) -> None:
    """Check that a text can be encoded as UTF-8.

    Raises:
        PromptError: If not, as with a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"The {name} holds something that is no character at place {error.start + 1} "
            f"({text[error.start]!a}); type it again, in UTF-8."
        ) from error


def read_png_text(path: Path, key: str) -> str | None:
    """Return a text chunk of a PNG file, or None; pixels are not decoded.

    Raises:
        ImageError: If the file is missing or not a PNG.
    """
    from PIL import Image

    with _reading(path), Image.open(path, formats=["PNG"]) as image:
        text = image.info.get(key)
    return text if isinstance(text, str) else None


def read_image(path: Path, *, max_pixels: int | None = None) -> Tensor:
    """Read an image file as ``(1, 3, H, W)`` in ``[-1, 1]``, upright, alpha over white.

    Args:
        path: The file.
        max_pixels: A larger image is reduced to about this many pixels.

    Raises:
        ImageError: If the file is missing, not an image, too large, or of an unknown value range.
    """
    from PIL import Image, ImageOps

    with _reading(path), Image.open(path) as image:
        upright = _to_8_bits(ImageOps.exif_transpose(image), path).convert("RGBA")
    scale = math.sqrt((max_pixels or math.inf) / (upright.width * upright.height))
    if scale < 1.0:
        width, height = (max(1, round(side * scale)) for side in upright.size)
        upright = upright.resize((width, height), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", upright.size, "white")
    flat = Image.alpha_composite(white, upright).convert("RGB")
    pixels = torch.frombuffer(bytearray(flat.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(1, flat.height, flat.width, 3).movedim(-1, 1)  # BHWC -> BCHW
    return from_images01(pixels.contiguous() / 255.0)


def _to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scale a grey image of more than 8 bits to 8, which Pillow would clip; others are unchanged.

    16-bit files are of mode I;16 or, depending on the format, I, with values to 65535; F has values
    to 1.

    Raises:
        ImageError: If a value is out of range, or the colours are LAB.
    """
    from PIL import Image

    if image.mode == "LAB":  # Pillow does not keep its white
        raise ImageError(f"{path} has LAB colours; save it as 8-bit RGB.")
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float64)
    highest = 1.0 if image.mode == "F" else 65535.0
    if not bool(((values >= 0.0) & (values <= highest)).all()):  # also refuses NaN
        raise ImageError(
            f"{path} is a grey image of mode {image.mode} with values outside 0 to {highest:g}, so "
            "that it is not known which are black and white; save it as PNG of 8 or 16 bits."
        )
    return Image.fromarray((values * (255.0 / highest)).round().astype(np.uint8))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert errors of reading an image to ``ImageError``."""
    from PIL import Image

    try:
        yield
    except FuseDreamError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as an image ({error}); check its name and what it is."
        ) from error
