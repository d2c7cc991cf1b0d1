from __future__ import annotations

import warnings
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from torch import Tensor

from fusedream_core.errors import CheckpointError, ShapeError
from fusedream_core.models.demo import demo_lpips_path, load_demo_lpips
from fusedream_core.models.lpips import Lpips, load_lpips, make_lpips

TRUNKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (2 * torch.rand(2, 3, 40, 48, generator=generator) - 1 for _ in range(2))
    return first, second


@pytest.fixture(scope="module")
def demo() -> Lpips:
    return load_demo_lpips()


class TestLoadLpips:
    @pytest.mark.parametrize("net", TRUNKS)
    def test_trunk_of_torchvision(
        self, net: str, tmp_path: Path, pair: tuple[Tensor, Tensor]
    ) -> None:
        """The package's own sums, over the same trunk and the heads that the package ships."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            trunk = getattr(torchvision.models, TRUNKS[net])(weights=None)
        torch.save(trunk.state_dict(), tmp_path / "trunk.pth")
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = lpips.LPIPS(net=net, pnet_rand=True, spatial=True, verbose=False)
        values = [v for k, v in trunk.state_dict().items() if k.startswith("features.")]
        names = oracle.net.state_dict()
        oracle.net.load_state_dict(dict(zip(names, values[: len(names)], strict=True)))
        found = load_lpips(tmp_path / "trunk.pth").distance_map(*pair)
        assert found.shape == (2, 1, 40, 48)
        torch.testing.assert_close(found, oracle(*pair))

    @pytest.mark.parametrize("net", TRUNKS)
    def test_whole_lpips(self, net: str, tmp_path: Path, pair: tuple[Tensor, Tensor]) -> None:
        whole = make_lpips(net)
        whole.spatial = True
        torch.save(whole.state_dict(), tmp_path / "whole.pt")
        found = load_lpips(tmp_path / "whole.pt").distance_map(*pair)
        torch.testing.assert_close(found, whole(*pair), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("net", TRUNKS)
    def test_gradient_of_the_package(self, net: str, pair: tuple[Tensor, Tensor]) -> None:
        whole = make_lpips(net).eval()
        whole.spatial = True
        leaf, other = pair[0].requires_grad_(), pair[1]
        weights = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(1))
        found, expected = (
            torch.autograd.grad((way(leaf, other) * weights).sum(), leaf)[0]
            for way in (Lpips(whole).distance_map, whole)
        )
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max())
        )

    @pytest.mark.parametrize("kind", [torch.complex64, torch.int8, torch.bool])
    def test_weights_of_another_kind_of_number(self, kind: torch.dtype, tmp_path: Path) -> None:
        state = make_lpips("squeeze").state_dict()
        state["net.slice1.0.bias"] = state["net.slice1.0.bias"].to(kind)
        torch.save(state, tmp_path / "whole.pt")
        with pytest.raises(CheckpointError, match=r"tensor net\.slice1\.0\.bias is of"):
            load_lpips(tmp_path / "whole.pt")

    def test_demo_loads_with_the_package_alone(self, pair: tuple[Tensor, Tensor]) -> None:
        from safetensors.torch import load_file

        state = load_file(demo_lpips_path())
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = lpips.LPIPS(net="squeeze", pretrained=False, pnet_rand=True, verbose=False)
        missing, unexpected = plain.load_state_dict(state, strict=False)
        assert not unexpected
        assert all(name.startswith("lins.") for name in missing)  # the heads' second names
        expected = load_demo_lpips().distance_map(*pair).mean(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(plain(*pair), expected, rtol=0.05, atol=0)

    def test_no_warning_and_no_global_random_numbers(self) -> None:
        before = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_demo_lpips()
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize("whole", [True, False], ids=["LPIPS", "trunk"])
    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", ""])
    def test_as_it_was_trained_on_several_devices(
        self, tmp_path: Path, prefix: str, whole: bool, pair: tuple[Tensor, Tensor]
    ) -> None:
        network = make_lpips("squeeze")
        state = network.state_dict()
        if not whole:
            state = {
                ".".join(["features", *name.split(".")[2:]]): value
                for name, value in state.items()
                if name.startswith("net.")
            }
        torch.save(state, tmp_path / "plain.pt")
        wrapped = {"model": {prefix + name: value for name, value in state.items()}, "epoch": 1}
        torch.save(wrapped, tmp_path / "wrapped.pt")
        plain, other = (load_lpips(tmp_path / f"{name}.pt") for name in ("plain", "wrapped"))
        assert torch.equal(plain.distance_map(*pair), other.distance_map(*pair))

    def test_a_weight_that_is_not_finite(self, tmp_path: Path) -> None:
        state = make_lpips("squeeze").state_dict()
        state["net.slice1.0.weight"][0, 0, 0, 0] = torch.inf
        torch.save(state, tmp_path / "bad.pt")
        with pytest.raises(CheckpointError, match=r"bad\.pt .* net\.slice1\.0\.weight holds"):
            load_lpips(tmp_path / "bad.pt")

    def test_other_weights_are_refused(self, tmp_path: Path) -> None:
        torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match="none of the nets"):
            load_lpips(tmp_path / "other.pt")
        state = make_lpips("squeeze").state_dict()
        del state["net.slice2.3.squeeze.bias"]
        torch.save(state, tmp_path / "cut.pt")
        with pytest.raises(CheckpointError, match=r"1 missing \(net.slice2.3.squeeze.bias\)"):
            load_lpips(tmp_path / "cut.pt")


class TestDistanceMap:
    def test_properties(self, demo: Lpips, pair: tuple[Tensor, Tensor]) -> None:
        first, second = pair
        distance = demo.distance_map(first, second)
        assert (distance >= 0).all()
        assert (demo.distance_map(first, first) == 0).all()
        torch.testing.assert_close(demo.distance_map(second, first), distance)
        alone = torch.cat([demo.distance_map(first[i : i + 1], second[i : i + 1]) for i in (0, 1)])
        torch.testing.assert_close(alone, distance)

    def test_gradient_reaches_both(self, demo: Lpips, pair: tuple[Tensor, Tensor]) -> None:
        first, second = (images.clone().requires_grad_() for images in pair)
        demo.distance_map(first, second).sum().backward()
        assert first.grad is not None
        assert second.grad is not None
        assert first.grad.abs().sum() > 0
        assert second.grad.abs().sum() > 0
        assert not any(parameter.requires_grad for parameter in demo.parameters())

    def test_the_smallest_images_have_one_gradient(self, demo: Lpips) -> None:
        """Their last maps are one pixel; a batch of one then took a path without an order."""
        generator = torch.Generator().manual_seed(0)
        first, second = (2 * torch.rand(1, 3, 32, 32, generator=generator) - 1 for _ in range(2))
        first.requires_grad_()
        gradients = [
            torch.autograd.grad(demo.distance_map(first, second).sum(), first)[0] for _ in range(20)
        ]
        assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)

    def test_exception(self, demo: Lpips, pair: tuple[Tensor, Tensor]) -> None:
        first, second = pair
        with pytest.raises(ShapeError, match="only images of one shape"):
            demo.distance_map(first, second[:1])
        with pytest.raises(ShapeError, match="at least 32 x 32"):
            demo.distance_map(first[..., :16], second[..., :16])
