"""Settings as plain data, for a picture's metadata, and back from data that nobody vouches for."""

from __future__ import annotations

import dataclasses
import enum
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from .require import require

ConfigT = TypeVar("ConfigT")

# The largest numbers that are taken from plain data: larger ones could only fill the memory.
_MOST = 1_000_000
_MOST_OF = {
    "batch_size": 4_096,
    "num_augments": 4_096,
    "rerank_augments": 4_096,
    "eval_augments": 4_096,
    "num_basis": 4_096,
    "seed": 2**64 - 1,
}
LONGEST = 10_000  # characters, and items of a list


def to_plain(value: Any) -> Any:  # noqa: ANN401 - settings of any kind
    """Settings as dicts, lists, numbers and words."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    return [to_plain(own) for own in value] if isinstance(value, (list, tuple)) else value


def from_plain(kind: type[ConfigT], plain: object, name: str = "settings") -> ConfigT:
    """Settings from plain data; what is missing has its default.

    Only the fields of the dataclass are taken, each only of its own type, no number above a limit.

    Args:
        kind: The dataclass.
        plain: What ``to_plain`` gave, maybe changed by anyone.
        name: What to call it in messages.

    Raises:
        ConfigError: If a name is unknown, or a value of another type or out of range.
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"{name} is {plain!r:.60}, but it must be an object with settings.")
    hints = get_type_hints(kind)
    unknown = plain.keys() - hints.keys()
    if unknown:
        raise ConfigError(f"{name} has the unknown setting {min(map(str, unknown))!r:.60}.")
    missing = [
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name not in plain
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{name} lacks the setting {missing[0]!r}.")
    return kind(**{key: _read(hints[key], own, key) for key, own in plain.items()})


def check_readable(settings: Any) -> None:  # noqa: ANN401 - settings of any kind
    """Check that ``from_plain`` takes what ``to_plain`` gives of settings, so that none are lost.

    Raises:
        ConfigError: If a number, a text or a list is above a limit.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        _read(hints[field.name], to_plain(getattr(settings, field.name)), field.name)


def _read(hint: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - a type, a value of it
    """A value of a type."""
    if get_origin(hint) in (Union, types.UnionType):
        return _read_one_of(get_args(hint), value, name)
    if get_origin(hint) is tuple:
        return _read_tuple(get_args(hint), value, name)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, name)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        require(value in get_args(hint), name, _short(value), f"one of {get_args(hint)}")
        return value
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        known = [member.value for member in hint]
        require(value in known, name, _short(value), f"one of {', '.join(known)}")
        return hint(value)
    return _read_basic(hint, value, name)


def _read_one_of(hints: tuple[Any, ...], value: Any, name: str) -> Any:  # noqa: ANN401
    """A value of the first type that it fits."""
    if isinstance(value, dict):
        kinds = [hint for hint in hints if dataclasses.is_dataclass(hint)] or [hints[0]]
        fitting = [kind for kind in kinds if value.keys() <= get_type_hints(kind).keys()]
        return _read((fitting or kinds)[0], value, name)
    first, *others = hints
    if not others:
        return _read(first, value, name)
    try:
        return _read(first, value, name)
    except ConfigError:
        return _read_one_of(tuple(others), value, name)


def _read_tuple(hints: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:  # noqa: ANN401
    """A tuple of one type and any length, or of these types."""
    short = isinstance(value, list) and len(value) <= LONGEST
    require(short, name, _short(value), f"a list of at most {LONGEST}")
    if hints[-1] is Ellipsis:
        return tuple(_read(hints[0], own, name) for own in value)
    require(len(value) == len(hints), name, _short(value), f"a list of {len(hints)}")
    return tuple(_read(hint, own, name) for hint, own in zip(hints, value, strict=True))


def _read_basic(hint: Any, value: Any, name: str) -> Any:  # noqa: ANN401
    """A number, a word, yes or no, or nothing."""
    most = _MOST_OF.get(name, _MOST)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: number and isinstance(value, int) and abs(value) <= most,
        float: number and abs(value) <= most,
        str: isinstance(value, str) and len(value) <= LONGEST,
        type(None): value is None,
    }
    text = f"a text of at most {LONGEST:,} characters"
    accepted = {bool: "true or false", str: text, type(None): "nothing"}
    require(fits[hint], name, _short(value), accepted.get(hint, f"a number up to {most}"))
    return float(value) if hint is float else value


def _short(value: object) -> object:
    """What a message shows of a value."""
    if isinstance(value, (str, list)) and len(value) > LONGEST:
        return f"a {'text' if isinstance(value, str) else 'list'} of length {len(value):,}"
    number = isinstance(value, (int, float)) and not abs(value) > 1e20
    return value if number else f"{value!r:.60}"
