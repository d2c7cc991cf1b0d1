"""Conversion of images between [-1, 1], [0, 1], PIL and PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import ImageError, PromptError
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


def read_image(path: Path) -> Tensor:
    """Read an image file as ``(1, 3, H, W)`` in ``[-1, 1]``, upright, alpha over white.

    Raises:
        ImageError: If the file is missing, not an image, or too large.
    """
    from PIL import Image, ImageOps

    with _reading(path), Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16") or (upright.mode, image.format) == ("I", "PNG"):
            # PIL would cut off what is above 255
            upright = upright.convert("I").point(lambda grey: grey * (1 / 257) + 0.5).convert("L")
        elif upright.mode in ("I", "F", "LAB", "HSV"):  # whose white is not known, or not kept
            raise ValueError(f"its colours are of the kind {upright.mode}; save it as 8-bit RGB")
        upright = upright.convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    flat = Image.alpha_composite(white, upright).convert("RGB")
    pixels = torch.frombuffer(bytearray(flat.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(1, flat.height, flat.width, 3).movedim(-1, 1)  # BHWC -> BCHW
    return from_images01(pixels.contiguous() / 255.0)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert errors of reading an image to ``ImageError``."""
    from PIL import Image

    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as an image ({error}); check its name and what it is."
        ) from error
