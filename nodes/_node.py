"""Base class of all nodes: checks inputs by the schema, and wraps outputs for ComfyUI's cache.

ComfyUI checks values typed into a widget, but not linked values. A linked number out of range,
None, or an unknown option reaches ``execute`` unchanged, so it is checked here by the schema.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import numbers
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from comfy_api.latest import io
from torch import Tensor

from ..fusedream_core.errors import ConfigError
from ..fusedream_core.types import Record

# Settings of the core, and their widgets with other names.
_WIDGETS = {"num": ("num_candidates", "num_frames")}


class Node(io.ComfyNode):
    """Base class that checks inputs before ``execute``.

    Records of the core are unwrapped from :class:`Kept` before it and wrapped after it.

    Attributes:
        whole: Inputs that a node with ``is_input_list`` takes as whole lists. It runs once for each
            value of the others, like a node without lists. All its outputs are lists.
    """

    whole: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Wrap the class's ``execute`` with the checks; ComfyUI's clones are wrapped already."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("execute")
        if own is not None and not hasattr(own.__func__, "__wrapped__"):
            cls.execute = classmethod(_around(own.__func__))  # type: ignore[method-assign]


class Kept(tuple[Tensor, ...]):
    """A record of the core on a link, as a tuple of its tensors.

    Some versions of ComfyUI's memory cache call ``get_ram_usage``. Others only count tensors in
    lists and tuples.
    """

    record: Record

    def __new__(cls, record: Record) -> Kept:
        """Wrap a record without a copy."""
        own = super().__new__(cls, record.tensors())
        own.record = record
        return own

    def get_ram_usage(self) -> int:
        """Return the bytes of the record, for ComfyUI's cache."""
        return self.record.nbytes

    def __repr__(self) -> str:
        return f"<{type(self.record).__name__}>"


def checked(node: type[Node], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's inputs, checked by its schema.

    Args:
        node: The class.
        inputs: Values by name; records may be wrapped in :class:`Kept`.

    Returns:
        The same with plain Python numbers and unwrapped records.

    Raises:
        ConfigError: If the input does not accept a number, a text or an option.
    """
    entries = {entry.id: entry for entry in _schema(node).inputs}
    own = inspect.signature(node.validate_inputs).parameters  # checked by the node itself

    def check(name: str, value: object) -> object:
        return _checked(entries.get(name), value, name in own)

    return {
        name: [check(name, one) for one in value] if name in node.whole else check(name, value)
        for name, value in inputs.items()
    }


def _around(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Return an ``execute`` with checked inputs and wrapped outputs."""

    def run(cls: type[Node], inputs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
        try:
            output = execute(cls, **checked(cls, inputs))
        except ConfigError as error:
            raise _with_widget_name(cls, error) from error
        return tuple(Kept(v) if isinstance(v, Record) else v for v in output.args), output.ui

    @functools.wraps(execute)
    def around(cls: type[Node], **inputs: Any) -> io.NodeOutput:  # noqa: ANN401 - of any socket
        if not _schema(cls).is_input_list:
            values, shown = run(cls, inputs)
            return io.NodeOutput(*values, ui=shown)
        runs = [run(cls, row)[0] for row in _rows(inputs, cls.whole)]
        return io.NodeOutput(*(list(itertools.chain(*lists)) for lists in zip(*runs, strict=True)))

    return around


def _rows(inputs: Mapping[str, list[Any]], whole: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Yield the inputs of each run; shorter lists repeat their last value, as in ComfyUI."""
    num = max(len(values) for name, values in inputs.items() if name not in whole)
    for index in range(num):
        yield {
            name: values if name in whole else values[min(index, len(values) - 1)]
            for name, values in inputs.items()
        }


def _schema(node: type[Node]) -> io.Schema:
    """Return the schema that ComfyUI cached, or a new one."""
    return node.SCHEMA or node.define_schema()


def _with_widget_name(node: type[Node], error: ConfigError) -> ConfigError:
    """Return an error that names the node's widget instead of the core's setting."""
    ids = {entry.id for entry in _schema(node).inputs}
    for widget in _WIDGETS.get(error.setting or "", ()):
        if widget in ids:
            return ConfigError(widget + str(error).removeprefix(str(error.setting)), setting=widget)
    return error


def _checked(entry: io.Input | None, value: Any, own: bool) -> Any:  # noqa: ANN401 - of any socket
    """Return one input, checked and converted."""
    if isinstance(entry, (io.Int.Input, io.Float.Input)):
        return _number(entry, value)
    if isinstance(entry, io.Combo.Input):
        if not isinstance(value, str) or not (own or value in entry.options):
            accepted = "a text" if own else f"one of {', '.join(entry.options)}"
            raise _refusal(entry, value, accepted)
        return value
    if isinstance(entry, io.String.Input):
        if not isinstance(value, (str, int, float)):
            raise _refusal(entry, value, "a text")
        return str(value)
    return value.record if isinstance(value, Kept) else value


def _number(entry: io.Int.Input | io.Float.Input, value: object) -> int | float:
    """Return a number in the range of its widget; 4.0 is a whole number, True is no number."""
    whole = isinstance(entry, io.Int.Input)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and entry.min <= value <= entry.max and not (whole and value % 1):
        return int(value) if whole else float(value)
    kind, form = ("a whole number", "d") if whole else ("a number", "g")
    raise _refusal(entry, value, f"{kind} from {entry.min:{form}} to {entry.max:{form}}")


def _refusal(entry: io.Input, value: object, accepted: str) -> ConfigError:
    """Return the error for an input; long values are abbreviated."""
    shown = reprlib.repr(value)
    return ConfigError(f"{entry.id} is {shown}, but it must be {accepted}.", setting=entry.id)
