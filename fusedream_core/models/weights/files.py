"""Model files: lookup, hashes, and JSON."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, FuseDreamError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
INDEX_SUFFIX = ".index.json"  # appended to the name of an unsharded file
_BLOCK = 1 << 20
_MAX_JSON_BYTES = 16 << 20  # bytes
# Training files with the same suffixes as weights.
_BESIDE = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert a library's errors on a bad weight file to ``CheckpointError``."""
    try:
        yield
    except (FuseDreamError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"The file {path} is refused, because it is damaged or a pickle that holds more than "
            "tensors and could run code; use a .safetensors file, or a plain PyTorch state dict."
        ) from error
    except Exception as error:  # a file with any content can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise CheckpointError(
            f"The file {path} cannot be read as model weights, it may be truncated or of another "
            f"kind ({type(error).__name__}: {reason}); download or copy it again."
        ) from error


def find_file(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of these files that is in the folder.

    Raises:
        CheckpointError: If the folder is missing or has none of them.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no folder {folder}; give the folder that holds {' or '.join(names)}."
        )
    for name in names:
        if (folder / name).is_file():
            return folder / name
    for name in names:
        if (folder / name).is_dir():
            raise CheckpointError(f"{folder / name} is a folder, but a file is named so; move it.")
    raise CheckpointError(f"The folder {folder} holds no {' or '.join(names)}; put the file there.")


def find_weights(folder: Path, names: Sequence[str]) -> Path:
    """Return the weights file of a folder: one of these names, or the only one.

    Sharded weights count as one file; their index is returned.

    Raises:
        CheckpointError: If the folder is missing, or has none or several.
    """
    if not folder.is_dir():
        return find_file(folder, names)
    for name in (name for own in names for name in (own, own + INDEX_SUFFIX)):
        if (folder / name).is_file():
            return folder / name
    indexes = sorted(file for file in folder.iterdir() if _is_index(file))
    files = sorted(file for file in folder.iterdir() if _is_weights(file))
    for found in (indexes, files):
        if len(found) == 1:
            return found[0]
    if not files:
        return find_file(folder, names)
    raise CheckpointError(
        f"The folder {folder} holds no {' or '.join(names)}, but several other files "
        f"({', '.join(file.name for file in files[:3])}{', ...' if len(files) > 3 else ''}); give "
        "one of them that name, or a folder of its own."
    )


def _is_index(file: Path) -> bool:
    """Return whether a file is an index of sharded weights."""
    return Path(file.name.removesuffix(INDEX_SUFFIX)).suffix in WEIGHT_SUFFIXES and (
        file.name.endswith(INDEX_SUFFIX)
    )


def _is_weights(file: Path) -> bool:
    """Return whether a file may be weights."""
    return file.suffix in WEIGHT_SUFFIXES and not file.name.startswith(_BESIDE)


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return all files of weights: the file, or an index and its shards.

    Raises:
        CheckpointError: If the index is damaged, or a shard is missing.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return (path,)
    return (path, *(path.parent / name for name in sorted(set(read_index(path).values()))))


def read_index(path: Path) -> dict[str, str]:
    """Read the file name of each tensor from an index; all are in its folder.

    Raises:
        CheckpointError: If the index is damaged, or a shard is missing.
    """
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(
            f"The index {path} has no weight_map of names to files; copy it again."
        )
    for name in names.values():
        plain = isinstance(name, str) and not {*name} & {*"/\\:\0"} and _is_weights(Path(name))
        if not plain:
            raise CheckpointError(
                f"The index {path} is refused, because it names {str(name)[:80]!r}, but weights "
                "must be in files beside it, named without a folder."
            )
    missing = sorted(name for name in {*names.values()} if not (path.parent / name).is_file())
    if missing:
        raise CheckpointError(
            f"The index {path} names {len(missing)} files that are not beside it "
            f"({', '.join(missing[:3])}); copy them there."
        )
    return names


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file is not a JSON object.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"it has more than {_MAX_JSON_BYTES >> 20} MB")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"The file {path} is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"The file {path} holds no JSON object, but a model's config is one.")
    return content


def fingerprint(*paths: Path) -> str:
    """Return a short hash of the content of files, independent of their paths."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:12]
