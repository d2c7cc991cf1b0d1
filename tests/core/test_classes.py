from __future__ import annotations

import pytest

from fusedream_core import ConfigError
from fusedream_core.classes import resolve_classes

NAMES = ["dog", "cat", "Apple", "crane", "crane"]


class TestResolveClasses:
    def test_value(self) -> None:
        assert resolve_classes(NAMES, ["CAT ", 0, "apple", "cat"]) == [0, 1, 2]

    def test_a_name_of_several_classes_means_all(self) -> None:
        assert resolve_classes(NAMES, ["crane"]) == [3, 4]

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ("aple", "no class 'aple'; it accepts 5 names, .* did you mean Apple"),
            ("zebra", "no class 'zebra'.* the first is 'dog'"),
            (5, "no class 5; it accepts 5 names, or indices from 0 to 4"),
            (-1, "no class -1"),
        ],
    )
    def test_exception(self, wanted: str | int, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            resolve_classes(NAMES, [wanted])
