from __future__ import annotations

from typing import get_args

import pytest
import torch

from fusedream_core import Basis, make_generator
from fusedream_core.config import Mixing, Start
from fusedream_core.optimize import latent as latent_module
from fusedream_core.optimize.latent import OverparameterizedLatent, make_latent, start_weights

STARTS = [start for start in get_args(Start) if start != "best"]


def latent_of(bases: list[Basis], mixing: Mixing, start: Start) -> OverparameterizedLatent:
    return make_latent(
        bases,
        start,
        mixing=mixing,
        device=torch.device("cpu"),
        generators=[make_generator(seed) for seed in range(len(bases))],
    )


class TestStartWeights:
    @pytest.mark.parametrize("start", STARTS)
    def test_softmax_weights_are_a_mean(self, start: Start, rng: torch.Generator) -> None:
        weights = start_weights(start, 4, 6, mixing="softmax", generator=rng)
        assert weights.shape == (4, 6)
        assert (weights > 0).all()
        torch.testing.assert_close(weights.sum(dim=0), torch.ones(6))

    @pytest.mark.parametrize(
        ("start", "expected"),
        [("alone", [1, 0, 0, 0]), ("uniform", [0.25] * 4), ("preserving", [0.5] * 4)],
    )
    def test_scalar(self, start: Start, expected: list[float], rng: torch.Generator) -> None:
        weights = start_weights(start, 4, 1, mixing="scalar", generator=rng)
        assert weights[:, 0].tolist() == expected

    def test_preserving_keeps_the_spread(self, rng: torch.Generator) -> None:
        z = torch.randn(5, 20_000, generator=rng)
        for mixing, dim in (("scalar", 1), ("softmax", 20_000)):
            weights = start_weights("preserving", 5, dim, mixing=mixing, generator=rng)
            assert float((weights * z).sum(dim=0).std()) == pytest.approx(1.0, abs=0.06)
        uniform = start_weights("uniform", 5, 1, mixing="scalar", generator=rng)
        assert float((uniform * z).sum(dim=0).std()) == pytest.approx(5**-0.5, abs=0.02)

    def test_one_member(self, rng: torch.Generator) -> None:
        for start in STARTS:
            for mixing in get_args(Mixing):
                weights = start_weights(start, 1, 1, mixing=mixing, generator=rng)
                assert weights.tolist() == [[1.0]]


class TestOverparameterizedLatent:
    @pytest.mark.parametrize("mixing", get_args(Mixing))
    @pytest.mark.parametrize("start", STARTS)
    def test_latent(self, bases64: list[Basis], mixing: Mixing, start: Start) -> None:
        latent = latent_of(bases64, mixing, start)
        z, y = latent.mixed()
        z_weights, y_weights = latent.weights()
        for run, basis in enumerate(bases64):
            expected_z = sum(z_weights[run, i] * basis.latent.z[i] for i in range(3))
            expected_y = sum(y_weights[run, i] * basis.latent.y[i] for i in range(3))
            torch.testing.assert_close(z[run], torch.as_tensor(expected_z).clamp(-1.2, 1.2))
            torch.testing.assert_close(y[run], torch.as_tensor(expected_y))
        if mixing == "softmax":
            torch.testing.assert_close(z_weights.sum(dim=1), torch.ones_like(z))

    def test_reference_start_is_softmax_of_noise(self, bases64: list[Basis]) -> None:
        latent = latent_of(bases64[:1], "softmax", "random")
        noise = torch.randn(3, 6, generator=make_generator(0))
        torch.testing.assert_close(latent.weights()[0][0], noise.softmax(0).double())

    def test_scalar_weights_are_shared(self, bases64: list[Basis]) -> None:
        latent = latent_of(bases64, "scalar", "uniform")
        assert len(latent.mixes()) == 1
        assert len(latent_of(bases64, "softmax", "uniform").mixes()) == 2

    def test_bound(self, bases64: list[Basis], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(latent_module, "Z_BOUND", 0.5)
        latent = latent_of(bases64, "scalar", "preserving")
        assert latent.z_bound == pytest.approx(0.3)
        assert latent.mixed()[0].abs().max() <= 0.3
        latent.clamp_basis_()
        assert latent.z_basis.abs().max() <= 0.3
        assert bases64[0].latent.z.abs().max() > 0.3  # the basis itself is not changed

    def test_inference_tensors_are_copied(self, bases64: list[Basis]) -> None:
        with torch.inference_mode():
            bases = [basis.to("cpu") for basis in bases64]
            bases = [
                Basis(
                    type(b.latent)(b.latent.z.clone(), b.latent.y.clone(), b.latent.truncation),
                    b.scores,
                    b.class_index,
                    b.gan_id,
                    b.prompt,
                )
                for b in bases
            ]
        assert bases[0].latent.z.is_inference()
        for some in (bases, bases[:1]):
            latent = latent_of(some, "scalar", "uniform")
            latent.z_basis.requires_grad_()
            latent.mixed()[0].sum().backward()
