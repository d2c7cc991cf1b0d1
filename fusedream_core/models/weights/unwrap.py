"""Extraction of state dicts from nested dicts and wrapped modules.

All loaders use this module, so they accept the same wrappers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ...errors import CheckpointError

_MAX_DEPTH = 4  # of nested dicts
_AVERAGED = re.compile(r"(^|_)ema(_|$)", re.IGNORECASE)
_NOT_THE_MODEL = re.compile(
    r"^(d|d_ema|net_?d|.*discriminator.*|.*critic.*|.*optim.*|.*scheduler.*|.*scaler.*)$",
    re.IGNORECASE,
)
_USUAL = ("state_dict", "model_state_dict", "model", "generator", "G", "netG", "params", "net")
# Names that torch.compile, FSDP and activation checkpointing insert.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_PARALLEL = "module."  # of DataParallel, DistributedDataParallel and AveragedModel
_COUNTER = "n_averaged"  # of AveragedModel


def unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file's content, without the names of wrappers.

    A dict with other values than tensors is searched for state dicts, up to a depth of 4.
    Discriminators and optimizers are skipped. Averaged weights ("ema") are preferred, then the
    usual names, "state_dict" before "model". The prefix ``module.`` is removed if all names have
    it, and ``_orig_mod.`` anywhere.

    Args:
        content: Content of the file.
        path: The file, for the message.

    Raises:
        CheckpointError: If there is no state dict, or the choice is ambiguous.
    """
    state = _find(content, path, _MAX_DEPTH)
    if state is None:
        raise CheckpointError(
            f"The file {path} holds no state dict (names with tensors), but {_in_words(content)}; "
            "export one from the model."
        )
    return _unprefixed(state, path)


def part_of(
    state: Mapping[str, Tensor],
    prefixes: Sequence[str],
    is_model: Callable[[Mapping[str, Tensor]], bool],
) -> dict[str, Tensor]:
    """Return the tensors of one model out of a file of several, without its prefix.

    Args:
        state: State dict.
        prefixes: Possible prefixes of the model's names, in order of preference.
        is_model: Predicate of the model's state dict.

    Returns:
        The part under the first matching prefix, or sequence of prefixes; everything without a
        match.
    """
    return _part(state, prefixes, is_model, _MAX_DEPTH) or dict(state)


def _part(
    state: Mapping[str, Tensor],
    prefixes: Sequence[str],
    is_model: Callable[[Mapping[str, Tensor]], bool],
    depth: int,
) -> dict[str, Tensor]:
    """Return the model's part, or an empty dict."""
    for prefix in prefixes if depth else ():
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if is_model(inner):
            return inner
        if inner and (part := _part(inner, prefixes, is_model, depth - 1)):
            return part
    return {}


def _find(content: object, path: Path, depth: int) -> Mapping[str, Tensor] | None:
    """Return the state dict in nested dicts, or None."""
    if not isinstance(content, Mapping) or depth == 0:
        return None
    inner = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Mapping)}
    models = {key: value for key, value in inner.items() if not _NOT_THE_MODEL.match(key)}
    for part in (models, inner):
        found = {key: _find(value, path, depth - 1) for key, value in part.items()}
        states = {key: state for key, state in found.items() if state is not None}
        if states:
            return _choose(states, path)
    # Other values beside tensors are dropped.
    return {
        k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)
    } or None


def _choose(states: Mapping[str, Mapping[str, Tensor]], path: Path) -> Mapping[str, Tensor]:
    """Choose the model among several state dicts."""
    averaged = [key for key in states if _AVERAGED.search(key)]
    usual = [key for key in _USUAL if key in states]
    for keys in (list(states), averaged):
        if len(keys) == 1:
            return states[keys[0]]
    if usual and not averaged:
        return states[usual[0]]
    raise CheckpointError(
        f"The file {path} holds several state dicts ({', '.join(sorted(states)[:5])}); save the "
        "one that is meant in a file of its own."
    )


def _unprefixed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Remove the names of wrappers."""
    names = {
        name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in state
    }
    counted = [name for name in names.values() if name != _COUNTER]
    times = min((_count(name) for name in counted), default=0)
    if times:
        names.pop(_COUNTER, None)
    stripped = {own: name[times * len(_PARALLEL) :] for own, name in names.items()}
    if len(set(stripped.values())) < len(stripped):
        raise CheckpointError(
            f"The file {path} holds tensors of one name with and without a wrapper's prefix; "
            "export the state dict of one model."
        )
    return {name: state[own] for own, name in stripped.items()}


def _count(name: str) -> int:
    """Count the leading repetitions of ``module.`` in a name."""
    times = 0
    while name.startswith(_PARALLEL, times * len(_PARALLEL)):
        times += 1
    return times


def _in_words(content: object) -> str:
    """Describe the content of a file, for a message."""
    if not isinstance(content, Mapping):
        return f"one {type(content).__name__}"
    if not content:
        return "an empty dict"
    kinds = [f"{key} ({type(value).__name__})" for key, value in content.items()]
    return f"a dict of {', '.join(kinds[:3])}{', ...' if len(kinds) > 3 else ''}"
