"""The original BigGAN written plainly, and its weights under all the names that are public."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core.rng import make_generator

Raw = dict[str, Tensor]  # weights as trained, under names of this file's own

NUM_CLASSES, DIM_Y, CHUNK = 5, 4, 3
UNITS = {  # channels after each block in units of 16, and the block before attention
    128: ([16, 8, 4, 2, 1], 3),
    256: ([16, 8, 8, 4, 2, 1], 4),
    512: ([16, 8, 8, 4, 2, 1, 1], 3),
}


def make_raw(
    resolution: int,
    *,
    unit: int = 8,
    seed: int = 0,
    rows: int = 1,
    attentions: Sequence[int] | None = None,
) -> Raw:
    """Random weights of a released shape; ``unit`` is 96 there. ``rows`` of statistics.

    ``attentions`` are the blocks that attention comes after; the released one if None.
    """
    generator = make_generator(seed)
    units, released = UNITS[resolution]
    attentions = (released,) if attentions is None else attentions

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    raw = {"classes": noise(NUM_CLASSES, DIM_Y)}
    width = 16 * unit
    raw["first"], raw["first bias"] = noise(16 * width, CHUNK), noise(16 * width)
    for block, factor in enumerate(units):
        channels = factor * unit
        for name, shape in {
            "conv1": (channels, width, 3, 3),
            "conv2": (channels, channels, 3, 3),
            "skip": (channels, width, 1, 1),
        }.items():
            raw[f"{block} {name}"], raw[f"{block} {name} bias"] = noise(*shape), noise(channels)
        for norm, size in (("1", width), ("2", channels)):
            for name in ("gain", "offset"):
                raw[f"{block} {name}{norm}"] = noise(size, DIM_Y + CHUNK)
            raw[f"{block} mean{norm}"] = noise(rows, size)
            raw[f"{block} var{norm}"] = noise(rows, size).abs() + 0.5
        width = channels
        if block in attentions:
            for name, shape in {
                "theta": (width // 8, width, 1, 1),
                "phi": (width // 8, width, 1, 1),
                "g": (width // 2, width, 1, 1),
                "o": (width, width // 2, 1, 1),
            }.items():
                raw[f"{block} {name}"] = noise(*shape)
            raw[f"{block} gamma"] = noise(1)[0]
    raw["last gain"], raw["last offset"] = noise(width), noise(width)
    raw["last mean"], raw["last var"] = noise(rows, width), noise(rows, width).abs() + 0.5
    raw["rgb"], raw["rgb bias"] = noise(3, width, 3, 3), noise(3)
    return raw


def slow_decode(
    raw: Raw, z: Tensor, y: Tensor, resolution: int, eps: float, row: int = 0
) -> Tensor:
    """Images, one layer after the other as the paper's appendix and ajbrock's code have them."""
    assert sum(name.endswith("conv1") for name in raw) == len(UNITS[resolution][0])
    chunks = z.split(CHUNK, dim=1)
    h = F.linear(chunks[0], normed(raw["first"]), raw["first bias"]).view(len(z), -1, 4, 4)
    for block, chunk in enumerate(chunks[1:]):
        h = slow_block(raw, block, h, torch.cat((y, chunk), dim=1), eps, row)
        if f"{block} gamma" in raw:
            h = slow_attention(raw, block, h)
    statistics = raw["last mean"][row], raw["last var"][row]
    h = F.batch_norm(h, *statistics, raw["last gain"], raw["last offset"], eps=eps)
    return torch.tanh(F.conv2d(F.relu(h), normed(raw["rgb"]), raw["rgb bias"], padding=1))


def slow_block(raw: Raw, block: int, x: Tensor, condition: Tensor, eps: float, row: int) -> Tensor:
    """relu(norm), doubling, conv, relu(norm), conv; and beside it doubling and a 1 x 1 conv."""

    def norm(x: Tensor, which: str) -> Tensor:
        gain = 1 + F.linear(condition, normed(raw[f"{block} gain{which}"]))
        offset = F.linear(condition, normed(raw[f"{block} offset{which}"]))
        plain = F.batch_norm(
            x, raw[f"{block} mean{which}"][row], raw[f"{block} var{which}"][row], eps=eps
        )
        return plain * gain[..., None, None] + offset[..., None, None]

    def conv(x: Tensor, name: str, padding: int) -> Tensor:
        weight, bias = raw[f"{block} {name}"], raw[f"{block} {name} bias"]
        return F.conv2d(x, normed(weight), bias, padding=padding)

    h = F.interpolate(F.relu(norm(x, "1")), scale_factor=2)
    h = conv(F.relu(norm(conv(h, "conv1", 1), "2")), "conv2", 1)
    return h + conv(F.interpolate(x, scale_factor=2), "skip", 0)


def slow_attention(raw: Raw, block: int, x: Tensor) -> Tensor:
    """Attention of every pixel to the pixels of an image of half the side."""
    theta, phi, g = (F.conv2d(x, normed(raw[f"{block} {name}"])) for name in ("theta", "phi", "g"))
    phi, g = F.max_pool2d(phi, 2), F.max_pool2d(g, 2)
    weights = torch.einsum("bchw,bcij->bhwij", theta, phi).flatten(3).softmax(-1)
    attended = torch.einsum("bhwn,bcn->bchw", weights, g.flatten(2))
    return x + raw[f"{block} gamma"] * F.conv2d(attended, normed(raw[f"{block} o"]))


def normed(weight: Tensor) -> Tensor:
    """A weight divided by the largest singular value of its matrix."""
    return weight / torch.linalg.matrix_norm(weight.flatten(1), 2)


def singular(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The left and right vector of the largest singular value."""
    left, _, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    return left[:, 0], right[0]


