"""A GAN's config: what it may say, and which file it is of."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fusedream_core import BigGan, CheckpointError, load_biggan, make_generator
from fusedream_core.models.gan.settings import GanSettings, find_config, read_settings

from .originals import WRITERS, make_raw

MakePackage = Callable[..., nn.Module]


def write(folder: Path, **content: object) -> Path:
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "config.json"


def original(folder: Path, name: str = "biggan-128.pth", content: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(content or WRITERS["ajbrock"](make_raw(128)), folder / name)
    return folder / name


def decode(gan: BigGan) -> Tensor:
    z = gan.sample_z(1, truncation=1.0, generator=make_generator(0))
    return gan.decode(z, gan.embed(torch.tensor([1])), truncation=1.0)


class TestReadSettings:
    def test_values(self, tmp_path: Path) -> None:
        path = write(
            tmp_path, class_names=["a b", "\xfcber"], truncation=1, eps=1e-5, channel_order="bgr"
        )
        settings = read_settings(path)
        assert settings == GanSettings(("a b", "\xfcber"), 1.0, 1e-5, "bgr", network={"eps": 1e-5})

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"trust_remote_code": True}, "'trust_remote_code' is none of its keys"),
            ({"auto_map": {"AutoModel": "x.py"}}, "'auto_map' is none of its keys"),
            ({"epsilon": 1e-5}, "'epsilon' is none of its keys, which are class_names,"),
            ({"eps": "1e-5"}, "eps is 1e-5, but must be above 0"),
            ({"eps": float("nan")}, "eps is nan"),
            ({"eps": True}, "eps is True"),
            ({"eps": 0}, "eps is 0"),
            ({"truncation": 1.5}, "truncation is 1.5"),
            ({"truncation": [1]}, "truncation is"),
            ({"channel_order": "grb"}, 'must be "rgb" or "bgr"'),
            ({"channel_order": ["bgr"]}, 'must be "rgb" or "bgr"'),
            ({"class_names": "dog"}, "class_names is dog"),
            ({"class_names": {"0": "dog"}}, "class_names is"),
            ({"class_names": ["dog", 1]}, "class_names is"),
            ({"class_names": ["dog\ncat"]}, "class_names is"),
            ({"class_names": ["d" * 501]}, "class_names is"),
            ({"class_names": ["d"] * 100_001}, "class_names is"),
            ({"z_dim": 0}, "z_dim is 0"),
            ({"z_dim": 10**9}, "z_dim is"),
            ({"z_dim": 6.0}, "z_dim is 6.0"),
            ({"layers": []}, "layers is"),
            ({"layers": [[True, 1, 1]] * 65}, "layers is"),
            ({"layers": [[True, 16, "8"]]}, "layers is"),
            ({"attention_layer_position": "8"}, "attention_layer_position is 8"),
            ({"n_stats": 10**6}, "n_stats is"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, content: dict[str, Any], message: str) -> None:
        with pytest.raises(CheckpointError, match="does not describe a BigGAN") as caught:
            read_settings(write(tmp_path, **content))
        assert message in str(caught.value)
        assert len(str(caught.value)) < 600

    def test_what_other_programs_write_is_left_out_aloud(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            settings = read_settings(write(tmp_path, model_type="biggan", truncation=0.5))
        assert settings.truncation == 0.5
        assert "does not use model_type in" in caplog.text


class TestFindConfig:
    def test_of_a_folder_and_of_its_only_file(self, tmp_path: Path) -> None:
        path, config = original(tmp_path), write(tmp_path, eps=0.1)
        assert find_config(path, is_folder=True) == config
        assert find_config(path, is_folder=False) == config

    def test_of_one_file_among_several(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A model folder's own config.json would else change every model in it."""
        path, config = original(tmp_path), write(tmp_path, eps=0.1)
        (tmp_path / "other.pth").touch()
        with caplog.at_level(logging.WARNING):
            assert find_config(path, is_folder=False) is None
        assert "name it biggan-128.json" in caplog.text
        own = config.rename(tmp_path / "biggan-128.json")
        assert find_config(path, is_folder=False) == own


