from __future__ import annotations

import torch
import torch.nn.functional as F

from fusedream_core import make_generator
from fusedream_core.models.gan.attention import Attention


def test_against_the_definition() -> None:
    """Query by query, with the bias that was deferred added back."""
    draw = make_generator(0)
    theta, phi = (torch.randn(2, 16, generator=draw, dtype=torch.float64) for _ in range(2))
    g = torch.randn(8, 16, generator=draw, dtype=torch.float64)
    out = torch.randn(16, 8, generator=draw, dtype=torch.float64)
    missing = torch.randn(16, generator=draw, dtype=torch.float64)
    x = torch.randn(2, 16, 4, 6, generator=draw, dtype=torch.float64)
    found = Attention(theta, phi, g, out, missing=missing)(x)
    whole = x + missing[:, None, None]
    query = torch.einsum("oc,bchw->bohw", theta, whole)
    key = F.max_pool2d(torch.einsum("oc,bchw->bohw", phi, whole), 2)
    value = F.max_pool2d(torch.einsum("oc,bchw->bohw", g, whole), 2)
    for b in range(2):
        for row in range(4):
            for column in range(6):
                weights = torch.einsum("o,ohw->hw", query[b, :, row, column], key[b])
                weights = weights.flatten().softmax(dim=0).view(2, 3)
                mixed = torch.einsum("hw,ohw->o", weights, value[b])
                expected = x[b, :, row, column] + out @ mixed
                torch.testing.assert_close(found[b, :, row, column], expected)