def blocks_of(raw: Raw) -> range:
    return range(sum(name.endswith("conv1") for name in raw))


def attentions_of(raw: Raw) -> list[int]:
    """The blocks that attention comes after."""
    return [i for i in blocks_of(raw) if f"{i} gamma" in raw]


def z_first(product: Tensor) -> Tensor:
    return torch.cat((product[:, DIM_Y:], product[:, :DIM_Y]), dim=1)


def rows_last(rows: Tensor) -> Tensor:
    """Rows of ``(C, 4, 4)`` as rows of ``(4, 4, C)``."""
    return rows.unflatten(0, (-1, 4, 4)).permute(1, 2, 0, *range(3, rows.ndim + 2)).flatten(0, 2)


def ajbrock(raw: Raw) -> Raw:
    """FuseDream's and ajbrock's names."""
    state: Raw = {"shared.weight": raw["classes"]}

    def layer(name: str, own: str) -> None:
        state[f"{name}.weight"] = raw[own]
        state[f"{name}.u0"] = singular(raw[own])[0][None]
        state[f"{name}.sv0"] = torch.ones(1)
        if f"{own} bias" in raw:
            state[f"{name}.bias"] = raw[f"{own} bias"]

    layer("linear", "first")
    for i in blocks_of(raw):
        layer(f"blocks.{i}.0.conv1", f"{i} conv1")
        layer(f"blocks.{i}.0.conv2", f"{i} conv2")
        layer(f"blocks.{i}.0.conv_sc", f"{i} skip")
        for n in "12":
            layer(f"blocks.{i}.0.bn{n}.gain", f"{i} gain{n}")
            layer(f"blocks.{i}.0.bn{n}.bias", f"{i} offset{n}")
            state[f"blocks.{i}.0.bn{n}.stored_mean"] = raw[f"{i} mean{n}"][0]
            state[f"blocks.{i}.0.bn{n}.stored_var"] = raw[f"{i} var{n}"][0]
    for after in attentions_of(raw):
        for name in ("theta", "phi", "g", "o"):
            layer(f"blocks.{after}.1.{name}", f"{after} {name}")
        state[f"blocks.{after}.1.gamma"] = raw[f"{after} gamma"]
    state["output_layer.0.gain"], state["output_layer.0.bias"] = (
        raw["last gain"],
        raw["last offset"],
    )
    state["output_layer.0.stored_mean"] = raw["last mean"][0]
    state["output_layer.0.stored_var"] = raw["last var"][0]
    layer("output_layer.2", "rgb")
    return state


