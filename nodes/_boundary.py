"""Between ComfyUI and the core: pictures and masks in and out, progress, gradients.

ComfyUI's pictures are ``(B, H, W, C)`` in ``[0, 1]`` and its masks ``(B, H, W)``; the core's are
``(B, 3, H, W)`` in ``[-1, 1]`` and ``(B, 1, H, W)``. This is the only file that knows both.
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

DECODED_AT_ONCE = 8  # pictures of stored latents
MIN_SIDE = 8  # pixels; below it the augmentations have nothing left to move, cut or scale
_NO_ALPHA = (64, 64)  # of the empty mask that comes with an image without alpha
_PREVIEW_PIXELS = 512
_PREVIEW_SECONDS = 0.5
_PROGRESS_SECONDS = 0.05


@contextmanager
def autograd_scope() -> Iterator[None]:
    """Leave ComfyUI's inference mode, in which no graph can be recorded, and turn gradients on.

    Loading and moving models belongs in here too, or their weights become inference tensors.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


def image_to_core(image: Tensor, name: str = "batch") -> Tensor:
    """An IMAGE of any node as the core wants it.

    Alpha is laid over white, as picture viewers do; a single channel is taken for grey; values
    outside ``[0, 1]`` are clamped. The result is a new tensor, free of inference mode when called
    in :func:`autograd_scope`.

    Args:
        image: Pictures, shape ``(B, H, W, C)`` with C of 1, 3 or 4, values in ``[0, 1]``.
        name: What to call them in messages, where a node takes more than one batch.

    Returns:
        Shape ``(B, 3, H, W)``, float32, values in ``[-1, 1]``.

    Raises:
        ShapeError: If it is no such batch, is empty, or has a side under 8 pixels.
        ImageError: If a picture holds NaN or infinite values.
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
    """A list of IMAGEs of any sizes as the core wants them; messages number the batches."""
    names = ["batch"] if len(images) == 1 else [f"batch {n + 1}" for n in range(len(images))]
    return [image_to_core(image, name) for image, name in zip(images, names, strict=True)]


def cutout_to_core(image: Tensor, name: str = "batch") -> tuple[Tensor, Tensor | None]:
    """An IMAGE as the core wants it, and its alpha ``(B, 1, H, W)`` in ``[0, 1]``, or None.

    Like :func:`image_to_core`, but alpha stays apart from the colours.
    """
    check_image(image, name)
    if image.shape[-1] != 4:
        return image_to_core(image, name), None
    alpha = image[..., 3:].clone().float().clamp(0.0, 1.0)
    return image_to_core(image[..., :3], name), alpha.movedim(-1, 1).contiguous()


def check_image(image: Tensor, name: str = "batch") -> None:
    """Refuse what no score can be given for, in a sentence that names the fault."""
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
    """The core's pictures as an IMAGE, ``(B, H, W, 3)`` in ``[0, 1]``, where outputs belong."""
    import comfy.model_management as management

    images01 = to_images01(images.detach().float()).movedim(1, -1).contiguous()  # BCHW -> BHWC
    return images01.to(management.intermediate_device())


def mask_to_core(mask: Tensor, height: int, width: int) -> Tensor:
    """A MASK of any node as the core wants it, for pictures of one size.

    Args:
        mask: Shape ``(B, H, W)``, or ``(H, W)`` as some nodes give it, values in ``[0, 1]``.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.

    Returns:
        Shape ``(B, 1, H, W)``, float32, values in ``[0, 1]``; a new tensor.

    Raises:
        ShapeError: If it is no such batch, is empty, or has another size than the pictures.
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
    """The core's masks ``(B, 1, H, W)`` as a MASK, ``(B, H, W)``, where outputs belong."""
    import comfy.model_management as management

    return masks.detach().float().squeeze(1).to(management.intermediate_device())


def decode(gan: Gan, latent: Latent) -> Tensor:
    """The pictures of stored latents, shape ``(B, 3, H, W)`` in ``[-1, 1]``, without a graph.

    A few at a time, and Cancel is looked at in between; they are gathered on the CPU.
    """
    import comfy.model_management as management

    def draw(z: Tensor, y: Tensor) -> Tensor:
        management.throw_exception_if_processing_interrupted()
        return gan.decode(z, y, truncation=latent.truncation).cpu()

    there = latent.to(gan.device)
    with torch.no_grad(), deterministic():
        return AutoBatchSize(DECODED_AT_ONCE).map(draw, there.z, there.y)


def pictures_to_image(pictures: Sequence[Image]) -> Tensor:
    """Pictures of PIL, of one size, as an IMAGE."""
    import comfy.model_management as management

    arrays = [np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0 for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).to(management.intermediate_device())


class Progress:
    """A core callback: progress bar, live preview at most twice a second, and Cancel.

    No preview is made where the user wants none, see :func:`previews_are_off`.

    Cancel is looked at on every call, before anything else; ComfyUI's exception for it passes
    through the core, which then frees what it holds.
    """

    def __init__(self) -> None:
        import comfy.utils

        self._bar = comfy.utils.ProgressBar(1)
        self._shown_at = math.inf if previews_are_off() else 0.0
        self._sent_at = 0.0

    def __call__(self, info: StepInfo) -> None:
        import comfy.model_management as management

        management.throw_exception_if_processing_interrupted()
        if info.stage == "review":  # within the steps, whose bar it would throw back
            return
        now = time.monotonic()
        preview = None
        if now - self._shown_at >= _PREVIEW_SECONDS:
            preview = ("JPEG", to_pil(info.preview[:1])[0], _PREVIEW_PIXELS)
            self._shown_at = now
        finished = info.step >= info.total
        if preview is not None or finished or now - self._sent_at >= _PROGRESS_SECONDS:
            self._bar.update_absolute(info.step, info.total, preview)
            self._sent_at = now


def previews_are_off() -> bool:
    """Whether the user said "none" to previews, at the start of ComfyUI or for this prompt.

    "none" is also ComfyUI's default, which is meant for previews that cost time: ours are images
    that were made anyway, and are sent unless somebody asked for none.
    """
    from comfy.cli_args import LatentPreviewMethod, args

    if args.preview_method != LatentPreviewMethod.NoPreviews:
        return False
    return any(word.startswith("--preview-m") for word in sys.argv) or _prompt_says_none()


def _prompt_says_none() -> bool:
    """Whether the prompt that runs came with the frontend's wish for no previews."""
    from comfy_execution.utils import get_executing_context

    context, server = get_executing_context(), _server()
    if context is None or server is None:
        return False
    for _, prompt_id, _, extra, *_ in list(server.prompt_queue.currently_running.values()):
        if prompt_id == context.prompt_id:
            return bool(extra.get("preview_method") == "none")
    return False


def _server() -> PromptServer | None:
    """The server that runs this, if one does; then its module is there."""
    module = sys.modules.get("server")
    return getattr(getattr(module, "PromptServer", None), "instance", None)


def show_text(message: str) -> None:
    """Show a line below the node that is running, where the frontend can; nothing elsewhere."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    if context is None:
        return
    server = _server()
    if server is not None:
        server.send_progress_text(message, context.node_id)
