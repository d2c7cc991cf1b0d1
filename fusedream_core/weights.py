"""Reading weight files safely: no code in them is run, and every fault becomes one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import CheckpointError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_BLOCK = 1 << 20


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on a bad weight file into a ``CheckpointError``."""
    from safetensors import SafetensorError

    try:
        yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"The file {path} is refused, because it is damaged or a pickle that holds more than "
            "tensors and could run code; use a .safetensors file, or a plain PyTorch state dict."
        ) from error
    except (OSError, EOFError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise CheckpointError(
            f"The file {path} cannot be read as model weights, it may be truncated or of another "
            f"kind ({type(error).__name__}: {reason}); download or copy it again."
        ) from error


def find_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that the folder holds.

    Raises:
        CheckpointError: If the folder is missing or holds none of them.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no folder {folder}; give the folder that holds {' or '.join(names)}."
        )
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"The folder {folder} holds no {' or '.join(names)}; put the file there.")


def find_weights(folder: Path, names: Sequence[str]) -> Path:
    """The file of weights in a folder: one of these names, or else the only one there is.

    Raises:
        CheckpointError: If the folder is missing, or has none or several.
    """
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        others = [file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES]
        if len(others) == 1:
            return others[0]
    return find_file(folder, names)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The file {path} is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"The file {path} holds no JSON object, but a model's config is one.")
    return content


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU, from safetensors or from a PyTorch file of tensors only.

    Raises:
        CheckpointError: If the file is missing, truncated, a pickle of something else, or not a
            state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no weight file {path}; check the name, or copy it there.")
    with reading(path):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # beside notes on the training
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"The file {path} holds no state dict (names with tensors); export one from the model."
        )
    return state


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, whoever else is writing it; missing folders are made.

    Raises:
        OSError: If the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each writer, and no longer than a name may be; the last to finish wins.
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name[:20], suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(part).chmod(0o666 & ~_umask())  # as any other file; mkstemp's is for one user only
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The mask of new files, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


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


def fingerprint(*paths: Path) -> str:
    """A short hash of the content of files: the same weights, the same name, wherever they lie."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:12]
