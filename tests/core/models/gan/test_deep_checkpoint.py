from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fusedream_core import BigGan, CheckpointError, load_biggan, make_generator
from fusedream_core.models.gan.deep_checkpoint import as_package, settings_of

from .originals import WRITERS, make_raw

MakePackage = Callable[..., nn.Module]
_TO_16, _LAST = [(16, 16), (16, 16), (16, 16), (16, 8), (8, 8)], [(4, 4), (4, 2), (2, 2), (2, 1)]
_WIDTHS = [*_TO_16, (8, 4), *_LAST]
RELEASED: dict[str, Any] = {  # as BigGAN-deep-128, but for the width
    "output_dim": 128,
    "layers": [[index % 2 == 1, *widths] for index, widths in enumerate(_WIDTHS)],
    "attention_layer_position": 8,
}


def openmmlab(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's weights under OpenMMLab's names, as its converted files have them."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        parts = name.removeprefix("generator.").split(".")
        if parts[0] == "embeddings":
            out["shared_embedding.weight"] = value.T
        elif parts[0] == "gen_z":
            out[f"noise2feat.{parts[1]}"] = value
        elif parts[0] == "conv_to_rgb":
            cut = value if parts[1] == "weight_v" else value[:3]
            out[f"output_layer.conv.{parts[1]}"] = cut
        elif parts[0] == "bn":
            theirs = {"running_means": "running_mean", "running_vars": "running_var"}
            last = value[-1] if parts[1] in theirs else value
            out[f"output_layer.bn.{theirs.get(parts[1], parts[1])}"] = last
        else:
            out |= openmmlab_layer(parts[1:], value)
    out["output_layer.bn.num_batches_tracked"] = torch.tensor(0)
    return out


def openmmlab_layer(parts: list[str], value: Tensor) -> dict[str, Tensor]:
    number, kind, *rest = parts
    prefix = f"conv_blocks.{number}"
    if kind == "gamma":
        return {f"{prefix}.gamma": value[0]}
    if kind.startswith("snconv1x1"):
        name = kind.removeprefix("snconv1x1_").removesuffix("_conv")
        return {f"{prefix}.{name}.conv.{rest[0]}": value}
    name, index = kind.split("_")[0], int(kind.split("_")[1]) + 1
    if name == "conv":
        return {f"{prefix}.conv{index}.conv.{rest[0]}": value}
    if rest[0] in ("scale", "offset"):
        product = {"scale": "gain", "offset": "bias"}[rest[0]]
        return {f"{prefix}.bn{index}.{product}.{rest[1]}": value}
    theirs = {"running_means": "running_mean", "running_vars": "running_var"}[rest[0]]
    return {
        f"{prefix}.bn{index}.bn.{theirs}": value[-1],
        f"{prefix}.bn{index}.bn.num_batches_tracked": torch.tensor(0),
    }


@pytest.fixture
def network(package_gan: MakePackage) -> nn.Module:
    return package_gan(0, **RELEASED)


@pytest.fixture
def latent() -> Tensor:
    return torch.randn(2, 12, generator=make_generator(3))


def decode(gan: BigGan, latent: Tensor) -> Tensor:
    return gan.decode(latent[:, :6], latent[:, 6:], truncation=1.0)


class TestSettings:
    def test_are_those_of_the_network(self, network: nn.Module) -> None:
        settings = settings_of(network.state_dict(), Path("x"))
        config = network.config.to_dict()
        assert {name: config[name] for name in settings} == settings

    def test_another_shape_needs_its_config(self, package_gan: MakePackage) -> None:
        with pytest.raises(CheckpointError, match=r"of no released shape; put the config\.json"):
            settings_of(package_gan(0).state_dict(), Path("x"))

    def test_a_part_of_a_model(self, network: nn.Module) -> None:
        state = network.state_dict()
        del state["generator.layers.1.conv_0.weight_orig"]
        with pytest.raises(CheckpointError, match="a part of a BigGAN-deep only"):
            settings_of(state, Path("x"))


class TestLoad:
    def test_package_file_without_a_config(
        self, network: nn.Module, latent: Tensor, tmp_path: Path
    ) -> None:
        torch.save(network.state_dict(), tmp_path / "biggan-deep-16.bin")
        gan = load_biggan(tmp_path / "biggan-deep-16.bin")
        torch.testing.assert_close(decode(gan, latent), network.generator(latent, 1.0))
        assert gan.class_names[0] == "class 0"

    def test_openmmlab(self, network: nn.Module, latent: Tensor, tmp_path: Path) -> None:
        weights = network.state_dict()
        # What it has at the last convolution belongs to three channels, not to all.
        left, _, right = torch.linalg.svd(
            weights["generator.conv_to_rgb.weight_orig"][:3].flatten(1), full_matrices=False
        )
        weights["generator.conv_to_rgb.weight_u"][:3] = left[:, 0]
        weights["generator.conv_to_rgb.weight_u"][3:] = 0
        weights["generator.conv_to_rgb.weight_v"].copy_(right[0])
        network.load_state_dict(weights)
        content = {"meta": {"epoch": 1}, "state_dict": openmmlab(network.state_dict())}
        torch.save(content, tmp_path / "deep.pth")
        gan = load_biggan(tmp_path / "deep.pth")
        torch.testing.assert_close(decode(gan, latent), network.generator(latent, 1.0))

    def test_openmmlab_names_go_back_to_the_package(self, network: nn.Module) -> None:
        state = network.state_dict()
        renamed = as_package(openmmlab(state))
        assert renamed.keys() == state.keys()
        statistics = ("running_means", "running_vars")
        for name, value in renamed.items():
            if not name.endswith(statistics) and "conv_to_rgb" not in name:
                assert torch.equal(value, state[name]), name

    @pytest.mark.parametrize("prefix", ["module.", "generator_ema.", "generator."])
    def test_original_with_a_prefix(self, prefix: str, tmp_path: Path) -> None:
        state = WRITERS["openmmlab"](make_raw(128))
        torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "g.pth")
        torch.save(state, tmp_path / "plain.pth")
        gan, plain = load_biggan(tmp_path / "g.pth"), load_biggan(tmp_path / "plain.pth")
        assert (gan.dim_z, gan.dim_y, gan.num_classes, gan.resolution) == (18, 4, 5, 128)
        assert torch.equal(gan.class_weight, plain.class_weight)

    def test_original_in_a_folder_with_a_config(self, tmp_path: Path) -> None:
        state = WRITERS["ajbrock"](make_raw(128))
        torch.save(state, tmp_path / "biggan-128.pth")
        config = {"class_names": list("abcde"), "truncation": 0.4, "eps": 0.5}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "plain").mkdir()
        torch.save(state, tmp_path / "plain" / "biggan-128.pth")
        gan, plain = load_biggan(tmp_path), load_biggan(tmp_path / "plain" / "biggan-128.pth")
        assert (gan.class_names, gan.truncation) == (tuple("abcde"), 0.4)
        z, y = (
            plain.sample_z(1, truncation=1.0, generator=make_generator(0)),
            plain.embed(torch.tensor([1])),
        )
        assert not torch.equal(gan.decode(z, y, truncation=1.0), plain.decode(z, y, truncation=1.0))

    def test_several_files_in_a_folder(self, tmp_path: Path) -> None:
        for name in ("a.pth", "b.pth"):
            torch.save({}, tmp_path / name)
        with pytest.raises(CheckpointError, match=r"holds no model.safetensors"):
            load_biggan(tmp_path)

    def test_imagenet_has_names(self, package_gan: MakePackage, tmp_path: Path) -> None:
        state = package_gan(0, **RELEASED, num_classes=1000).state_dict()
        save_file(state, tmp_path / "deep.safetensors")
        gan = load_biggan(tmp_path / "deep.safetensors")
        assert gan.class_names[1] == "goldfish"

    def test_a_config_of_a_giant_takes_no_memory(self, network: nn.Module, tmp_path: Path) -> None:
        save_file(network.state_dict(), tmp_path / "model.safetensors")
        config = {**network.config.to_dict(), "channel_width": 200_000}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="reshaped"):
            load_biggan(tmp_path)
