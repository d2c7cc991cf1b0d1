"""BigGANs that others trained with other settings: read alike, or named for what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import CheckpointError, make_generator
from fusedream_core.models.gan.biggan_original import OriginalNetwork
from fusedream_core.models.gan.conversion import read_original
from fusedream_core.models.gan.layouts import LAYOUTS

from .originals import (
    CHUNK,
    DIM_Y,
    EPS,
    UNITS,
    WRITERS,
    make_raw,
    rename,
    slow_decode,
    with_torch_spectral,
    without_spectral,
)

PATH = Path("models/biggan.pth")
State = dict[str, Tensor]


def same_images(
    state: State, raw: State, resolution: int, eps: float, *, tolerance: float = 1e-6
) -> OriginalNetwork:
    """Decode what is read of ``state``, and compare it with the plain form of ``raw``."""
    network = OriginalNetwork(read_original(state, PATH)).double()
    generator = make_generator(1)
    z = torch.randn(1, (len(UNITS[resolution][0]) + 1) * CHUNK, generator=generator).double()
    y = torch.randn(1, DIM_Y, generator=generator).double()
    theirs = slow_decode(raw, z, y, resolution, eps)
    ours = network(torch.cat((z, y), dim=1), 1.0)
    assert theirs.std() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    return network


class TestAttention:
    @pytest.mark.parametrize("attentions", [(), (0,), (2, 3), (1, 2, 4), (0, 1, 2, 3, 4)])
    @pytest.mark.parametrize("layout", ["ajbrock", "openmmlab"])
    def test_at_any_resolutions(self, layout: str, attentions: tuple[int, ...]) -> None:
        raw = make_raw(128, attentions=attentions, unit=8)
        network = same_images(WRITERS[layout](raw), raw, 128, EPS[layout])
        assert [int(after) for after in network.attentions] == list(attentions)

    @pytest.mark.parametrize("layout", ["ivclab", "ganalyze"])
    @pytest.mark.parametrize("attentions", [(), (0,), (2,)])
    def test_whose_place_its_width_tells(self, layout: str, attentions: tuple[int, ...]) -> None:
        raw = make_raw(128, attentions=attentions)
        tolerance = 1e-2 if layout == "ganalyze" else 1e-6
        same_images(WRITERS[layout](raw), raw, 128, EPS[layout], tolerance=tolerance)

    def test_whose_place_no_width_tells(self) -> None:
        """Two blocks have as many channels, so that it may come after either."""
        raw = make_raw(256, attentions=(1,))
        with pytest.raises(CheckpointError, match=r"unexpected \(attention\."):
            read_original(WRITERS["ganalyze"](raw), PATH)

    def test_that_is_not_whole(self) -> None:
        state = WRITERS["ajbrock"](make_raw(128, attentions=(2, 3)))
        del state["blocks.2.1.o.weight"]
        with pytest.raises(CheckpointError, match=r"1 missing \(blocks\.2\.1\.o\.weight\)"):
            read_original(state, PATH)

    def test_in_half_precision(self) -> None:
        raw = make_raw(128, attentions=(1, 3))
        network = OriginalNetwork(read_original(WRITERS["ajbrock"](raw), PATH)).float()
        latent = torch.randn(1, network.dim_z + DIM_Y, generator=make_generator(0))
        exact = network(latent, 1.0)
        network.to(torch.bfloat16)
        assert {p.dtype for p in network.attentions.parameters()} == {torch.bfloat16}
        assert (network(latent, 1.0) - exact).abs().max() < 0.5


class TestSpectral:
    @pytest.mark.parametrize("layout", WRITERS)
    def test_none(self, layout: str) -> None:
        raw = make_raw(128)
        same_images(without_spectral(layout, raw), raw, 128, EPS[layout])

    def test_of_pytorch(self) -> None:
        raw = make_raw(128)
        same_images(with_torch_spectral(raw), raw, 128, EPS["openmmlab"])

    def test_of_pytorch_is_its_own(self) -> None:
        """The weights as PyTorch itself folds them."""
        with torch.random.fork_rng(devices=[]):
            conv = nn.utils.spectral_norm(nn.modules.conv.Conv2d(3, 5, 3)).eval()
        state = {f"first.{name}": value for name, value in conv.state_dict().items()}
        spectral = LAYOUTS[-1].spectral_of({f"{LAYOUTS[-1].first}.weight_orig": torch.ones(1)})
        conv(torch.zeros(1, 3, 4, 4))
        torch.testing.assert_close(spectral.fold(state, "first"), conv.weight)

    @pytest.mark.parametrize("layout", WRITERS)
    def test_that_lacks_a_vector_is_not_taken_for_none(self, layout: str) -> None:
        state = WRITERS[layout](make_raw(128))
        first = {"openmmlab": "noise2feat"}.get(layout, "linear")
        vectors = [name for name in state if name.endswith((".u0", ".weight_u"))]
        (name,) = [name for name in vectors if first in name.lower()]
        del state[name]
        with pytest.raises(CheckpointError, match="1 missing"):
            read_original(state, PATH)


class TestStatistics:
    @pytest.mark.parametrize(
        "names", [("running_mean", "running_var"), ("stored_mean", "stored_var")]
    )
    def test_of_batches_on_several_devices(self, names: tuple[str, str]) -> None:
        raw = make_raw(128)
        new = {".stored_mean": f".bn.{names[0]}", ".stored_var": f".bn.{names[1]}"}
        state = {rename(name, new): value for name, value in WRITERS["ajbrock"](raw).items()}
        counter = "num_batches_tracked" if "running" in names[0] else "accumulation_counter"
        for norm in [name for name in state if name.endswith(names[0])]:
            state[norm.replace(names[0], counter)] = torch.tensor(9.0)
        same_images(state, raw, 128, EPS["ajbrock"])


class TestEps:
    """ajbrock's code trains with 1e-5, the released weights were trained with 1e-4."""

    def test_of_a_file_that_was_trained(self) -> None:
        raw = make_raw(128)
        state = WRITERS["ajbrock"](raw)
        for name in state:
            if name.endswith(".sv0"):
                state[name] = torch.full((1,), 1.7)
        same_images(state, raw, 128, 1e-5)

    def test_without_spectral_normalisation_is_not_known(self) -> None:
        raw = make_raw(128)
        same_images(without_spectral("ajbrock", raw), raw, 128, 1e-4)


