"""The checks of settings, each with the one kind of sentence that all of them use."""

from __future__ import annotations

from ..errors import ConfigError


def require(condition: bool, name: str, value: object, accepted: str) -> None:
    """Raise the one kind of sentence that every setting's check uses."""
    if not condition:
        raise ConfigError(f"{name} is {value!r}, but it must be {accepted}.", setting=name)


def require_count(name: str, value: object, least: int) -> None:
    """Check a whole number that may not be below ``least``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(
        whole and value >= least,  # type: ignore[operator]
        name,
        value,
        f"a whole number of at least {least}",
    )


def require_range(name: str, value: float, low: float, high: float) -> None:
    """Check a number in the closed range from ``low`` to ``high``."""
    require(low <= value <= high, name, value, f"a number from {low:g} to {high:g}")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check a word against the words that are known."""
    require(value in choices, name, value, "one of " + ", ".join(choices))
