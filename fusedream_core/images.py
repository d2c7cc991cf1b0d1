"""Pictures between the core's range [-1, 1], the range [0, 1] and PNG files."""

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
    """Map pictures from ``[-1, 1]`` to ``[0, 1]``, clamping; any shape.

    References:
        Differs from gnobitab/FuseDream, which stretches the saved picture to its own minimum
        and maximum, so that its colours are not those that were scored.
    """
    return ((images + 1.0) / 2.0).clamp(0.0, 1.0)


def from_images01(images01: Tensor) -> Tensor:
    """Map pictures from ``[0, 1]`` to ``[-1, 1]``; any shape."""
    return images01 * 2.0 - 1.0


def to_pil(images: Tensor) -> list[Image.Image]:
    """Turn pictures ``(B, 3, H, W)`` in ``[-1, 1]`` into 8-bit PIL images."""
    from PIL import Image

    # (B, 3, H, W) -> (B, H, W, 3)
    pixels = (to_images01(images.detach()) * 255.0).round().to(torch.uint8).movedim(1, -1).cpu()
    return [Image.fromarray(picture.numpy()) for picture in pixels]


def save_png(image: Tensor, path: Path, metadata: Mapping[str, str]) -> None:
    """Save one picture ``(3, H, W)`` in ``[-1, 1]`` as PNG, with text chunks, whole or not at all.

    Args:
        image: The picture.
        path: Where to, ending in .png; missing folders are made.
        metadata: Text chunks, such as prompt, seed and score.

    Raises:
        ImageError: If the name is of another kind of file.
        PromptError: If a text cannot be written.
        SaveError: If the file cannot be written; says where the picture is kept instead.
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
    """Check that a name is one of a PNG file.

    Raises:
        ImageError: If not.
    """
    if path.suffix.lower() != ".png":
        raise ImageError(f"{path} does not end in .png, but pictures are saved as PNG; rename it.")


def check_text(name: str, text: str) -> None:
    """Check that a text can be kept in a file.

    Raises:
        PromptError: If it holds what is no character, such as a byte that is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"The {name} holds something that is no character at place {error.start + 1} "
            f"({text[error.start]!a}); type it again, in UTF-8."
        ) from error


def read_png_text(path: Path, key: str) -> str | None:
    """A text chunk of a PNG file, None if it has none of this name; no pixel is read.

    Raises:
        ImageError: If the file is missing or no PNG.
    """
    from PIL import Image

    with _reading(path), Image.open(path, formats=["PNG"]) as picture:
        text = picture.info.get(key)
    return text if isinstance(text, str) else None


def read_image(path: Path, *, most_pixels: int | None = None) -> Tensor:
    """A picture from a file, shape ``(1, 3, H, W)``, in ``[-1, 1]``, upright, alpha over white.

    Args:
        path: The file.
        most_pixels: A larger image is shrunk to about so many, before it takes 12 bytes for each.

    Raises:
        ImageError: If the file is missing, no picture, too large, or of a range that is not known.
    """
    from PIL import Image, ImageOps

    with _reading(path), Image.open(path) as picture:
        upright = _eight_bit(ImageOps.exif_transpose(picture), path).convert("RGBA")
    scale = math.sqrt((most_pixels or math.inf) / (upright.width * upright.height))
    if scale < 1.0:
        width, height = (max(1, round(side * scale)) for side in upright.size)
        upright = upright.resize((width, height), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", upright.size, "white")
    flat = Image.alpha_composite(white, upright).convert("RGB")
    pixels = torch.frombuffer(bytearray(flat.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(1, flat.height, flat.width, 3).movedim(-1, 1)  # BHWC -> BCHW
    return from_images01(pixels.contiguous() / 255.0)


def _eight_bit(image: Image.Image, path: Path) -> Image.Image:
    """A grey image of more than 8 bits scaled to 8, which Pillow would clip; others as they are.

    16-bit files are of mode I;16 or, by their format, I; both range to 65535. F ranges to 1.

    Raises:
        ImageError: If a value is out of the mode's range.
    """
    from PIL import Image

    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float64)
    highest = 1.0 if image.mode == "F" else 65535.0
    if not bool(((values >= 0.0) & (values <= highest)).all()):  # NaN neither
        raise ImageError(
            f"{path} is a grey image of mode {image.mode} with values outside 0 to {highest:g}, so "
            "that it is not known which are black and white; save it as PNG of 8 or 16 bits."
        )
    return Image.fromarray((values * (255.0 / highest)).round().astype(np.uint8))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever fails in reading a picture into an ``ImageError``."""
    from PIL import Image

    try:
        yield
    except FuseDreamError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as a picture ({error}); check its name and what it is."
        ) from error
