"""Pictures between the core's range [-1, 1], the range [0, 1] and PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import ImageError
from .weights import write_whole

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
        SaveError: If the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise ImageError(f"{path} does not end in .png, but pictures are saved as PNG; rename it.")
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for key, text in metadata.items():
        chunks.add_itxt(key, text)
    content = io.BytesIO()
    to_pil(image[None])[0].save(content, format="PNG", pnginfo=chunks)
    write_whole(path, content.getvalue())
