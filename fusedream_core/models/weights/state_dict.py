"""Reading and loading state dicts: every fault becomes one sentence that names the file."""

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

_LEAST_SIZE = 1 << 20  # bytes that a small file may grow to
_MOST = torch.finfo(torch.float32).max
_COUNTS = ("num_batches_tracked", "position_ids")  # whole numbers that weights come with
_NOT_WEIGHTS = {  # how a file begins that was meant to be weights -> what it is
    b"version https://git-lfs": "a pointer of Git LFS, in place of the file that it stands for",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU, from a file of any kind that weights come in.

    These are safetensors, PyTorch files of tensors only, TorchScript archives, and the index of
    weights in several files. The state dict may lie in a wrapper, see ``unwrap``.

    Raises:
        CheckpointError: If the file is missing, truncated, a pickle of something else, or not a
            state dict, or if a number in it is not finite.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state dict, and the notes that lie beside it in its file, such as "meta" or "epoch".

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
    """The tensors without gradients, if all of them are plain and finite."""
    size = sum(file.stat().st_size for file in weight_files(path))
    state = {name: tensor.detach() for name, tensor in state.items()}
    for name, tensor in state.items():
        kind = tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)
        if not kind or tensor.numel() * tensor.itemsize > max(size, _LEAST_SIZE):
            raise CheckpointError(
                f"The file {path} is refused, because its tensor {name} is sparse, quantized or "
                "larger than the file; save a plain state dict."
            )
    check_finite(state, path)
    return state


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file, as they are.

    Raises:
        CheckpointError: If the file is missing, truncated, or of another kind, or if its numbers
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
                f"{_kind(tensor)}, or holds numbers too large for float32; save it in float32."
            )
    return state, metadata


def _overflows(tensor: Tensor) -> bool:
    """Whether a finite number becomes infinite in float32, which only one in float64 can."""
    if tensor.dtype is not torch.float64:
        return False
    return bool((tensor.isfinite() & ~tensor.float().isfinite()).any())


def _kind(tensor: Tensor) -> str:
    """What kind of numbers a tensor holds."""
    return str(tensor.dtype).removeprefix("torch.")


def _read_shards(path: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names."""
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
    """What a file of weights holds; its kind is read from its first bytes, not from its name.

    Raises:
        CheckpointError: If the file is damaged, or of no such kind.
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
        if named or head[8:9] == b"{":  # after the length of the header
            from safetensors.torch import load_file

            return load_file(path)
        with path.open("rb") as stream:  # by its path, PyTorch would go by the name
            return torch.load(stream, map_location="cpu", weights_only=True)


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights of which one number is NaN or infinite in float32, as all results would be.

    A mask of attention may hold minus infinity, which is what masks with it.

    Args:
        state: Names with tensors.
        path: The file that they come from, for the message.

    Raises:
        CheckpointError: If there is such a number; the message names the first tensor.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = (float(bound) for bound in _bounds(tensor))
        masks = name.endswith("mask") and low < -_MOST
        if not (high <= _MOST and (low >= -_MOST or masks)):  # nor where one is NaN
            raise CheckpointError(
                f"The file {path} is refused, because its tensor {name} holds numbers that are not "
                "finite (NaN or infinite, or too large for float32), and every result would; "
                "download or convert it again."
            )


def check_floats(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are no floating-point numbers, which a cast would make of them.

    Counts that come with weights may be whole numbers.

    Args:
        state: Names with tensors.
        path: The file that they come from, for the message.

    Raises:
        CheckpointError: If a tensor is of another kind; the message names the first one.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() and not name.endswith(_COUNTS):
            raise CheckpointError(
                f"The file {path} is refused, because its tensor {name} is of {_kind(tensor)}, "
                "where floating-point numbers belong; use weights that are neither quantized nor "
                "of another model."
            )


def _bounds(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and highest number; NaN where one is."""
    small = tensor.itemsize == 1  # of which PyTorch compares none
    low, high = (tensor.float() if small else tensor).aminmax()
    return low, high


def load_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict that must fit the module exactly.

    Args:
        module: Where to; one on the meta device takes over the tensors themselves.
        state: Names with tensors.
        path: The file they come from, for the message.

    Raises:
        CheckpointError: If names are missing or too many, or shapes differ.
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
    """What is wrong with the names in a state dict, in words; empty if nothing is."""
    kinds = {"missing": wanted - given, "unexpected": given - wanted, "reshaped": reshaped}
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    )
