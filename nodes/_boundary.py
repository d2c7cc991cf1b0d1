"""Converts between ComfyUI and the core: images, masks, progress, inference mode.

ComfyUI's images are ``(B, H, W, C)`` in ``[0, 1]``, and its masks ``(B, H, W)``. The core's are
``(B, 3, H, W)`` in ``[-1, 1]`` and ``(B, 1, H, W)``. No other file converts them.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..fusedream_core.determinism import deterministic
from ..fusedream_core.errors import ImageError, ShapeError
from ..fusedream_core.images import from_images01, to_images01, to_pil
from ..fusedream_core.memory import AutoBatchSize

if TYPE_CHECKING:
    from PIL.Image import Image
    from server import PromptServer

    from ..fusedream_core.models.gan.base import Gan
    from ..fusedream_core.types import Latent, StepInfo

DECODE_BATCH = 8  # images of stored latents per forward pass
MIN_SIDE = 8  # pixels; smaller images cannot be translated, cut out or scaled
_NO_ALPHA = (64, 64)  # size of the empty mask that Load Image returns without alpha
_PREVIEW_PIXELS = 512
_PREVIEW_SECONDS = 0.5
_PROGRESS_SECONDS = 0.05


@contextmanager
def autograd_scope() -> Iterator[None]:
    """Leave ComfyUI's inference mode and enable gradients.

    Models must also be loaded and moved inside it, or their weights become inference tensors.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


def image_to_core(image: Tensor, name: str = "batch") -> Tensor:
    """Convert an IMAGE to the core's format.

    Alpha is composited over white, one channel is read as grey, and values are clamped to
    ``[0, 1]``. Inside :func:`autograd_scope` the result is no inference tensor.

    Args:
        image: Images, shape ``(B, H, W, C)`` with C of 1, 3 or 4, values in ``[0, 1]``.
        name: Name of the batch in messages.

    Returns:
        A new tensor ``(B, 3, H, W)``, float32, in ``[-1, 1]``.

    Raises:
        ShapeError: If it has another shape, is empty, or has a side under 8 pixels.
        ImageError: If an image holds NaN or infinite values.
    """
    check_image(image, name)
    images01 = image.clone().float().clamp(0.0, 1.0)
    if images01.shape[-1] == 4:
        alpha = images01[..., 3:]
        images01 = images01[..., :3] * alpha + (1.0 - alpha)
    elif images01.shape[-1] == 1:
        images01 = images01.expand(-1, -1, -1, 3)
    return from_images01(images01).movedim(-1, 1).contiguous()  # BHWC -> BCHW


def images_to_core(images: Sequence[Tensor]) -> list[Tensor]:
    """Convert IMAGEs of any sizes to the core's format; messages number the batches."""
    names = ["batch"] if len(images) == 1 else [f"batch {n + 1}" for n in range(len(images))]
    return [image_to_core(image, name) for image, name in zip(images, names, strict=True)]


def cutout_to_core(image: Tensor, name: str = "batch") -> tuple[Tensor, Tensor | None]:
    """Convert an IMAGE to the core's format, and its alpha to ``(B, 1, H, W)`` or None.

    As :func:`image_to_core`, but alpha is returned instead of composited.
    """
    check_image(image, name)
    if image.shape[-1] != 4:
        return image_to_core(image, name), None
    alpha = image[..., 3:].clone().float().clamp(0.0, 1.0)
    return image_to_core(image[..., :3], name), alpha.movedim(-1, 1).contiguous()


def check_image(image: Tensor, name: str = "batch") -> None:
    """Raise if an IMAGE has a wrong shape, is too small, or is not finite."""
    if not isinstance(image, Tensor) or image.ndim != 4:
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ShapeError(f"Expected an IMAGE batch of shape (B, H, W, C), got {shape}.")
    batch, height, width, channels = image.shape
    if channels not in (1, 3, 4):
        raise ShapeError(
            f"The pictures of the {name} have {channels} channels; FuseDream takes RGB, RGBA or "
            "grey ones."
        )
    if batch == 0:
        raise ShapeError(f"The {name} is empty; connect at least one picture.")
    if min(height, width) < MIN_SIDE:
        raise ShapeError(
            f"The pictures of the {name} are {width} x {height} pixels; FuseDream needs at "
            f"least {MIN_SIDE} x {MIN_SIDE}."
        )
    faulty = [index for index in range(batch) if not bool(torch.isfinite(image[index]).all())]
    if faulty:
        numbers = ", ".join(str(index + 1) for index in faulty[:5])
        raise ImageError(
            f"Picture {numbers} of the {name} holds NaN or infinite values; the node that made it "
            "failed (a VAE in half precision does this)."
        )


def core_to_image(images: Tensor) -> Tensor:
    """Convert the core's images to an IMAGE ``(B, H, W, 3)`` in ``[0, 1]`` on the output device."""
    import comfy.model_management as management

    images01 = to_images01(images.detach().float()).movedim(1, -1).contiguous()  # BCHW -> BHWC
    return images01.to(management.intermediate_device())


