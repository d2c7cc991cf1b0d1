"""Reading and loading of state dicts; every error is one sentence with the file name."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .archive import is_torchscript, read_torchscript
from .files import INDEX_SUFFIX, read_index, reading, weight_files
from .unwrap import unwrap

_MIN_SIZE_BYTES = 1 << 20  # limit of a tensor in a small file
_MAX_FLOAT32 = torch.finfo(torch.float32).max
_INTEGER_SUFFIXES = ("num_batches_tracked", "position_ids")  # integers among weights
_NOT_WEIGHTS = {  # first bytes of files that are not weights -> description
    b"version https://git-lfs": "a pointer of Git LFS instead of the file itself",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU, from any supported file format.

    These are safetensors, PyTorch files of tensors, TorchScript archives, and indexes of sharded
    weights. The state dict may be nested, see ``unwrap``.

    Raises:
        CheckpointError: If the file is missing, truncated, unsafe or not a state dict, or if a
            value is not finite.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state dict, and the metadata of its file, such as "meta" or "epoch".

    Raises:
        CheckpointError: As ``read_state_dict``.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no weight file {path}; check the name, or copy it there.")
    sharded = path.name.endswith(INDEX_SUFFIX)
    content = _read_shards(path) if sharded else _read_content(path)
    state = _checked(unwrap(content, path), path)
    notes = content if isinstance(content, Mapping) else {}
    return state, {key: value for key, value in notes.items() if not isinstance(value, Tensor)}


def _checked(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors detached, if all are dense and finite."""
    size = sum(file.stat().st_size for file in weight_files(path))
    state = {name: tensor.detach() for name, tensor in state.items()}
    for name, tensor in state.items():
        kind = tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)
        if not kind or tensor.numel() * tensor.itemsize > max(size, _MIN_SIZE_BYTES):
            raise CheckpointError(
                f"The file {path} is refused, because its tensor {name} is sparse, quantized or "
                "larger than the file; save a plain state dict."
            )
    check_finite(state, path)
    return state


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: If the file is missing, truncated, or of another kind, or if its values
            are of 8 bits or too large for float32.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise CheckpointError(f"There is no weight file {path}; check the name, or copy it there.")
    with reading(path), safe_open(path, "pt") as stream:
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        metadata = dict(stream.metadata() or {})
    for name, tensor in state.items():
        if tensor.is_floating_point() and (tensor.itemsize == 1 or _overflows(tensor)):
            raise CheckpointError(
                f"The file {path} is refused, because its tensor {name} is of "
                f"{_dtype(tensor)}, or holds numbers too large for float32; save it in float32."
            )
    return state, metadata


def _overflows(tensor: Tensor) -> bool:
    """Return whether a finite value becomes infinite in float32, as only one in float64 can."""
    if tensor.dtype is not torch.float64:
        return False
    return bool((tensor.isfinite() & ~tensor.float().isfinite()).any())


def _dtype(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")


def _read_shards(path: Path) -> dict[str, Tensor]:
    """Read the tensors of all shards of an index."""
    weight_map, state = read_index(path), dict[str, Tensor]()
    for file in weight_files(path)[1:]:
        content = _read_content(file)
        tensors: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
        names = [name for name, own in weight_map.items() if own == file.name]
        missing = [name for name in names if not isinstance(tensors.get(name), Tensor)]
        if missing:
            raise CheckpointError(
                f"The file {file} does not hold {len(missing)} of the tensors that {path.name} "
                f"promises ({', '.join(missing[:3])}); use files of one model."
            )
        state |= {name: tensors[name] for name in names}
    return state


def _read_content(path: Path) -> object:
    """Return the content of a weights file; its format is detected from its first bytes.

    Raises:
        CheckpointError: If the file is damaged, or of another format.
    """
    with reading(path):
        with path.open("rb") as stream:
            head = stream.read(64)
        for start, what in _NOT_WEIGHTS.items():
            if head.lstrip().lower().startswith(start):
                raise CheckpointError(f"The file {path} is {what}; download the weights again.")
        if is_torchscript(path):
            return read_torchscript(path)
        named = path.suffix == ".safetensors" and not head.startswith(b"PK")
        if named or head[8:9] == b"{":  # after the header length
            from safetensors.torch import load_file

            return load_file(path)
        with path.open("rb") as stream:  # a stream, since PyTorch trusts the suffix of a path
            return torch.load(stream, map_location="cpu", weights_only=True)


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights with NaN or infinite values, or too large for float32.

    An attention mask may have minus infinity.

    Args:
        state: State dict.
        path: The file, for the message.

    Raises:
        CheckpointError: If there is such a value; the message has the first tensor's name.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = (float(bound) for bound in _bounds(tensor))
        masks = name.endswith("mask") and low < -_MAX_FLOAT32
        if not (high <= _MAX_FLOAT32 and (low >= -_MAX_FLOAT32 or masks)):  # also false with NaN
            raise CheckpointError(
                f"The file {path} is refused, because its tensor {name} holds numbers that are not "
                "finite (NaN or infinite, or too large for float32), and every result would; "
                "download or convert it again."
            )


def check_floats(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not floating-point numbers, which a cast would convert.

    Counters among the weights may be integers.

    Args:
        state: State dict.
        path: The file, for the message.

    Raises:
        CheckpointError: If there is such a tensor; the message has the first one's name.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() and not name.endswith(_INTEGER_SUFFIXES):
            raise CheckpointError(
                f"The file {path} is refused, because its tensor {name} is of {_dtype(tensor)}, "
                "where floating-point numbers belong; use weights that are neither quantized nor "
                "of another model."
            )


def _bounds(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value, or NaN."""
    small = tensor.itemsize == 1  # PyTorch cannot compare 8-bit floats
    low, high = (tensor.float() if small else tensor).aminmax()
    return low, high


def load_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict strictly.

    Args:
        module: The module; on the meta device, the tensors are assigned without a copy.
        state: State dict.
        path: The file, for the message.

    Raises:
        CheckpointError: If names are missing or unexpected, or shapes differ.
    """
    own = module.state_dict()
    reshaped = {k for k in own.keys() & state.keys() if own[k].shape != state[k].shape}
    faults = name_faults(own.keys(), state.keys(), reshaped)
    if faults:
        raise CheckpointError(
            f"The weights in {path} do not fit their model: {faults}; use a whole file, with its "
            "own config where the model has one."
        )
    on_meta = any(tensor.is_meta for tensor in own.values())
    module.load_state_dict(state, strict=True, assign=on_meta)


def name_faults(wanted: Set[str], given: Set[str], reshaped: Set[str] = frozenset()) -> str:
    """Return a description of missing, unexpected and reshaped names; empty without any."""
    kinds = {"missing": wanted - given, "unexpected": given - wanted, "reshaped": reshaped}
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    )
