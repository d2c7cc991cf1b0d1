from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusedream_core import make_generator
from fusedream_core.models.gan.biggan_deep import DeepNetwork

UP, SAME = True, False
_TO_16 = [(SAME, 16, 16), (UP, 16, 16), (SAME, 16, 16), (UP, 16, 8), (SAME, 8, 8)]
_LAST = [(SAME, 4, 4), (UP, 4, 2), (SAME, 2, 2), (UP, 2, 1)]
LAYOUTS = {  # of the released models: doubling, channels in and out in units of the width
    128: [*_TO_16, (UP, 8, 4), *_LAST],
    256: [*_TO_16, (UP, 8, 8), (SAME, 8, 8), (UP, 8, 4), *_LAST],
    512: [*_TO_16, (UP, 8, 8), (SAME, 8, 8), (UP, 8, 4), *_LAST, (SAME, 1, 1), (UP, 1, 1)],
}
MakePackage = Callable[..., nn.Module]


@pytest.fixture
def latents(rng: torch.Generator) -> Tensor:
    """Two latents of z and y, six numbers each."""
    return torch.randn(2, 12, generator=rng, dtype=torch.float64)


def fuse(network: nn.Module) -> DeepNetwork:
    """Fuse a copy of a network."""
    return DeepNetwork(copy.deepcopy(network))  # type: ignore[arg-type]


def with_statistics_at(network: nn.Module, truncation: float) -> nn.Module:
    """A copy whose statistics are those of tau everywhere, interpolated the right way round."""
    network = copy.deepcopy(network)
    for name, table in network.named_buffers():
        if name.endswith(("running_means", "running_vars")):
            position = truncation * (len(table) - 1)
            low = min(int(position), len(table) - 2)
            share = position - low
            table.copy_((table[low] * (1 - share) + table[low + 1] * share).expand_as(table))
    return network


class TestSameNumbersAsThePackage:
    @pytest.mark.parametrize("resolution", [128, 256, 512])
    def test_layouts_of_the_released_models(
        self, package_gan: MakePackage, resolution: int
    ) -> None:
        layers = [list(layer) for layer in LAYOUTS[resolution]]
        settings = {"layers": layers, "attention_layer_position": 8, "output_dim": resolution}
        network = package_gan(0, **settings)
        latent = torch.randn(1, 12, generator=make_generator(1))
        with torch.no_grad():
            theirs = network.generator(latent, 1.0)
            ours = fuse(network)(latent, 1.0)
        assert ours.shape == (1, 3, resolution, resolution)
        assert theirs.std() > 0.05
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("truncation", [0.01, 0.2, 0.43, 0.5, 0.58, 0.6, 0.999, 1.0])
    def test_statistics_between_those_stored(
        self, package_gan: MakePackage, latents: Tensor, truncation: float
    ) -> None:
        network = package_gan(0).double()
        theirs = with_statistics_at(network, truncation).generator(latents, 0.5)
        ours = fuse(network)(latents, truncation)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

    def test_the_package_alone_mixes_them_wrongly(
        self, package_gan: MakePackage, latents: Tensor
    ) -> None:
        network = package_gan(0).double()
        right = with_statistics_at(network, 0.25).generator(latents, 0.5)
        theirs = network.generator(latents, 0.25)
        assert (theirs - right).abs().max() > 1e-3

    def test_gradients(self, package_gan: MakePackage, latents: Tensor) -> None:
        network = package_gan(0).double()
        pull = torch.randn(2, 3, 16, 16, generator=make_generator(2), dtype=torch.float64)
        grads = []
        for decode in (fuse(network), network.generator):
            leaf = latents.clone().requires_grad_()
            (decode(leaf, 1.0) * pull).sum().backward()
            grads.append(leaf.grad)
        assert grads[0].abs().min() > 0
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)


class TestDeepNetwork:
    def test_a_batch_is_its_singles(self, package_gan: MakePackage, latents: Tensor) -> None:
        fused = fuse(package_gan(0).double())
        singles = torch.cat([fused(latents[i : i + 1], 0.6) for i in range(2)])
        torch.testing.assert_close(fused(latents, 0.6), singles, rtol=0, atol=1e-12)

    def test_shares_no_memory_with_the_package(
        self, package_gan: MakePackage, latents: Tensor
    ) -> None:
        network = package_gan(0).double()
        fused = fuse(network)
        before = fused(latents, 0.6)
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.zero_()
        assert torch.equal(fused(latents, 0.6), before)

    def test_takes_no_gradient_itself(self, package_gan: MakePackage, latents: Tensor) -> None:
        fused = fuse(package_gan(0).double())
        assert not any(parameter.requires_grad for parameter in fused.parameters())
        assert not fused(latents, 0.6).requires_grad


class TestNorms:
    def test_no_eps_of_zero(
        self, package_gan: MakePackage, latents: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """torch 2.10 refuses one."""
        seen: list[float] = []
        batch_norm = F.batch_norm

        def spy(*args: Tensor, eps: float) -> Tensor:
            seen.append(eps)
            return batch_norm(*args, eps=eps)

        monkeypatch.setattr(F, "batch_norm", spy)
        fuse(package_gan(0).double())(latents, 0.6)
        assert min(seen) > 0
