from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusedream_core import CheckpointError, make_generator
from fusedream_core.models.gan.biggan_original import OriginalNetwork
from fusedream_core.models.gan.conversion import read_original

from .originals import (
    CHUNK,
    DIM_Y,
    EPS,
    UNITS,
    WRITERS,
    make_raw,
    slow_block,
    slow_decode,
)

PATH = Path("models/biggan.pth")


def make_latents(resolution: int, num: int = 2) -> tuple[Tensor, Tensor]:
    generator = make_generator(1)
    chunks = len(UNITS[resolution][0]) + 1
    z = torch.randn(num, chunks * CHUNK, generator=generator, dtype=torch.float64)
    return z, torch.randn(num, DIM_Y, generator=generator, dtype=torch.float64)


class TestReadOriginal:
    @pytest.mark.parametrize("resolution", [128, 256, 512])
    @pytest.mark.parametrize("layout", WRITERS)
    def test_same_images_as_the_plain_form(self, layout: str, resolution: int) -> None:
        rows = 50 if layout == "ivclab" else 1
        raw = make_raw(resolution, rows=rows)
        state = WRITERS[layout](raw)
        network = OriginalNetwork(read_original(state, PATH)).double()
        z, y = make_latents(resolution, 1)
        ours = network(torch.cat((z, y), dim=1), 1.0)
        theirs = slow_decode(raw, z, y, resolution, EPS[layout], row=rows - 1)
        assert ours.shape == (1, 3, resolution, resolution)
        assert theirs.std() > 0.05
        # GANalyze adds 1e-4 to the lengths of the vectors that sigma is worked out from.
        tolerance = 1e-2 if layout == "ganalyze" else 1e-6
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)

    def test_statistics_of_a_tau(self) -> None:
        raw = make_raw(128, rows=50)
        network = OriginalNetwork(read_original(WRITERS["ivclab"](raw), PATH)).double()
        z, y = make_latents(128, 1)
        for row, tau in ((0, 0.02), (0, 0.01), (24, 0.5)):
            theirs = slow_decode(raw, z, y, 128, 1e-4, row=row)
            torch.testing.assert_close(
                network(torch.cat((z, y), dim=1), tau), theirs, rtol=0, atol=1e-6
            )

    def test_eps_that_is_asked_for(self) -> None:
        raw = make_raw(128)
        weights = read_original(WRITERS["ajbrock"](raw), PATH, eps=0.1)
        z, y = make_latents(128, 1)
        ours = OriginalNetwork(weights).double()(torch.cat((z, y), dim=1), 1.0)
        torch.testing.assert_close(ours, slow_decode(raw, z, y, 128, 0.1), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("layout", WRITERS)
    def test_names_that_are_missing_or_too_many(self, layout: str) -> None:
        state = WRITERS[layout](make_raw(128, rows=2))
        gone = next(name for name in sorted(state) if "conv1" in name and "bias" in name)
        del state[gone]
        state["discriminator.weight"] = torch.zeros(1)
        with pytest.raises(CheckpointError, match=r"1 unexpected \(discriminator.weight") as caught:
            read_original(state, PATH)
        assert gone in str(caught.value)

    @pytest.mark.parametrize("other", ["ivclab", "ganalyze", "openmmlab"])
    def test_a_mix_of_two_layouts(self, other: str) -> None:
        raw = make_raw(128, rows=2)
        mixed = WRITERS[other](raw)
        mixed |= {k: v for k, v in WRITERS["ajbrock"](raw).items() if "blocks" not in k}
        with pytest.raises(CheckpointError, match="of one conversion only") as caught:
            read_original(mixed, PATH)
        assert "missing" in str(caught.value)
        assert "unexpected" in str(caught.value)

    def test_no_layout(self) -> None:
        with pytest.raises(CheckpointError, match=r"no BigGAN that is known \(conv.weight"):
            read_original({"conv.weight": torch.zeros(1)}, PATH)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("blocks.2.0.conv1.weight", "conv1 of block 2 is"),
            ("blocks.1.0.bn2.stored_mean", "a mean of block 1 is"),
            ("output_layer.0.gain", "the last gain is"),
            ("linear.bias", "the bias of the first layer is|do not fit"),
        ],
    )
    def test_shapes_that_do_not_fit(self, name: str, message: str) -> None:
        state = WRITERS["ajbrock"](make_raw(128))
        state[name] = torch.cat([state[name], state[name]], dim=-1)
        with pytest.raises(CheckpointError, match=message):
            read_original(state, PATH)

    def test_a_vector_of_another_length(self) -> None:
        state = WRITERS["ajbrock"](make_raw(128))
        state["linear.u0"] = state["linear.u0"][:, :-1]
        with pytest.raises(CheckpointError, match="cannot be read as model weights"):
            read_original(state, PATH)


class TestOriginalNetwork:
    def test_gradients_and_batch(self) -> None:
        raw = make_raw(128, unit=8)
        network = OriginalNetwork(read_original(WRITERS["ajbrock"](raw), PATH)).double()
        z, y = make_latents(128)
        pull = torch.randn(2, 3, 128, 128, generator=make_generator(2), dtype=torch.float64)
        grads = []
        for decode in (
            lambda z, y: network(torch.cat((z, y), dim=1), 1.0),
            lambda z, y: slow_decode(raw, z, y, 128, 1e-4),
        ):
            leaves = z.clone().requires_grad_(), y.clone().requires_grad_()
            grads += torch.autograd.grad((decode(*leaves) * pull).sum(), leaves)
        assert all(float(grad.abs().min()) > 0 for grad in grads)
        torch.testing.assert_close(grads[0], grads[2], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(grads[1], grads[3], rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("resolution", [128, 256, 512])
    def test_each_block_by_itself(self, resolution: int) -> None:
        """A block leaves its biases to what comes after: they are added here on both sides."""
        raw = make_raw(resolution)
        state = WRITERS["ajbrock"](raw)
        network = OriginalNetwork(read_original(state, PATH)).double()
        generator = make_generator(3)
        condition = torch.randn(2, DIM_Y + CHUNK, generator=generator, dtype=torch.float64)
        for index, block in enumerate(network.blocks):
            later = network.norms[index + 1 :] if index + 1 < len(network.norms) else []
            after = (later[0] if len(later) else network.last_norm).missing
            width, channels = block.skip.shape[1], block.skip.shape[0]
            before = network.norms[index].missing[:width, None, None]
            x = torch.randn(2, width, 3, 5, generator=generator, dtype=torch.float64)
            ours = block(x, network.norms[index](condition, 1.0)) + after[:channels, None, None]
            theirs = slow_block(raw, index, x + before, condition, 1e-4, 0)
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)

    def test_takes_no_gradient_itself(self) -> None:
        network = OriginalNetwork(read_original(WRITERS["ajbrock"](make_raw(128)), PATH))
        assert not any(parameter.requires_grad for parameter in network.parameters())
