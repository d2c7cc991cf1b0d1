"""Conversion of settings to plain data for an image's metadata, and back from untrusted data."""

from __future__ import annotations

import dataclasses
import enum
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from .require import require

ConfigT = TypeVar("ConfigT")

# Largest numbers accepted from plain data; larger ones could exhaust memory.
_MAX_NUMBER = 1_000_000
_MAX_NUMBER_OF = {
    "batch_size": 4_096,
    "num_augments": 4_096,
    "rerank_augments": 4_096,
    "eval_augments": 4_096,
    "num_basis": 4_096,
    "seed": 2**64 - 1,
}
# Settings of older versions, and their values that made no difference. Composition and inversion
# had all settings of the optimisation, and did not use these.
_RETIRED: dict[str, tuple[object, ...]] = {
    "patience": (None,),
    "y_mode": ("free",),
    "objective": ("aug_clip",),
    "num_starts": (1, 3),
    "trial_share": (0.2,),
    "first_augments": (0.5, 1.0),
    "z_clamp": (2.0,),
    "ema_decay": (0.95,),
    "seam_width": (0.12,),
    "clip_weight": (0.3,),
    "color_weight": (0.5,),
}
MAX_LENGTH = 10_000  # characters, and items of a list


def to_plain(value: Any) -> Any:  # noqa: ANN401 - settings of any kind
    """Convert settings to dicts, lists, numbers and strings."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    return [to_plain(own) for own in value] if isinstance(value, (list, tuple)) else value


def from_plain(kind: type[ConfigT], plain: object, name: str = "settings") -> ConfigT:
    """Build a dataclass from untrusted plain data; missing fields have their defaults.

    Args:
        kind: The dataclass.
        plain: Output of ``to_plain``, possibly modified.
        name: Name of the object in messages.

    Raises:
        ConfigError: If a field is unknown or missing, or a value has the wrong type or is out of
            range.
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"{name} is {plain!r:.60}, but it must be an object with settings.")
    hints = get_type_hints(kind)
    plain = {key: own for key, own in plain.items() if key in hints or not _is_retired(key, own)}
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
    """Check that ``from_plain`` accepts the result of ``to_plain``.

    Raises:
        ConfigError: If a number, a text or a list is above a limit.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        _read(hints[field.name], to_plain(getattr(settings, field.name)), field.name)


def _is_retired(name: object, value: object) -> bool:
    """Whether a setting is one of older versions, of a value that changed nothing."""
    return isinstance(name, str) and name in _RETIRED and value in _RETIRED[name]


def _read(hint: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - a type, a value of it
    """Convert a value to the type of its field."""
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
    """Convert a value to the first type of a union that accepts it."""
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
    """Convert a list to a tuple, of one type and any length, or of the given types."""
    short = isinstance(value, list) and len(value) <= MAX_LENGTH
    require(short, name, _short(value), f"a list of at most {MAX_LENGTH}")
    if hints[-1] is Ellipsis:
        return tuple(_read(hints[0], own, name) for own in value)
    require(len(value) == len(hints), name, _short(value), f"a list of {len(hints)}")
    return tuple(_read(hint, own, name) for hint, own in zip(hints, value, strict=True))


def _read_basic(hint: Any, value: Any, name: str) -> Any:  # noqa: ANN401
    """Convert a number, a string, a boolean or None."""
    most = _MAX_NUMBER_OF.get(name, _MAX_NUMBER)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: number and isinstance(value, int) and abs(value) <= most,
        float: number and abs(value) <= most,
        str: isinstance(value, str) and len(value) <= MAX_LENGTH,
        type(None): value is None,
    }
    text = f"a text of at most {MAX_LENGTH:,} characters"
    accepted = {bool: "true or false", str: text, type(None): "nothing"}
    require(fits[hint], name, _short(value), accepted.get(hint, f"a number up to {most}"))
    return float(value) if hint is float else value


def _short(value: object) -> object:
    """Return a value as a message shows it."""
    if isinstance(value, (str, list)) and len(value) > MAX_LENGTH:
        return f"a {'text' if isinstance(value, str) else 'list'} of length {len(value):,}"
    number = isinstance(value, (int, float)) and not abs(value) > 1e20
    return value if number else f"{value!r:.60}"
