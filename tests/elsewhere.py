# ruff: noqa: ANN401 - PyTorch's hooks take and give anything
"""A device other than the CPU: in name only, for machines without one; and what a real one needs.

Its tensors say that they are on ``ELSEWHERE`` and hold a tensor of the CPU. Every operation is done
on what they hold, after a check that a real accelerator makes: all tensors are on one device, but
for numbers without dimensions, and for indices. So what mixes devices fails here as it would there,
and what does not must give the same numbers as on the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

# The one name that autograd knows without a device; files are read on "meta", which is another.
ELSEWHERE = torch.device("meta", 0)
_CPU = torch.device("cpu")
_TAKES_CPU_INDICES = ("index", "index_put", "_index_put_impl")
_TAKES_CPU_NUMBERS = ("fill", "masked_fill", *_TAKES_CPU_INDICES)  # beside what is done pixelwise
_MOVES = ("_to_copy", "copy")


class Held(torch.Tensor):
    """A tensor elsewhere."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls: type[Held], inner: torch.Tensor) -> Held:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=ELSEWHERE,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_without_lists(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_without_lists(key), value)

    def tolist(self) -> Any:  # PyTorch's own refuses subclasses
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """While it lasts, tensors can be made on ``ELSEWHERE`` and moved there."""
    with _FromNumbers(), _FromTensors():
        yield


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """While it lasts, convolutions in float32 are no coarser on CUDA than on the CPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class _FromNumbers(TorchFunctionMode):
    """``torch.tensor`` makes its tensors where no dispatch mode sees them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in (torch.tensor, torch.as_tensor) or kwargs.get("device") is None:
            return func(*args, **kwargs)
        device = kwargs.pop("device")
        return func(*args, **kwargs).to(device)


class _FromTensors(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    name = func.overloadpacket.__name__.rstrip("_")
    if name not in _MOVES:
        _check(func, name, args, tensors)
    held = any(isinstance(tensor, Held) for tensor in tensors)
    where = ELSEWHERE if held else _CPU
    if name == "copy":
        where = tensors[0].device
    elif kwargs.get("device") is not None:
        where = torch.device(kwargs["device"])
        kwargs = {**kwargs, "device": _CPU if where == ELSEWHERE else where}
    if where == ELSEWHERE and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func} was given a generator of another device")
    done = func(*_open(args), **_open(kwargs))
    if where != ELSEWHERE:
        return done
    done = tree_map_only(torch.Tensor, Held, done)
    return return_and_correct_aliasing(func, args, kwargs, done) if held else done


def _without_lists(key: Any) -> tuple[Any, ...]:
    """An index; PyTorch would make a tensor of a list on the device itself, out of sight."""
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(torch.tensor(k, dtype=torch.long) if isinstance(k, list) else k for k in keys)


def _open(tree: Any) -> Any:
    """What the tensors of a tree hold."""
    return tree_map_only(Held, lambda tensor: tensor.inner, tree)


def _check(func: Any, name: str, args: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse what an accelerator refuses."""
    if not any(isinstance(tensor, Held) for tensor in tensors):
        return
    here = [tensor for tensor in tensors if not isinstance(tensor, Held)]
    assert not any(tensor.is_meta for tensor in here), f"{func} was given a tensor without data"
    if name in _TAKES_CPU_INDICES and isinstance(tensors[0], Held):
        here = [leaf for leaf in tree_leaves(args[2:]) if any(leaf is one for one in here)]
    if torch.Tag.pointwise in func.tags or name in _TAKES_CPU_NUMBERS:
        changed = func._schema.is_mutable and not isinstance(tensors[0], Held)
        here = [tensor for tensor in here if tensor.dim() > 0 or changed]
    if here:
        raise RuntimeError(f"{func} was given tensors of two devices")
