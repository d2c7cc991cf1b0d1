from __future__ import annotations

import pytest

from fusedream_core import ConfigError
from fusedream_core.config.require import require, require_choice, require_count, require_range


def test_what_holds_passes() -> None:
    require(True, "name", 3, "anything")
    require_count("steps", 2, 2)
    require_range("share", 0.0, 0.0, 1.0)
    require_choice("mode", "a", ("a", "b"))


@pytest.mark.parametrize("value", [1, True, 2.0, "2", None])
def test_counts_are_whole_numbers(value: object) -> None:
    with pytest.raises(ConfigError, match="must be a whole number of at least 2") as caught:
        require_count("steps", value, 2)
    assert caught.value.setting == "steps"


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_ranges_have_no_nan(value: float) -> None:
    with pytest.raises(ConfigError, match="a number from 0 to 1"):
        require_range("share", value, 0.0, 1.0)


def test_choices_are_named() -> None:
    with pytest.raises(ConfigError, match="mode is 'c', but it must be one of a, b"):
        require_choice("mode", "c", ("a", "b"))
