"""The base of all nodes: inputs that are checked by the schema, and outputs that ComfyUI can size.

ComfyUI checks what is typed into a widget, but not what comes by a link: a number of the wrong size
or kind, None, or a word that is no option arrives in ``execute`` as it is. The schema says what an
input takes, so it is the one source for both.
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

# What the core calls a setting that widgets have under other names.
_WIDGETS = {"num": ("num_candidates", "num_frames")}


class Node(io.ComfyNode):
    """A node that ComfyUI can hand anything to.

    Before ``execute`` its inputs are checked, and records of the core are taken out of their
    :class:`Kept`; after it they are put back.

    Attributes:
        whole: Inputs that a node of lists (``is_input_list``) takes as whole lists. For the others
            it runs once for each of their values, as nodes do that know nothing of lists, and all
            of its outputs are lists (``is_output_list``).
    """

    whole: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Put the checks around the class's ``execute``; ComfyUI's clones have them already."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("execute")
        if own is not None and not hasattr(own.__func__, "__wrapped__"):
            cls.execute = classmethod(_around(own.__func__))  # type: ignore[method-assign]


class Kept(tuple[Tensor, ...]):
    """A record of the core as it travels: the record, and its tensors for ComfyUI's memory cache.

    Some versions of that cache ask a value for its size; others count the tensors in lists and
    tuples alone.
    """

    record: Record

    def __new__(cls, record: Record) -> Kept:
        """Keep a record; nothing is copied."""
        own = super().__new__(cls, record.tensors())
        own.record = record
        return own

    def get_ram_usage(self) -> int:
        """Bytes of the record, as ComfyUI's cache asks for it."""
        return self.record.nbytes

    def __repr__(self) -> str:
        return f"<{type(self.record).__name__}>"


def checked(node: type[Node], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A node's inputs, each as its schema describes it.

    Args:
        node: The class.
        inputs: What came, by name; records may be in their :class:`Kept`.

    Returns:
        The same with plain Python numbers, and records without their wrapping.

    Raises:
        ConfigError: If a number, a text or an option is none that the input takes.
    """
    entries = {entry.id: entry for entry in _schema(node).inputs}
    own = inspect.signature(node.validate_inputs).parameters  # what a node checks by itself

    def check(name: str, value: object) -> object:
        return _checked(entries.get(name), value, name in own)

    return {
        name: [check(name, one) for one in value] if name in node.whole else check(name, value)
        for name, value in inputs.items()
    }


def _around(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """An ``execute`` with the checks before it and the wrapping behind it."""

    def run(cls: type[Node], inputs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
        try:
            output = execute(cls, **checked(cls, inputs))
        except ConfigError as error:
            raise _in_words_of(cls, error) from error
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
    """The inputs of each run: of shorter lists the last value goes on, as in ComfyUI itself."""
    num = max(len(values) for name, values in inputs.items() if name not in whole)
    for index in range(num):
        yield {
            name: values if name in whole else values[min(index, len(values) - 1)]
            for name, values in inputs.items()
        }


def _schema(node: type[Node]) -> io.Schema:
    """What ComfyUI keeps of a node, or, before it has asked, what the node says."""
    return node.SCHEMA or node.define_schema()


def _in_words_of(node: type[Node], error: ConfigError) -> ConfigError:
    """An error whose setting has the name of the node's widget."""
    ids = {entry.id for entry in _schema(node).inputs}
    for widget in _WIDGETS.get(error.setting or "", ()):
        if widget in ids:
            return ConfigError(widget + str(error).removeprefix(str(error.setting)), setting=widget)
    return error


def _checked(entry: io.Input | None, value: Any, own: bool) -> Any:  # noqa: ANN401 - of any socket
    """One input."""
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
    """A number of the kind and in the range of its widget; 4.0 is a whole number, True is none."""
    whole = isinstance(entry, io.Int.Input)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and entry.min <= value <= entry.max and not (whole and value % 1):
        return int(value) if whole else float(value)
    kind, form = ("a whole number", "d") if whole else ("a number", "g")
    raise _refusal(entry, value, f"{kind} from {entry.min:{form}} to {entry.max:{form}}")


def _refusal(entry: io.Input, value: object, accepted: str) -> ConfigError:
    """The sentence about an input, which shows no more of a long value than its begin and end."""
    shown = reprlib.repr(value)
    return ConfigError(f"{entry.id} is {shown}, but it must be {accepted}.", setting=entry.id)
