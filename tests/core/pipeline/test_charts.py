from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from fusedream_core import MissingDependencyError
from fusedream_core.images import to_pil
from fusedream_core.pipeline.charts import contact_sheet, plot_curve


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


class TestContactSheet:
    @pytest.mark.parametrize(
        ("num", "columns", "size"),
        [(1, 0, (40, 40)), (4, 0, (76, 76)), (5, 0, (112, 76)), (3, 2, (76, 76)), (2, 9, (76, 40))],
    )
    def test_rows_and_columns(self, num: int, columns: int, size: tuple[int, int]) -> None:
        assert contact_sheet([images(num, 3, 16, 16)], columns=columns, tile=32).size == size

    def test_tiles_hold_the_images_in_order(self) -> None:
        """Of the tile's size they are copied pixel by pixel, over all batches."""
        batches = [images(2, 3, 32, 32), -images(1, 3, 32, 32)]
        sheet = np.asarray(contact_sheet(batches, columns=2, tile=32))
        expected = [np.asarray(image) for batch in batches for image in to_pil(batch)]
        for (top, left), image in zip([(4, 4), (4, 40), (40, 4)], expected, strict=True):
            assert np.array_equal(sheet[top : top + 32, left : left + 32], image)
        assert (sheet[40:72, 40:72] == 255).all()

    def test_the_aspect_is_kept(self) -> None:
        sheet = np.asarray(contact_sheet([images(1, 3, 8, 16) - 2.0], tile=32))
        rows, columns = np.nonzero((sheet == 0).all(axis=2))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 27, 4, 35)

    def test_a_label_is_below_its_image(self) -> None:
        batch = torch.ones(2, 3, 64, 64)
        plain = np.asarray(contact_sheet([batch], columns=2, tile=64))
        labelled = np.asarray(contact_sheet([batch], ["", "a dog"], columns=2, tile=64))
        assert labelled.shape == (plain.shape[0] + 9, *plain.shape[1:])
        rows, columns = np.nonzero((labelled < 128).all(axis=2))
        assert rows.min() >= 4 + 64
        assert columns.min() >= 4 + 64 + 4


class TestPlotCurve:
    @pytest.mark.parametrize("title", ["a $ dog", "a \u72d7"])
    def test_size(self, title: str) -> None:
        chart = plot_curve((0.1, 0.3, 0.2), title=title, name="AugCLIP", width=320, height=200)
        assert (chart.size, chart.mode) == ((320, 200), "RGB")

    def test_the_curve_is_drawn(self) -> None:
        rising, falling = (
            np.asarray(plot_curve(values, title="", name="", width=320, height=200)).astype(int)
            for values in ((0.0, 1.0), (1.0, 0.0))
        )
        blue = [(chart[..., 2] - chart[..., 0]) > 60 for chart in (rising, falling)]
        tops = [np.nonzero(ink)[1][np.nonzero(ink)[0].argmin()] for ink in blue]
        assert tops[0] > 160 > tops[1]

    def test_without_matplotlib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingDependencyError, match=r'" -m pip install matplotlib$'):
            plot_curve((0.1,), title="", name="", width=320, height=200)
