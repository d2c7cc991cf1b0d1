"""GAN, CLIP and LPIPS in memory: cached, placed by ComfyUI, and usable for gradients.

Only this module does the following:

* A weak cache lets loader nodes of the same file share one module. It is freed when ComfyUI drops
  the last output that holds it.
* ComfyUI's model manager places all models of a node in one request, so that none evicts another.
* Freed memory is returned to the system.
* Inference tensors are repaired. ComfyUI runs nodes under ``torch.inference_mode()``; weights that
  are moved or cast in it take part in no gradient.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import nn

from ..fusedream_core.errors import ConfigError
from ..fusedream_core.models.clip.fuse import activation_floats
from ._boundary import autograd_scope
from ._types import chosen

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

logger = logging.getLogger(__name__)

AUTO_PRECISION = "auto"
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

ModelT = TypeVar("ModelT", bound=nn.Module)

# Activation floats per pixel of one image, with and without gradients. Measured, rounded up, and
# only used to request free memory from ComfyUI.
_FLOATS_PER_PIXEL = {
    ("gan", True): 5000,
    ("gan", False): 600,
    ("clip", False): 120,  # with gradients: from the model, or that of a usual one
    ("lpips", True): 350,  # VGG16's; the others take less
    ("lpips", False): 130,
}
_FLOAT_BYTES = 4
_MEMORY_SHARE = 0.7  # of the device, for activations; weights and other programs need the rest
_USUAL_RESOLUTION, _USUAL_CLIP_SIDE = 512, 224  # for models without these attributes


class FuseDreamModel(nn.Module):
    """Wrapper for ComfyUI's patcher, which sets ``device`` on its module; ours derive it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Managed(Generic[ModelT]):
    """The value of a model socket: one module and its entry in ComfyUI's model manager."""

    def __init__(self, model: ModelT, name: str) -> None:
        import comfy.model_management as management
        from comfy.model_patcher import ModelPatcher

        self.model = model.eval().requires_grad_(False)
        self.name = name
        self.patcher: ModelPatcher = ModelPatcher(
            FuseDreamModel(self.model),
            load_device=management.get_torch_device(),
            offload_device=management.unet_offload_device(),
        )

    def __del__(self) -> None:
        """Free the weights and return their memory to the system."""
        self.__dict__.clear()  # frees the weights now
        _return_memory()

    @property
    def is_alive(self) -> bool:
        """Whether it still holds its model; another thread may get it during deletion."""
        return "patcher" in self.__dict__

    def get_ram_usage(self) -> int:
        """Return the bytes of the weights, for ComfyUI's cache under memory pressure."""
        return int(self.patcher.model_size())

    def __repr__(self) -> str:
        return f"<{type(self.model).__name__} {self.name!r}>"

    def __str__(self) -> str:
        return self.name


def _return_memory() -> None:
    """Return free memory, of which glibc keeps much, to the system."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


_cache: weakref.WeakValueDictionary[Hashable, Managed[Any]] = weakref.WeakValueDictionary()
_cache_lock = threading.Lock()


def load_managed(key: Hashable, name: str, build: Callable[[], ModelT]) -> Managed[ModelT]:
    """Return the handle of a key: the one in use, or a new one around ``build()``.

    Args:
        key: Kind, files and options, see :func:`._folders.file_identity`; equal keys share.
        name: Name of the model in messages.
        build: Reads the model from disk. It is called outside inference mode.
    """
    with _cache_lock:
        handle = _cache.get(key)
        if handle is None or not handle.is_alive:
            with autograd_scope():
                handle = Managed(build(), name)
            _cache[key] = handle
            logger.debug("FuseDream read %s", name)
        return handle


def use_models(*handles: Managed[Any], activation_bytes: int = 0) -> tuple[Any, ...]:
    """Move models to the compute device in one request; return them ready for gradients.

    Call it inside :func:`._boundary.autograd_scope` at the start of a node, since another node may
    have offloaded a model.

    Args:
        handles: Values of GAN, CLIP and LPIPS sockets.
        activation_bytes: Memory needed in addition to the weights.
    """
    import comfy.model_management as management

    if torch.is_inference_mode_enabled():
        raise RuntimeError("use_models() must be called inside autograd_scope()")
    for handle in handles:
        if not isinstance(handle, Managed):
            raise ConfigError(
                f"Expected the output of a FuseDream loader node, got {type(handle).__name__}; "
                "connect Load GAN, Load CLIP or Load LPIPS (FuseDream) here."
            )
    patchers = [handle.patcher for handle in handles]
    _check_memory(handles, activation_bytes)
    management.load_models_gpu(patchers, memory_required=activation_bytes, force_full_load=True)
    for handle in handles:
        settle(handle.patcher.model, handle.patcher.load_device)
    return tuple(handle.model for handle in handles)


def _check_memory(handles: tuple[Managed[Any], ...], activation_bytes: int) -> None:
    """Raise if the weights exceed the device's memory; warn if the activations may.

    Raises:
        ConfigError: If the weights alone are larger than the device's memory.
    """
    import comfy.model_management as management

    device = management.get_torch_device()
    total = management.get_total_memory(device)
    weights = sum(handle.get_ram_usage() for handle in handles)
    names = ", ".join(handle.name for handle in handles)
    if weights > total:
        raise ConfigError(
            f"The models {names} take {weights / 1e9:.1f} GB, but {device} has {total / 1e9:.1f} "
            "GB; choose smaller ones, or a half precision in their loaders."
        )
    if weights + activation_bytes > total:
        logger.warning(
            "FuseDream: %s and their activations may take %.1f GB, and %s has %.1f GB; if memory "
            "runs out, smaller batches are used.",
            names,
            (weights + activation_bytes) / 1e9,
            device,
            total / 1e9,
        )


def settle(module: nn.Module, device: torch.device) -> None:
    """Move all tensors to ``device`` and replace inference tensors, in place.

    With ``--novram`` ComfyUI ignores ``force_full_load``, and it moves weights in inference mode.
    Either would cause an error or a slowdown later.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if not all(_is_on(tensor, device) for tensor in tensors):
        module.to(device)
    copies: dict[int, torch.Tensor] = {}  # by id, so that tied weights stay tied
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None and parameter.is_inference():
                if id(parameter) not in copies:
                    copies[id(parameter)] = nn.Parameter(
                        parameter.detach().clone(), requires_grad=False
                    )
                owner._parameters[name] = copies[id(parameter)]
        for name, buffer in owner._buffers.items():
            if buffer is not None and buffer.is_inference():
                owner._buffers[name] = copies.setdefault(id(buffer), buffer.clone())


