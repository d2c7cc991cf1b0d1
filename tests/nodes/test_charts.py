"""Labels are data: none is read as something else, none is a row of boxes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., Any]
DOG = "\u72d7"
NUMBER = 3


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def lines(pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The labels of each sheet that is drawn."""
    charts = pack.module("nodes.charts")
    drawn: list[list[str]] = []
    sheet = charts.contact_sheet

    def spy(batches: Any, labels: list[str], **more: Any) -> Any:  # noqa: ANN401
        drawn.append(labels)
        return sheet(batches, labels, **more)

    monkeypatch.setattr(charts, "contact_sheet", spy)
    return drawn


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            ("1. a red apple\nsecond\nthird", ["1. a red apple", "second", "third"]),
            ("first\n1. a red apple\n2.5x zoom", ["first", "1. a red apple", "2.5x zoom"]),
            ("2.5x zoom\n5.0x zoom", ["2.5x zoom", "5.0x zoom"]),
            ("2024.05.01\n\nlater", ["2024.05.01", "later"]),
            ("AugCLIP for: x\n\n1. not a score", ["AugCLIP for: x", "1. not a score"]),
            ("a list\n\n1. 0.1234 dog", ["a list", "1. 0.1234 dog"]),
            ("", []),
        ],
    )
    def test_lines_stay_whole(
        self, run: Run, lines: list[list[str]], labels: str, expected: list[str]
    ) -> None:
        run("FuseDreamContactSheet", images=noise(3, 16, 16, 3), labels=labels, tile=32)
        assert lines == [expected]

    @pytest.mark.parametrize("prompt", ["a dog", "a dog\n1. a red apple\n\n2. 0.5000 boats"])
    def test_reports_of_saved_workflows(
        self, run: Run, clip: object, gan: object, lines: list[list[str]], prompt: str
    ) -> None:
        """They are linked as they are, heading and all, whatever the prompt looks like."""
        target = run("FuseDreamEncodePrompt", clip=clip, text=prompt)[0]
        images = noise(NUMBER, 16, 16, 3)
        ranking = run(
            "FuseDreamAugCLIPScore", clip=clip, target=target, images=images, num_augments=2
        )
        basis, _, search = run(
            "FuseDreamSeedSearch",
            gan=gan,
            clip=clip,
            target=target,
            num_candidates=12,
            num_basis=NUMBER,
        )
        assert basis is not None
        for report in (ranking[0], search):
            run("FuseDreamContactSheet", images=images, labels=report, tile=32)
        assert lines[0] == ranking[0].splitlines()[-NUMBER:] == ranking[4].splitlines()
        assert lines[1] == search.splitlines()[-NUMBER:]
        assert [line[:3] for line in lines[1]] == ["1. ", "2. ", "3. "]

    def test_a_list_of_texts(self, run: Run, lines: list[list[str]]) -> None:
        """One for each picture of a list, as data set loaders give them."""
        images = [noise(1, 16, 16, 3), noise(1, 24, 16, 3), noise(1, 16, 32, 3)]
        captions = ["1. a dog\nin the snow", "", "2.5x"]
        (sheet,) = run("FuseDreamContactSheet", images=images, labels=captions, tile=32)
        assert lines == [["1. a dog in the snow", "", "2.5x"]]
        assert sheet.shape[0] == 1

    def test_a_list_of_sheets(self, run: Run) -> None:
        """A list at another input makes a sheet for each value of it, as ever."""
        (sheets,) = run("FuseDreamContactSheet", images=noise(2, 16, 16, 3), tile=[32, 64])
        assert [sheet.shape[1] for sheet in sheets] == [40, 72]


@pytest.fixture
def fonts(pack: SimpleNamespace) -> Iterator[ModuleType]:
    """The module, with an empty cache."""
    module = pack.module("fusedream_core.pipeline.label_fonts")
    module._font_for.cache_clear()
    yield module
    module._font_for.cache_clear()


@pytest.fixture
def square_font(tmp_path: Path) -> Path:
    """A font of one character: a full square for the Chinese word for a dog."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "dog"])
    builder.setupCharacterMap({ord(DOG): "dog"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "dog": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "dog": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "Square.ttf"
    builder.save(path)
    return path


class TestFonts:
    def test_no_font(
        self,
        fonts: ModuleType,
        pack: SimpleNamespace,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        shown: list[str] = []
        monkeypatch.setattr(fonts, "_installed", tuple)
        monkeypatch.setattr(pack.module("nodes.charts"), "show_text", shown.append)
        with caplog.at_level(logging.WARNING):
            run(
                "FuseDreamContactSheet",
                images=noise(2, 16, 16, 3),
                labels=f"{DOG}{DOG} a\n\u03b1 {DOG}",
                tile=32,
            )
        assert shown == [
            f"No installed font has {DOG} \u03b1, so boxes are drawn; install one that has, such "
            "as one of the Noto fonts, and restart ComfyUI."
        ]
        assert shown[0] in caplog.text


class TestTitles:
    def test_a_title_that_matplotlib_cannot_write(
        self,
        run: Run,
        pack: SimpleNamespace,
        fonts: ModuleType,
        square_font: Path,
        monkeypatch: pytest.MonkeyPatch,
        recwarn: pytest.WarningsRecorder,
    ) -> None:
        monkeypatch.setattr(fonts, "_installed", lambda: (square_font,))
        trace = pack.module("nodes._types").Trace((0.1, 0.2), "AugCLIP", f"a {DOG}\nb")
        (image,) = run("FuseDreamPlotTrace", trace=trace, width=320, height=200)
        assert image.shape == (1, 200, 320, 3)
        assert (image[0, :24].mean(dim=-1) < 0.1).sum() >= 14 * 14  # the square
        assert not [w for w in recwarn if "missing from font" in str(w.message)]
        plain = replace(trace, title="a dog")
        charts = pack.module("fusedream_core.pipeline.charts")
        monkeypatch.setattr(charts, "draw_text", lambda *_: pytest.fail("not by matplotlib"))
        assert run("FuseDreamPlotTrace", trace=plain, width=320, height=200)[0].shape == image.shape

    def test_without_matplotlib(
        self, run: Run, pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        trace = pack.module("nodes._types").Trace((0.1, 0.2), "AugCLIP", "a dog")
        missing = pack.module("fusedream_core.errors").MissingDependencyError
        with pytest.raises(missing, match=r'" -m pip install matplotlib$'):
            run("FuseDreamPlotTrace", trace=trace)