class TestNamed:
    @staticmethod
    def refused(state: State) -> str:
        with pytest.raises(CheckpointError, match="this layout is not supported") as caught:
            read_original(state, PATH)
        return str(caught.value)

    @pytest.mark.parametrize("prefix", ["", "no shared.weight"])
    def test_deep_of_ajbrock(self, prefix: str) -> None:
        state = {
            "shared.weight": torch.zeros(5, 4),
            "linear.weight": torch.zeros(16, 4),
            "blocks.0.0.conv1.weight": torch.zeros(4, 16, 1, 1),
            "blocks.0.0.conv4.weight": torch.zeros(16, 4, 1, 1),
        }
        if prefix:
            del state["shared.weight"]
        assert "a BigGAN-deep of ajbrock/BigGAN-PyTorch" in self.refused(state)

    def test_discriminator(self) -> None:
        state = {
            "embed.weight": torch.zeros(5, 4),
            "blocks.0.0.conv1.weight": torch.zeros(4, 3, 3, 3),
        }
        assert "a discriminator" in self.refused(state)

    @pytest.mark.parametrize("layout", ["ajbrock", "openmmlab"])
    def test_no_shared_embedding(self, layout: str) -> None:
        state = WRITERS[layout](make_raw(128))
        del state["shared.weight" if layout == "ajbrock" else "shared_embedding.weight"]
        assert "without a shared class embedding" in self.refused(state)

    @pytest.mark.parametrize("layout", ["ajbrock", "openmmlab"])
    def test_no_hierarchical_latent(self, layout: str) -> None:
        state = WRITERS[layout](make_raw(128))
        for name in state:
            if name.endswith((".gain.weight", ".bias.weight")):
                state[name] = state[name][:, :DIM_Y]
        assert "no hierarchical latent" in self.refused(state)

    def test_no_batch_normalisation(self) -> None:
        state = WRITERS["ajbrock"](make_raw(128))
        state = {name: value for name, value in state.items() if ".stored_" not in name}
        assert "without batch normalisation" in self.refused(state)

    @pytest.mark.parametrize("name", ["shared.weight", "blocks.0.0.bn1.gain.weight"])
    def test_shapes_of_no_use(self, name: str) -> None:
        state = WRITERS["ajbrock"](make_raw(128))
        state[name] = torch.tensor(1.0)
        with pytest.raises(CheckpointError, match=r"biggan\.pth"):
            read_original(state, PATH)
