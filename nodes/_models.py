"""GAN, CLIP and LPIPS in memory: loaded once, moved by ComfyUI, fit for gradients.

Four things are done here and nowhere else:

* one weak cache, so that two loader nodes of the same file share one module, and the module goes
  when ComfyUI forgets the last output that holds it;
* placement by ComfyUI's model manager, all models of a node in one request so that none evicts
  another;
* giving memory back to the system when a model goes;
* healing. ComfyUI runs nodes under ``torch.inference_mode()``, and weights that anything moved or
  cast in there become inference tensors, through which no gradient can be taken.
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

# Floats kept per pixel of one picture on its way through a network, with and without gradients:
# rough, measured upwards, and only used to tell ComfyUI how much memory to free beforehand.
_FLOATS_PER_PIXEL = {
    ("gan", True): 5000,
    ("gan", False): 600,
    ("clip", False): 120,  # with gradients it tells itself, or is taken for a usual one
    ("lpips", True): 350,  # VGG16's; the others take less
    ("lpips", False): 130,
}
_FLOAT_BYTES = 4
_MEMORY_SHARE = 0.7  # of the device, for what is computed at once; weights and others need the rest
_USUAL_RESOLUTION, _USUAL_CLIP_SIDE = 512, 224  # for models that do not tell


class FuseDreamModel(nn.Module):
    """What ComfyUI's patcher holds; it wants to set ``device`` on its module, ours derive it."""

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
        """Give the weights back to the system, which the C library may keep for later."""
        self.__dict__.clear()  # so that they are gone now
        _give_back_memory()

    @property
    def is_alive(self) -> bool:
        """Whether it still holds its model: another thread may find it while it goes."""
        return "patcher" in self.__dict__

    def get_ram_usage(self) -> int:
        """Bytes of the weights, for ComfyUI's cache under memory pressure."""
        return int(self.patcher.model_size())

    def __repr__(self) -> str:
        return f"<{type(self.model).__name__} {self.name!r}>"

    def __str__(self) -> str:
        return self.name


def _give_back_memory() -> None:
    """Have glibc, which keeps much of it, return what is free to the system."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


_cache: weakref.WeakValueDictionary[Hashable, Managed[Any]] = weakref.WeakValueDictionary()
_cache_lock = threading.Lock()


def load_managed(key: Hashable, name: str, build: Callable[[], ModelT]) -> Managed[ModelT]:
    """The handle for ``key``: the one in use, or a new one around ``build()``.

    Args:
        key: Kind, files and options, see :func:`._folders.file_identity`; equal keys share.
        name: What to call the model in messages.
        build: Reads the model from disk. Runs outside inference mode, or its weights could never
            take part in a gradient.
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
    """Bring models to the compute device, all in one request, and return them ready for gradients.

    Call it inside :func:`._boundary.autograd_scope` at the start of a node: another node may have
    sent a model away since.

    Args:
        handles: Values of GAN, CLIP and LPIPS sockets.
        activation_bytes: Memory that the work itself will need beside the weights.
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
    """Refuse models that the device can never hold, and warn where the work beside them is large.

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
            "FuseDream: %s and the work with them may take %.1f GB, and %s has %.1f GB; if it runs "
            "out, less is done at once.",
            names,
            (weights + activation_bytes) / 1e9,
            device,
            total / 1e9,
        )


def settle(module: nn.Module, device: torch.device) -> None:
    """Finish what the model manager left undone: all on ``device``, no inference tensors.

    ``--novram`` ignores a wish for a full load, and ComfyUI moves weights in its inference mode.
    Both would make an error or a silent slowdown out of a later step.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if not all(_is_on(tensor, device) for tensor in tensors):
        module.to(device)
    healed: dict[int, torch.Tensor] = {}  # tied weights stay tied
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None and parameter.is_inference():
                if id(parameter) not in healed:
                    healed[id(parameter)] = nn.Parameter(
                        parameter.detach().clone(), requires_grad=False
                    )
                owner._parameters[name] = healed[id(parameter)]
        for name, buffer in owner._buffers.items():
            if buffer is not None and buffer.is_inference():
                owner._buffers[name] = healed.setdefault(id(buffer), buffer.clone())


def activation_bytes(
    gan: Managed[Any] | None,
    clip: Managed[Any] | None = None,
    lpips: Managed[Any] | None = None,
    *,
    pictures: int,
    scored: int | None = None,
    augments: int = 1,
    gradients: bool = False,
) -> int:
    """A rough figure of the memory needed beside the weights.

    Args:
        gan: The generator, if pictures are drawn.
        clip: The encoder, if pictures are scored.
        lpips: The distance, if pictures are compared.
        pictures: Pictures in flight at once; the distance takes them two by two.
        scored: Pictures that CLIP sees, where it does not see all of them.
        augments: Augmented copies of each picture that CLIP sees at once.
        gradients: Whether everything is kept for a backward pass.
    """
    floats = 0
    side = getattr(gan.model, "resolution", _USUAL_RESOLUTION) if gan else _USUAL_RESOLUTION
    if gan is not None:
        floats += pictures * side**2 * _FLOATS_PER_PIXEL["gan", gradients]
    if clip is not None:
        seen = pictures if scored is None else scored
        height, width = getattr(clip.model, "image_size", (_USUAL_CLIP_SIDE, _USUAL_CLIP_SIDE))
        if gradients:
            each = getattr(
                clip.model, "activation_floats", activation_floats(None, (height, width))
            )
        else:
            each = height * width * _FLOATS_PER_PIXEL["clip", False]
        floats += seen * augments * each
    if lpips is not None:
        floats += pictures * side**2 * _FLOATS_PER_PIXEL["lpips", gradients]
    return floats * _FLOAT_BYTES


def fit_batch(most: int, bytes_each: int) -> int:
    """How many pieces of work are done at once: all, or as many as the device has memory for.

    By the whole memory, not by what is free just now: the same machine always answers alike.

    Args:
        most: Pieces there are; at least one is done at once.
        bytes_each: What one needs, see :func:`activation_bytes`.
    """
    import comfy.model_management as management

    memory = management.get_total_memory(management.get_torch_device())
    return max(1, min(most, int(_MEMORY_SHARE * memory) // bytes_each))


def fit_clip_batch(clip: Managed[Any], most: int, graphs: int = 1) -> int:
    """How many copies CLIP sees at once with gradients: all, or as many as fit half of the memory.

    Args:
        clip: The encoder.
        most: Copies there are.
        graphs: Scores of as many copies each that wait for one backward pass.
    """
    return fit_batch(most, 2 * graphs * activation_bytes(None, clip, pictures=1, gradients=True))


def compute_dtype(precision: str) -> torch.dtype:
    """The dtype of a ``precision`` widget; "auto" is a half one on CUDA, where that is quicker."""
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
    """Whether models work on the CPU, where several pieces at once are no quicker than in turn."""
    import comfy.model_management as management

    return bool(management.is_device_cpu(management.get_torch_device()))


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    """Whether a tensor is on a device; ``mps`` and ``mps:0``, ``cuda`` and ``cuda:0`` are one."""
    here = tensor.device
    if here.type != device.type:
        return False
    return here.index is None or device.index is None or here.index == device.index
