"""The state of a run as a tree of dicts, lists, numbers, strings, None and tensors.

A file stores the tensors under their paths in the tree, and the rest as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError

State = dict[str, Any]
_TENSOR = "$tensor"  # key of a tensor's placeholder in the JSON


def copy_state(tree: Any) -> Any:  # noqa: ANN401 - of any kind, and so is the result
    """Return a copy of the tree with cloned tensors."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, Mapping):
        return {name: copy_state(own) for name, own in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [copy_state(own) for own in tree]
    return tree


def flatten(tree: Any, path: str = "") -> tuple[dict[str, Tensor], Any]:  # noqa: ANN401
    """Return the tensors of a tree by path, and the tree with paths in place of tensors."""
    if isinstance(tree, Tensor):
        return {path: tree}, {_TENSOR: path}
    if not isinstance(tree, (Mapping, list, tuple)):
        return {}, tree
    named = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    parts = {name: flatten(own, f"{path}.{name}" if path else str(name)) for name, own in named}
    tensors = {place: own for some, _ in parts.values() for place, own in some.items()}
    plain = {name: rest for name, (_, rest) in parts.items()}
    return tensors, plain if isinstance(tree, Mapping) else list(plain.values())


def unflatten(tensors: Mapping[str, Tensor], plain: Any) -> Any:  # noqa: ANN401
    """Return the tree that ``flatten`` took apart.

    Raises:
        CheckpointError: If a tensor is missing.
    """
    if isinstance(plain, list):
        return [unflatten(tensors, own) for own in plain]
    if not isinstance(plain, dict):
        return plain
    if plain.keys() == {_TENSOR}:
        name = plain[_TENSOR]
        if not isinstance(name, str) or name not in tensors:
            raise CheckpointError(f"The saved run lacks the tensor {name!r:.80}.")
        return tensors[name]
    return {name: unflatten(tensors, own) for name, own in plain.items()}


def restore_generators(generators: Any, states: Any) -> None:  # noqa: ANN401
    """Set generators to saved states of ``Generator.get_state``."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state.cpu())


def like(saved: Any, wanted: Tensor) -> Tensor:  # noqa: ANN401 - from a file
    """Return a saved tensor on the device of ``wanted``; only the number of rows may differ.

    Raises:
        CheckpointError: If dtype or row shape differ.
    """
    fits = isinstance(saved, Tensor) and saved.ndim == wanted.ndim > 0
    if not fits or saved.shape[1:] != wanted.shape[1:] or saved.dtype != wanted.dtype:
        shape = tuple(saved.shape) if isinstance(saved, Tensor) else type(saved).__name__
        raise CheckpointError(
            f"The saved run holds {shape} where rows of {tuple(wanted.shape[1:])} belong; it is "
            "damaged, or of other models or settings."
        )
    found: Tensor = saved.to(wanted.device)
    return found


def stacked(tensors: list[Tensor]) -> Tensor | None:
    """Stack tensors of one shape; None for an empty list."""
    return torch.stack(tensors) if tensors else None


@contextmanager
def restoring() -> Iterator[None]:
    """Convert errors of a damaged state to ``CheckpointError``."""
    try:
        yield
    except CheckpointError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The saved run is damaged, or of another version ({type(error).__name__}: {error}); "
            "start anew."
        ) from error