def activation_bytes(
    gan: Managed[Any] | None,
    clip: Managed[Any] | None = None,
    lpips: Managed[Any] | None = None,
    *,
    images: int,
    augments: int = 1,
    gradients: bool = False,
) -> int:
    """Return a rough estimate of the activation memory in bytes.

    Args:
        gan: The generator, if images are generated.
        clip: The encoder, if images are scored.
        lpips: The distance, if images are compared.
        images: Images per batch; the distance compares them in pairs.
        augments: Augmented views of each image in one CLIP batch.
        gradients: Whether activations are kept for a backward pass.
    """
    floats = 0
    side = getattr(gan.model, "resolution", _USUAL_RESOLUTION) if gan else _USUAL_RESOLUTION
    if gan is not None:
        floats += images * side**2 * _FLOATS_PER_PIXEL["gan", gradients]
    if clip is not None:
        height, width = getattr(clip.model, "image_size", (_USUAL_CLIP_SIDE, _USUAL_CLIP_SIDE))
        if gradients:
            each = getattr(
                clip.model, "activation_floats", activation_floats(None, (height, width))
            )
        else:
            each = height * width * _FLOATS_PER_PIXEL["clip", False]
        floats += images * augments * each
    if lpips is not None:
        floats += images * side**2 * _FLOATS_PER_PIXEL["lpips", gradients]
    return floats * _FLOAT_BYTES


def fit_batch(most: int, bytes_each: int) -> int:
    """Return the batch size: ``most``, or as many as the device has memory for.

    It depends on the total memory, not on the free memory, so that results are reproducible.

    Args:
        most: Size of the whole batch; the result is at least 1.
        bytes_each: Memory of one item, see :func:`activation_bytes`.
    """
    import comfy.model_management as management

    memory = management.get_total_memory(management.get_torch_device())
    return max(1, min(most, int(_MEMORY_SHARE * memory) // bytes_each))


def plan_batches(
    gan: Managed[Any],
    clip: Managed[Any],
    lpips: Managed[Any] | None = None,
    *,
    most: int,
    images: int = 1,
    augments: int,
    graphs: int = 1,
) -> tuple[int, int, int]:
    """Return rows per batch, views per CLIP batch, and their memory in bytes, with gradients.

    Rows and views may each take half of the memory.

    Args:
        gan: The generator.
        clip: The encoder.
        lpips: The distance, if images are compared.
        most: Rows that are optimised together at most.
        images: Images of one row.
        augments: Augmented views of each scored image; one image of a row is scored.
        graphs: Scores that share one backward pass.
    """
    each = activation_bytes(gan, None, lpips, images=images, gradients=True)
    each_view = graphs * activation_bytes(None, clip, images=1, gradients=True)
    rows = fit_batch(most, 2 * each)
    views = fit_batch(rows * augments, 2 * each_view)
    return rows, views, rows * each + views * each_view


def compute_dtype(precision: str) -> torch.dtype:
    """Return the dtype of a ``precision`` widget; "auto" is half precision on CUDA."""
    import comfy.model_management as management

    if precision != AUTO_PRECISION:
        return chosen(PRECISIONS, precision, "precision")
    device = management.get_torch_device()
    if device.type == "cuda" and management.should_use_bf16(device):
        return torch.bfloat16
    if device.type == "cuda" and management.should_use_fp16(device):
        return torch.float16
    return torch.float32


def on_cpu() -> bool:
    """Return whether ComfyUI computes on the CPU."""
    import comfy.model_management as management

    return bool(management.is_device_cpu(management.get_torch_device()))


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    """Return whether a tensor is on a device; ``cuda`` and ``cuda:0`` are the same."""
    here = tensor.device
    if here.type != device.type:
        return False
    return here.index is None or device.index is None or here.index == device.index
