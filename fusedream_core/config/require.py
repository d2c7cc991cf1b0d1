"""Checks of settings, with one form of message."""

from __future__ import annotations

from ..errors import ConfigError


def require(condition: bool, name: str, value: object, accepted: str) -> None:
    """Raise ``ConfigError`` unless the condition holds."""
    if not condition:
        raise ConfigError(f"{name} is {value!r}, but it must be {accepted}.", setting=name)


def require_count(name: str, value: object, least: int) -> None:
    """Check that a value is a whole number of at least ``least``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(
        whole and value >= least,  # type: ignore[operator]
        name,
        value,
        f"a whole number of at least {least}",
    )


def require_range(name: str, value: float, low: float, high: float) -> None:
    """Check that a number is in ``[low, high]``."""
    require(low <= value <= high, name, value, f"a number from {low:g} to {high:g}")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check that a value is one of the choices."""
    require(value in choices, name, value, "one of " + ", ".join(choices))
