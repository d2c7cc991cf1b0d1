from __future__ import annotations

import torch

from fusedream_core import Basis, Latent


class TestRecord:
    def test_to_moves_nested_tensors(self) -> None:
        latent = Latent(torch.zeros(2, 3), torch.zeros(2, 4), 0.5)
        basis = Basis(latent, torch.zeros(2), torch.zeros(2, dtype=torch.int64), "gan", "a dog")
        moved = basis.to("meta")
        assert moved.latent.z.device.type == "meta"
        assert moved.scores.device.type == "meta"
        assert (moved.latent.truncation, moved.gan_id, moved.prompt) == (0.5, "gan", "a dog")
        assert basis.latent.z.device.type == "cpu"

    def test_size(self) -> None:
        latent = Latent(torch.zeros(2, 3), torch.zeros(2, 4), 0.5)
        basis = Basis(latent, torch.zeros(2), torch.zeros(2, dtype=torch.int64), "gan", "a dog")
        assert [tensor.shape for tensor in basis.tensors()] == [(2, 3), (2, 4), (2,), (2,)]
        assert basis.nbytes == 4 * (6 + 8 + 2) + 8 * 2
