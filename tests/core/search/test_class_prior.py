from __future__ import annotations

import pytest
import torch

from fusedream_core import ConfigError, PromptPart, Target
from fusedream_core.search.class_prior import named_classes, resolve_classes

NAMES = ["dog", "cat", "Apple", "crane", "crane"]


class TestResolveClasses:
    def test_value(self) -> None:
        assert resolve_classes(NAMES, ["CAT ", 0, "apple", "cat"]) == [0, 1, 2]

    def test_a_name_of_several_classes_means_all(self) -> None:
        assert resolve_classes(NAMES, ["crane"]) == [3, 4]

    def test_a_class_of_several_names(self) -> None:
        """Names that are typed come apart at commas, and so no such class could be asked for."""
        names = ["tench, Tinca tinca", "cat"]
        for typed in (["tench", "Tinca tinca"], ["tinca TINCA"], ["tench, Tinca tinca"]):
            assert resolve_classes(names, typed) == [0]

    def test_an_index_that_was_typed(self) -> None:
        """Widgets and the command line give text; a class may be called by a number as well."""
        assert resolve_classes(NAMES, [" 2", "0"]) == [0, 2]
        assert resolve_classes(["0", "7", "1"], ["7", "1", "0"]) == [0, 1, 2]

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ("aple", "no class 'aple'; it accepts 5 names, .* did you mean Apple"),
            ("zebra", "no class 'zebra'.* the first is 'dog'"),
            (5, "no class 5; it accepts 5 names, or indices from 0 to 4"),
            (-1, "no class -1"),
            ("5", "no class '5'; it accepts 5 names, or indices from 0 to 4"),
            ("9" * 5000, "no class '9999"),
        ],
    )
    def test_exception(self, wanted: str | int, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            resolve_classes(NAMES, [wanted])


class TestNamedClasses:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("a blue dog", [0]),
            ("a DOG, and a cat!", [0, 1]),
            ("cranes and dogs", []),  # whole words only
            ("two crane drivers", [3, 4]),
            ("an ice cream", [5]),
            ("cream on ice", []),
            ("a tabby", [6]),
            ("", []),
        ],
    )
    def test_value(self, text: str, found: list[int]) -> None:
        names = [*NAMES, "ice cream", "tabby, tabby cat"]
        parts = (PromptPart("nothing", 1.0), PromptPart(text, 0.5), PromptPart("a rug", -1.0))
        target = Target(torch.zeros(2), parts, "a-clip", text)
        assert named_classes([*names, "rug"], target) == found
