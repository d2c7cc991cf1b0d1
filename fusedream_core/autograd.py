"""Gradients within ``inference_mode`` and ``no_grad``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .types import Record

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def with_gradients(function: FunctionT) -> FunctionT:
    """Decorate a function so that gradients work within ``inference_mode`` and ``no_grad``.

    Inference tensors cannot be part of a graph, so those among the arguments are replaced by
    copies; in modules this happens in place.
    """

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> object:
        with torch.inference_mode(False), torch.enable_grad():
            own = [without_inference(value) for value in args]
            named = {name: without_inference(value) for name, value in kwargs.items()}
            return function(*own, **named)

    return cast("FunctionT", wrapped)


def without_inference(value: Any) -> Any:  # noqa: ANN401 - an argument of any kind
    """Return a value without inference tensors; the same object if it has none."""
    if isinstance(value, Tensor):
        return _copy(value) if value.is_inference() else value
    if isinstance(value, Record):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
        copied = {name: without_inference(own) for name, own in fields.items()}
        changed = any(copied[name] is not own for name, own in fields.items())
        return dataclasses.replace(value, **copied) if changed else value  # type: ignore[type-var]
    if type(value) in (list, tuple):
        return type(value)([without_inference(own) for own in value])
    if isinstance(value, nn.Module):
        copies: dict[int, Tensor] = {}  # shared tensors stay shared
        for part in value.modules():
            for own in (vars(part), part._parameters, part._buffers):
                _restore(own, copies)
    elif hasattr(value, "__dict__") and not callable(value):  # a model that is not a module
        _restore(vars(value), {})
    return value


def _restore(names: dict[str, Any], copies: dict[int, Tensor]) -> None:
    """Replace the inference tensors of an object."""
    for name, tensor in names.items():
        if isinstance(tensor, Tensor) and tensor.is_inference():
            names[name] = copies.setdefault(id(tensor), _copy(tensor))


def _copy(tensor: Tensor) -> Tensor:
    """Return a normal copy of an inference tensor; a parameter stays one."""
    copy = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copy, requires_grad=tensor.requires_grad)
    return copy
