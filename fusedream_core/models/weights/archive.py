"""TorchScript archives, such as OpenAI's CLIP files, read as tensors without running them.

An archive is a zip file. Its ``data.pkl`` is a pickle of module objects; their tensors are in
``data/0``, ``data/1`` and so on. Code is in ``code/`` and ``constants.pkl``, which are not opened.

References:
    PyTorch, ``torch/csrc/jit/docs/serialization.md``.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Opcodes of PyTorch's writer; others are refused.
_OPCODES = (
    "PROTO GLOBAL STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS "
    "BINPUT LONG_BINPUT BINGET LONG_BINGET BINPERSID REDUCE NEWOBJ BUILD"
)
_MAX_PICKLE_BYTES = 64 << 20  # OpenAI's largest CLIP has less than one million
_MAX_TENSORS = 100_000
_MAX_DEPTH = 32  # of nested modules
_MAX_NAME_LENGTH = 200  # of one attribute


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a zip archive with TorchScript's ``constants.pkl``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive by dotted name, on the CPU; no code is run.

    Non-persistent buffers, such as a causal mask, are included.

    Args:
        path: The archive.

    Raises:
        CheckpointError: If the archive is damaged, or holds anything but modules and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(_named_tensors(_Archive(archive, path.stat().st_size).load()))
    except _RefusedError as error:
        raise CheckpointError(
            f"The file {path} is refused as a TorchScript archive, because {error}; use a copy "
            "from its makers, or a .safetensors file of the same weights."
        ) from error
    except Exception as error:  # a hostile pickle can raise anything
        raise CheckpointError(
            f"The file {path} is a TorchScript archive that is damaged ({type(error).__name__}: "
            f"{error}); download or copy it again."
        ) from error


class _RefusedError(Exception):
    """An archive has refused content."""


class _Unpickler(pickle.Unpickler):
    """An unpickler with an allow-list of names, which returns tensors."""

    def __init__(self, stream: io.BytesIO, archive: _Archive) -> None:
        super().__init__(stream)
        self.archive = archive
        # Local to this archive: a pickle can set attributes of the objects that it names.
        self.module_class = type("Module", (_Module,), {})
        self.known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): archive.tensor,
            ("collections", "OrderedDict"): OrderedDict,
            **{("torch", name): dtype for name, dtype in _DTYPES.items()},
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:  # noqa: ANN401
        """Resolve an allowed name; refuse others."""
        if module_name.split(".")[0] == "__torch__":
            return self.module_class
        if (module_name, global_name) not in self.known:
            raise _RefusedError(
                f"its data.pkl names {module_name}.{global_name}, which is no part of weights"
            )
        return self.known[module_name, global_name]

    def persistent_load(self, pid: Any) -> Tensor:  # noqa: ANN401
        """Return a storage as a flat tensor."""
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _RefusedError("its data.pkl names a storage that is none")
        return self.archive.storage(key, dtype, size)


class _Module:
    """A module of the archive: attributes only."""


class _Held(Tensor):
    """A tensor as long as the pickle is read, which cannot give it another size."""

    def __setstate__(self, _: object) -> None:
        raise _RefusedError("its data.pkl changes a tensor")


class _Archive:
    """An open archive, with its pickle and storages."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive, self.bytes = archive, dict[str, bytearray]()
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise _RefusedError("it has not exactly one data.pkl")
        self.pickle = archive.getinfo(pickles[0])
        root = pickles[0].split("/")[0]
        start = f"{root}/data/"
        entries = [entry for entry in archive.infolist() if entry.filename.startswith(start)]
        self.entries = {entry.filename.removeprefix(start): entry for entry in entries}
        read = [self.pickle, *entries]
        # PyTorch does not compress tensors, so they cannot be larger than the file.
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in read)
        if packed or sum(entry.file_size for entry in read) > size:
            raise _RefusedError("its tensors are compressed, or larger than the file")
        if self.pickle.file_size > _MAX_PICKLE_BYTES:
            raise _RefusedError(f"its data.pkl has more than {_MAX_PICKLE_BYTES >> 20} MB")

    def load(self) -> object:
        """Return the root module."""
        content, usual = self.archive.read(self.pickle), _OPCODES.split()
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content), start=1):
            if opcode.name not in usual:
                raise _RefusedError(f"its data.pkl has the instruction {opcode.name}")
            # The unpickler allocates memory for the largest index.
            if opcode.name == "LONG_BINPUT" and int(argument or 0) > count:
                raise _RefusedError("its data.pkl asks for memory that it does not need")
        return _Unpickler(io.BytesIO(content), self).load()

    def storage(self, key: object, dtype: torch.dtype, size: object) -> Tensor:
        """Return one storage as a tensor ``(size,)``."""
        if not isinstance(key, str) or not key.isdigit() or key not in self.entries:
            raise _RefusedError(f"it has no storage {str(key)[:60]!r}")
        (count,) = _counts([size])
        if key not in self.bytes:
            self.bytes[key] = bytearray(self.archive.read(self.entries[key]))
        if count * dtype.itemsize > len(self.bytes[key]):
            raise _RefusedError(f"its storage {key} is shorter than it says")
        if count == 0:
            return torch.empty(0, dtype=dtype).as_subclass(_Held)
        return torch.frombuffer(self.bytes[key], dtype=dtype, count=count).as_subclass(_Held)

    def tensor(
        self,
        storage: Tensor,
        offset: object,
        size: tuple[object, ...],
        stride: tuple[object, ...],
        *_: object,
    ) -> Tensor:
        """Return a view of a storage, which must be inside it."""
        if not isinstance(storage, Tensor) or storage.ndim != 1 or len(size) != len(stride):
            raise _RefusedError("its data.pkl has a tensor without a storage")
        (start,), shape, steps = _counts([offset]), _counts(size), _counts(stride)
        last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        numbers = 1
        for n in shape:
            numbers *= n
        if numbers and (last >= len(storage) or numbers > len(storage)):
            raise _RefusedError("a tensor reaches beyond its storage")
        return storage.as_strided(shape, steps, start) if numbers else storage.new_empty(shape)


def _counts(values: tuple[object, ...] | list[object]) -> list[int]:
    """Return non-negative integers, or refuse."""
    counts = [value for value in values if type(value) is int and 0 <= value < 1 << 62]
    if len(counts) != len(values) or len(counts) > 16:
        raise _RefusedError("the size of a tensor is none")
    return counts


def _named_tensors(root: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested modules with their unique names."""
    if not isinstance(root, _Module):
        raise _RefusedError("it holds no module")
    names = set[str]()
    modules: list[tuple[tuple[str, ...], _Module]] = [((), root)]
    while modules:
        place, module = modules.pop(0)
        for attribute, value in vars(module).items():
            if not isinstance(value, Tensor | _Module):
                continue
            if not isinstance(attribute, str) or len(attribute) > _MAX_NAME_LENGTH:
                raise _RefusedError("a name in it is none")
            path = (*place, attribute)
            if len(path) > _MAX_DEPTH or len(names) + len(modules) > _MAX_TENSORS:
                raise _RefusedError("its modules are nested without end")
            if isinstance(value, _Module):
                modules.append((path, value))
                continue
            name = ".".join(path)
            if name in names:
                raise _RefusedError(f"it has two tensors {name[:60]}")
            names.add(name)
            yield name, value.as_subclass(Tensor)