def mask_to_core(mask: Tensor, height: int, width: int) -> Tensor:
    """Convert a MASK to the core's format, for images of one size.

    Args:
        mask: Shape ``(B, H, W)``, or ``(H, W)`` from some nodes, values in ``[0, 1]``.
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Returns:
        A new tensor ``(B, 1, H, W)``, float32, in ``[0, 1]``.

    Raises:
        ShapeError: If it has another shape, is empty, or has another size than the images.
        ImageError: If it holds NaN or infinite values.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ShapeError(f"Expected a MASK batch of shape (B, H, W), got {shape}.")
    if mask.shape[-2:] == _NO_ALPHA and not mask.any():
        raise ShapeError(
            f"The mask is 64 x 64 pixels, but the background is {width} x {height}, and all of it "
            "is black: that is what Load Image gives for an image without alpha; connect a mask "
            "that is painted, or none."
        )
    if mask.shape[-2:] != (height, width):
        raise ShapeError(
            f"The mask is {mask.shape[-1]} x {mask.shape[-2]} pixels, but the background is "
            f"{width} x {height}; make the mask for the background, or resize one of them."
        )
    if not bool(torch.isfinite(mask).all()):
        raise ImageError("The mask holds NaN or infinite values; the node that made it failed.")
    return mask.clone().float().clamp(0.0, 1.0).reshape(-1, 1, height, width)


def core_to_mask(masks: Tensor) -> Tensor:
    """Convert the core's masks ``(B, 1, H, W)`` to a MASK ``(B, H, W)`` on the output device."""
    import comfy.model_management as management

    return masks.detach().float().squeeze(1).to(management.intermediate_device())


def join_batches(images: list[Tensor]) -> list[Tensor]:
    """Join batches of one size into one; return batches of several sizes unchanged."""
    same_size = len({batch.shape[1:] for batch in images}) == 1
    return [torch.cat(images)] if same_size and len(images) > 1 else images


def select_images(batches: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
    """Return copies of the images at some indices, counted over all batches.

    They are one batch if there is one, else a list of batches with one image each.
    """
    if len(batches) == 1 and indices:
        return [batches[0][torch.tensor(indices, device=batches[0].device)]]
    places = [(batch, row) for batch in batches for row in range(len(batch))]
    chosen = [places[index] for index in indices]
    return [batch[torch.tensor([row], device=batch.device)] for batch, row in chosen]


def decode(gan: Gan, latent: Latent) -> Tensor:
    """Decode stored latents in small batches to images ``(B, 3, H, W)`` on the CPU.

    No gradients are recorded, and Cancel is checked before each batch.
    """
    import comfy.model_management as management

    def forward(z: Tensor, y: Tensor) -> Tensor:
        management.throw_exception_if_processing_interrupted()
        return gan.decode(z, y, truncation=latent.truncation).cpu()

    there = latent.to(gan.device)
    with torch.no_grad(), deterministic():
        return AutoBatchSize(DECODE_BATCH).map(forward, there.z, there.y)


def pil_to_image(images: Sequence[Image]) -> Tensor:
    """Convert PIL images of one size to an IMAGE."""
    import comfy.model_management as management

    arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0 for image in images]
    return torch.from_numpy(np.stack(arrays)).to(management.intermediate_device())


class Progress:
    """Callback of the core: progress bar, preview at most twice a second, and Cancel.

    Cancel is checked first at every call. ComfyUI's exception for it passes through the core,
    which then frees its memory.
    """

    def __init__(self) -> None:
        import comfy.utils

        self._bar = comfy.utils.ProgressBar(1)
        self._previewed_at = math.inf if previews_are_off() else 0.0
        self._sent_at = 0.0

    def __call__(self, info: StepInfo) -> None:
        import comfy.model_management as management

        management.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        preview = None
        if now - self._previewed_at >= _PREVIEW_SECONDS:
            preview = ("JPEG", to_pil(info.preview[:1])[0], _PREVIEW_PIXELS)
            self._previewed_at = now
        finished = info.step >= info.total
        if preview is not None or finished or now - self._sent_at >= _PROGRESS_SECONDS:
            self._bar.update_absolute(info.step, info.total, preview)
            self._sent_at = now


def previews_are_off() -> bool:
    """Return whether the user chose "none" for previews, on the command line or in the prompt.

    "none" is also ComfyUI's default, meant for previews that cost time. Ours cost none, so they
    are sent unless "none" was set explicitly.
    """
    from comfy.cli_args import LatentPreviewMethod, args

    if args.preview_method != LatentPreviewMethod.NoPreviews:
        return False
    return any(word.startswith("--preview-m") for word in sys.argv) or _prompt_says_none()


def _prompt_says_none() -> bool:
    """Return whether the frontend set "none" for the running prompt."""
    from comfy_execution.utils import get_executing_context

    context, server = get_executing_context(), _server()
    if context is None or server is None:
        return False
    for _, prompt_id, _, extra, *_ in list(server.prompt_queue.currently_running.values()):
        if prompt_id == context.prompt_id:
            return bool(extra.get("preview_method") == "none")
    return False


def _server() -> PromptServer | None:
    """Return ComfyUI's server, or None outside of one."""
    module = sys.modules.get("server")
    return getattr(getattr(module, "PromptServer", None), "instance", None)


def show_text(message: str) -> None:
    """Show a line below the running node, if a frontend is connected."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    if context is None:
        return
    server = _server()
    if server is not None:
        server.send_progress_text(message, context.node_id)