class TestEffect:
    def test_eps_of_a_file_is_that_of_its_config(self, tmp_path: Path) -> None:
        plain, same, own, beside = (original(tmp_path / name) for name in "abcd")
        write(same.parent, eps=1e-4)
        write(own.parent, eps=1e-5)
        (beside.parent / "biggan-128.json").write_text('{"eps": 1e-5}')
        images = [decode(load_biggan(path)) for path in (plain, same, own, beside)]
        assert torch.equal(images[0], images[1])
        assert not torch.equal(images[0], images[2])
        assert torch.equal(images[2], images[3])

    def test_the_config_is_part_of_the_name(self, tmp_path: Path) -> None:
        path = original(tmp_path)
        names = {load_biggan(path).gan_id}
        for eps in (1e-4, 1e-5):
            write(tmp_path, eps=eps)
            names.add(load_biggan(path).gan_id)
        assert len(names) == 3

    def test_fields_that_an_original_does_not_need(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = original(tmp_path)
        write(tmp_path, z_dim=120, n_stats=51)
        with caplog.at_level(logging.WARNING):
            load_biggan(path)
        assert "does not use n_stats, z_dim in the config of" in caplog.text

    @pytest.mark.parametrize("position", [-1, None, 0, 3])
    def test_attention_of_a_deep_one_at_any_place(
        self, package_gan: MakePackage, tmp_path: Path, position: int | None
    ) -> None:
        network = package_gan(0, attention_layer_position=position)
        torch.save(network.state_dict(), tmp_path / "model.bin")
        write(tmp_path, **network.config.to_dict())
        gan = load_biggan(tmp_path)
        latent = torch.randn(2, 12, generator=make_generator(3))
        theirs = network.generator(latent, 1.0)
        ours = gan.decode(latent[:, :6], latent[:, 6:], truncation=1.0)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_a_released_shape_needs_only_what_differs(
        self, package_gan: MakePackage, tmp_path: Path
    ) -> None:
        """A config of an eps alone must not bring the package's defaults with it."""
        from .test_deep_checkpoint import RELEASED

        network = package_gan(0, **RELEASED, eps=0.01)
        torch.save(network.state_dict(), tmp_path / "deep.bin")
        write(tmp_path, eps=0.01)
        gan = load_biggan(tmp_path)
        latent = torch.randn(1, 12, generator=make_generator(3))
        ours = gan.decode(latent[:, :6], latent[:, 6:], truncation=1.0)
        torch.testing.assert_close(ours, network.generator(latent, 1.0), rtol=1e-4, atol=1e-5)

    def test_a_weight_of_zero_under_spectral_normalisation(self, tmp_path: Path) -> None:
        """The public code makes NaN of it as well, and black images."""
        state = WRITERS["ajbrock"](make_raw(128))
        state["blocks.1.0.conv1.weight"] = torch.zeros_like(state["blocks.1.0.conv1.weight"])
        with pytest.raises(CheckpointError, match="not finite"):
            load_biggan(original(tmp_path, content=state))

    def test_a_nan_is_refused_on_load(self, gan_dir: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(gan_dir, tmp_path / "gan"))
        state = load_file(folder / "model.safetensors")
        state["generator.bn.weight"][0] = torch.inf
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .*generator\.bn\.weight"):
            load_biggan(folder)


class TestChannelOrder:
    @pytest.fixture
    def state(self) -> dict[str, Tensor]:
        return WRITERS["openmmlab"](make_raw(128))

    def test_of_openmmlabs_own_training(
        self, state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        converted = original(tmp_path / "a", content={"meta": {}, "state_dict": state})
        whole = {f"generator_ema.{name}": value for name, value in state.items()}
        whole |= {f"generator.{name}": torch.zeros_like(value) for name, value in state.items()}
        whole["discriminator.weight"] = torch.zeros(1)
        content = {"meta": {"iter": 1_500_000, "epoch": 1}, "state_dict": whole}
        trained = original(tmp_path / "b", content=content)
        with caplog.at_level(logging.WARNING):
            bgr = decode(load_biggan(trained))
        assert "as BGR" in caplog.text
        assert torch.equal(bgr, decode(load_biggan(converted)).flip(1))
        named = trained.rename(trained.with_name("biggan_cvt_rgb.pth"))
        assert torch.equal(decode(load_biggan(named)), bgr.flip(1))

    def test_a_switch_in_the_config_decides(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        content = {"meta": {"iter": 5}, "state_dict": state}
        path = original(tmp_path / "a", content=content)
        bgr = decode(load_biggan(path))
        write(path.parent, channel_order="rgb")
        assert torch.equal(decode(load_biggan(path)), bgr.flip(1))
        plain = original(tmp_path / "b")
        rgb = decode(load_biggan(plain))
        write(plain.parent, channel_order="bgr")
        assert torch.equal(decode(load_biggan(plain)), rgb.flip(1))

    def test_of_others_is_as_it_was(self, tmp_path: Path) -> None:
        """A count of steps in a file of another layout says nothing of its channels."""
        state = WRITERS["ajbrock"](make_raw(128))
        content = {"meta": {"iter": 5}, "state_dict": state}
        noted, plain = original(tmp_path / "a", content=content), original(tmp_path / "b")
        assert torch.equal(decode(load_biggan(noted)), decode(load_biggan(plain)))
