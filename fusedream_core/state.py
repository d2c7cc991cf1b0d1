"""Where a run stands, as plain data: dicts, lists, numbers, words, None, and tensors.

What holds state gives it as such a tree (``state_dict``) and goes on from one. In a file a tree is
its tensors, named by their paths, and the rest as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError

State = dict[str, Any]
_TENSOR = "$tensor"  # the key that stands for a tensor in the JSON


def copy_state(tree: Any) -> Any:  # noqa: ANN401 - of any kind, and so is the result
    """The same tree with tensors of its own, which later steps do not change."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, Mapping):
        return {name: copy_state(own) for name, own in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [copy_state(own) for own in tree]
    return tree


def flatten(tree: Any, path: str = "") -> tuple[dict[str, Tensor], Any]:  # noqa: ANN401
    """The tensors of a tree by their paths, and the tree with those paths in their places."""
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
    """The tree that was flattened.

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
    """Bring generators to where they stood, as ``get_state`` gave it."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state.cpu())


def like(saved: Any, wanted: Tensor) -> Tensor:  # noqa: ANN401 - from a file
    """A saved tensor on the device of one that it is to replace, but for the number of rows.

    Raises:
        CheckpointError: If it is of another kind or shape.
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
    """Equal tensors as one; None if there are none."""
    return torch.stack(tensors) if tensors else None


@contextmanager
def restoring() -> Iterator[None]:
    """Turn whatever a damaged state raises into a ``CheckpointError``."""
    try:
        yield
    except CheckpointError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The saved run is damaged, or of another version ({type(error).__name__}: {error}); "
            "start anew."
        ) from error