def ivclab(raw: Raw) -> Raw:
    """The names of ivclab's release, with statistics for 50 tau."""
    state: Raw = {"linear.weight": raw["classes"]}

    def layer(name: str, weight: Tensor, bias: Tensor | None = None) -> None:
        matrix = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight
        state[f"{name}.weight_orig"] = weight
        state[f"{name}.weight_u"], state[f"{name}.weight_v"] = singular(matrix)
        if bias is not None:
            state[f"{name}.bias"] = bias

    def statistics(name: str, mean: Tensor, var: Tensor) -> None:
        state[f"{name}.standing_means"], state[f"{name}.standing_vars"] = mean, var
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = mean[0] + 9, var[0] + 9
        state[f"{name}.num_batches_tracked"] = torch.tensor(0)

    layer("g_z.g_linear", rows_last(raw["first"]), rows_last(raw["first bias"]))
    for i in blocks_of(raw):
        block = "gblock" if i == 0 else f"gblock_{i}"
        for theirs, own in {"conv0": "conv1", "conv1": "conv2", "conv_sc": "skip"}.items():
            layer(f"{block}.{theirs}", raw[f"{i} {own}"], raw[f"{i} {own} bias"])
        for theirs, n in {"hyperbn": "1", "hyperbn_1": "2"}.items():
            layer(f"{block}.{theirs}.gamma", z_first(raw[f"{i} gain{n}"]))
            layer(f"{block}.{theirs}.beta", z_first(raw[f"{i} offset{n}"]))
            statistics(f"{block}.{theirs}.crossreplicabn", raw[f"{i} mean{n}"], raw[f"{i} var{n}"])
    for after in attentions_of(raw):
        for theirs, own in {"theta": "theta", "phi": "phi", "g": "g", "o_conv": "o"}.items():
            layer(f"attention.{theirs}", raw[f"{after} {own}"])
        state["attention.gamma"] = raw[f"{after} gamma"][None]
    state["scaledcrossreplicabn.weight"] = raw["last gain"]
    state["scaledcrossreplicabn.bias"] = raw["last offset"]
    statistics("scaledcrossreplicabn", raw["last mean"], raw["last var"])
    layer("conv_2d", raw["rgb"], raw["rgb bias"])
    return state


def ganalyze(raw: Raw) -> Raw:
    """GANalyze's names."""
    state: Raw = {"linear.weight": raw["classes"].T}

    def layer(name: str, weight: Tensor, bias: Tensor | None = None) -> None:
        state[f"{name}.module.weight_bar"] = weight
        state[f"{name}.module.weight_u"], state[f"{name}.module.weight_v"] = singular(weight)
        if bias is not None:
            state[f"{name}.module.bias"] = bias

    def statistics(name: str, mean: Tensor, var: Tensor) -> None:
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = mean[0], var[0]
        state[f"{name}.num_batches_tracked"] = torch.tensor(0)

    layer("G_linear", rows_last(raw["first"]), rows_last(raw["first bias"]))
    for i in blocks_of(raw):
        for theirs, own in {"conv0": "conv1", "conv1": "conv2", "conv_sc": "skip"}.items():
            layer(f"GBlock.{i}.{theirs}", raw[f"{i} {own}"], raw[f"{i} {own} bias"])
        for theirs, n in {"HyperBN": "1", "HyperBN_1": "2"}.items():
            layer(f"GBlock.{i}.{theirs}.gamma_embed", z_first(raw[f"{i} gain{n}"]))
            layer(f"GBlock.{i}.{theirs}.beta_embed", z_first(raw[f"{i} offset{n}"]))
            statistics(f"GBlock.{i}.{theirs}.bn", raw[f"{i} mean{n}"], raw[f"{i} var{n}"])
    for after in attentions_of(raw):
        for theirs, own in {"theta": "theta", "phi": "phi", "g": "g", "o_conv": "o"}.items():
            layer(f"attention.{theirs}", raw[f"{after} {own}"])
        state["attention.gamma"] = raw[f"{after} gamma"][None]
    state["ScaledCrossReplicaBN.weight"] = raw["last gain"]
    state["ScaledCrossReplicaBN.bias"] = raw["last offset"]
    statistics("ScaledCrossReplicaBN", raw["last mean"], raw["last var"])
    layer("colorize", raw["rgb"], raw["rgb bias"])
    return state


