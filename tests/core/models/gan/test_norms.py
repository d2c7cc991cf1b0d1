from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core import make_generator
from fusedream_core.models.gan.norms import Norm, Norms

EPS = 1e-4


def make(sizes: list[int], dim: int | None) -> list[Norm]:
    draw = make_generator(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return [
        Norm(
            means=normal(5, size),
            variances=normal(5, size).square() + 0.1,
            scale=normal(size) if dim is None else normal(size, dim),
            offset=normal(size) if dim is None else normal(size, dim),
            missing=normal(size),
        )
        for size in sizes
    ]


@pytest.mark.parametrize("dim", [None, 3])
@pytest.mark.parametrize(
    ("truncation", "low", "share"), [(0.25, 1, 0.0), (0.4, 1, 0.6), (1.0, 3, 1.0)]
)
def test_against_batch_norm(dim: int | None, truncation: float, low: int, share: float) -> None:
    norms, condition = make([4, 6], dim), torch.linspace(-1, 1, 6).view(2, 3).double()
    for norm, (scale, shift) in zip(norms, Norms(norms, EPS)(condition, truncation), strict=True):
        x = torch.randn(2, len(norm.missing), 3, 3, generator=make_generator(2)).double()
        mean = (1 - share) * norm.means[low] + share * norm.means[low + 1]
        variance = (1 - share) * norm.variances[low] + share * norm.variances[low + 1]
        for row in range(2):
            weight, offset = norm.scale, norm.offset
            if dim is not None:
                weight, offset = 1 + weight @ condition[row], offset @ condition[row]
            own = x[row : row + 1]
            expected = F.batch_norm(
                own + norm.missing[:, None, None], mean, variance, weight, offset, eps=EPS
            )
            found = own * scale[row, :, None, None] + shift[row, :, None, None]
            torch.testing.assert_close(found, expected)