def openmmlab(raw: Raw) -> Raw:
    """OpenMMLab's names: attention counts as a block."""
    state: Raw = {"shared_embedding.weight": raw["classes"]}

    def layer(name: str, own: str) -> None:
        state[f"{name}.weight"] = raw[own]
        state[f"{name}.u0"], state[f"{name}.sv0"] = singular(raw[own])[0][None], torch.ones(1)
        if f"{own} bias" in raw:
            state[f"{name}.bias"] = raw[f"{own} bias"]

    def statistics(name: str, own: str, n: str) -> None:
        state[f"{name}.running_mean"] = raw[f"{own} mean{n}"][0]
        state[f"{name}.running_var"] = raw[f"{own} var{n}"][0]
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    layer("noise2feat", "first")
    for i in blocks_of(raw):
        block = f"conv_blocks.{i + sum(after < i for after in attentions_of(raw))}"
        layer(f"{block}.conv1.conv", f"{i} conv1")
        layer(f"{block}.conv2.conv", f"{i} conv2")
        layer(f"{block}.shortcut.conv", f"{i} skip")
        for n in "12":
            layer(f"{block}.bn{n}.gain", f"{i} gain{n}")
            layer(f"{block}.bn{n}.bias", f"{i} offset{n}")
            statistics(f"{block}.bn{n}.bn", f"{i}", n)
    for before, after in enumerate(attentions_of(raw)):
        place = f"conv_blocks.{after + 1 + before}"
        for name in ("theta", "phi", "g", "o"):
            layer(f"{place}.{name}.conv", f"{after} {name}")
        state[f"{place}.gamma"] = raw[f"{after} gamma"]
    state["output_layer.bn.weight"], state["output_layer.bn.bias"] = (
        raw["last gain"],
        raw["last offset"],
    )
    statistics("output_layer.bn", "last", "")
    layer("output_layer.conv", "rgb")
    return state


WRITERS: dict[str, Callable[[Raw], Raw]] = {
    "ajbrock": ajbrock,
    "ivclab": ivclab,
    "ganalyze": ganalyze,
    "openmmlab": openmmlab,
}
EPS = {"ajbrock": 1e-4, "ivclab": 1e-4, "ganalyze": 1e-4, "openmmlab": 1e-5}


def without_spectral(layout: str, raw: Raw) -> Raw:
    """The same generator trained without spectral normalisation: its weights are as they act."""
    vectors = (".u0", ".sv0", ".weight_u", ".weight_v")
    norms = ("classes", "last", "mean", "var", "gamma", "bias")
    acting = {
        name: value
        if any(part in norms or part[:-1] in norms for part in name.split())
        else normed(value)
        for name, value in raw.items()
    }
    state = {k: v for k, v in WRITERS[layout](acting).items() if not k.endswith(vectors)}
    renamed = {".weight_orig": ".weight", ".module.weight_bar": ".weight", ".module.bias": ".bias"}
    return {rename(name, renamed): value for name, value in state.items()}


def with_torch_spectral(raw: Raw) -> Raw:
    """OpenMMLab's names where spectral normalisation is PyTorch's."""
    state = openmmlab(raw)
    for name in [name for name in state if name.endswith(".u0")]:
        layer = name.removesuffix(".u0")
        weight = state.pop(f"{layer}.weight")
        del state[name], state[f"{layer}.sv0"]
        state[f"{layer}.weight_orig"] = weight
        state[f"{layer}.weight_u"], state[f"{layer}.weight_v"] = singular(weight)
    return state


def rename(name: str, suffixes: dict[str, str]) -> str:
    """A name with another end."""
    for old, new in suffixes.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
