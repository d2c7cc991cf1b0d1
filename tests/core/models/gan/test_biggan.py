from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusedream_core import BigGan, CheckpointError, ConfigError, load_biggan, make_generator


class TestLoadBigGan:
    def test_smoke(self, gan: BigGan) -> None:
        assert gan.gan_id.startswith("biggan-")
        assert (gan.dim_z, gan.dim_y, gan.num_classes, gan.resolution) == (6, 6, 5, 16)
        assert gan.class_names == ("dog", "cat", "apple", "crane", "crane")
        assert gan.truncation == 0.6
        assert gan.device == torch.device("cpu")
        assert not gan.training
        assert not any(p.requires_grad for p in gan.parameters())

    def test_same_numbers_as_the_package(self, gan: BigGan, gan_dir: Path) -> None:
        from pytorch_pretrained_biggan import BigGAN, BigGANConfig

        settings = json.loads((gan_dir / "config.json").read_text())
        with torch.random.fork_rng(devices=[]):
            network = BigGAN(BigGANConfig.from_dict(settings)).eval()
        network.load_state_dict(load_file(gan_dir / "model.safetensors"))
        generator = make_generator(0)
        z = gan.sample_z(3, truncation=0.6, generator=generator)
        classes = torch.tensor([0, 3, 4])
        one_hot = torch.nn.functional.one_hot(classes, 5).float()
        ours = gan.decode(z, gan.embed(classes), truncation=1.0)
        theirs = network(z, one_hot, 1.0)
        assert ours.shape == (3, 3, 16, 16)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert ours.std() > 0.05

    def test_determinism(self, gan: BigGan) -> None:
        z = gan.sample_z(2, truncation=0.6, generator=make_generator(0))
        y = gan.embed(torch.tensor([1, 2]))
        first, second = (gan.decode(z, y, truncation=0.6) for _ in "ab")
        assert torch.equal(first, second)

    def test_pytorch_file_and_defaults(self, gan: BigGan, gan_dir: Path, tmp_path: Path) -> None:
        config = json.loads((gan_dir / "config.json").read_text())
        del config["class_names"], config["truncation"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        torch.save(load_file(gan_dir / "model.safetensors"), tmp_path / "pytorch_model.bin")
        other = load_biggan(tmp_path)
        assert other.class_names[1] == "class 1"
        assert other.truncation == 1.0
        y = gan.embed(torch.arange(5))
        assert torch.equal(other.embed(torch.arange(5)), y)
        z = torch.zeros(5, 6)
        assert torch.equal(gan.decode(z, y, truncation=0.5), other.decode(z, y, truncation=0.5))

    def test_sample_z(self, gan: BigGan) -> None:
        z = gan.sample_z(2_000, truncation=0.5, generator=make_generator(0))
        assert z.abs().max() <= 1.0
        assert float(z.std()) == pytest.approx(0.5 * gan.z_std, rel=0.02)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_computes_in_half_precision(self, gan_dir: Path, dtype: torch.dtype) -> None:
        """Nearly the same images and gradients, and nothing but them is in another dtype."""
        exact, rough = load_biggan(gan_dir), load_biggan(gan_dir)
        rough.to(dtype)
        z = exact.sample_z(2, truncation=0.6, generator=make_generator(1))
        y = exact.embed(torch.tensor([0, 1]))
        assert torch.equal(rough.embed(torch.tensor([0, 1])), y)
        assert rough.y_std == exact.y_std
        images, gradients = [], []
        for gan in (exact, rough):
            leaf = z.clone().requires_grad_()
            images.append(gan.decode(leaf, y, truncation=0.6))
            gradients.append(torch.autograd.grad(images[-1].square().sum(), leaf)[0])
        assert images[1].dtype == gradients[1].dtype == torch.float32
        assert not torch.equal(images[0], images[1])
        step = torch.finfo(dtype).eps
        torch.testing.assert_close(images[1], images[0], rtol=0, atol=4 * step)
        assert (gradients[1] - gradients[0]).norm() < 8 * step * gradients[0].norm()

    def test_gradient_reaches_z_and_y(self, gan: BigGan) -> None:
        z = torch.zeros(1, 6, requires_grad=True)
        y = gan.embed(torch.tensor([0])).requires_grad_()
        gan.decode(z, y, truncation=0.6).square().sum().backward()
        for block in (z, y):
            assert block.grad is not None
            assert (block.grad != 0).all()


class TestWrongFiles:
    @pytest.fixture
    def folder(self, gan_dir: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(gan_dir, tmp_path / "gan"))

    def test_no_folder(self, tmp_path: Path) -> None:
        for name in ("none", "none.pth"):
            said = rf"There is no folder or file .*{name}; check the name"
            with pytest.raises(CheckpointError, match=said):
                load_biggan(tmp_path / name)

    @pytest.mark.parametrize("name", ["config.json", "model.json"])
    def test_config_that_is_a_folder(self, folder: Path, name: str) -> None:
        (folder / "config.json").unlink()
        (folder / name).mkdir()
        with pytest.raises(CheckpointError, match=rf"{name} is a folder, but a file of settings"):
            load_biggan(folder)

    @pytest.mark.parametrize("kind", [torch.complex64, torch.int8, torch.bool])
    def test_weights_of_another_kind_of_number(self, folder: Path, kind: torch.dtype) -> None:
        state = load_file(folder / "model.safetensors")
        state["embeddings.weight"] = state["embeddings.weight"].to(kind)
        wrapped = {f"generator_ema.{name}": tensor for name, tensor in state.items()}
        save_file(wrapped, folder / "model.safetensors")
        with pytest.raises(
            CheckpointError, match=r"tensor generator_ema\.embeddings\.weight is of"
        ):
            load_biggan(folder)

    def test_weight_too_large_for_float32(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        state["embeddings.weight"] = torch.full((6, 5), 1e300, dtype=torch.float64)
        save_file(state, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"embeddings\.weight holds .* for float32"):
            load_biggan(folder)

    def test_no_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"no model.safetensors or pytorch_model.bin"):
            load_biggan(folder)

    def test_other_keys(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        state["other"] = state.pop("embeddings.weight")
        del state["generator.gen_z.weight_orig"]
        save_file(state, folder / "model.safetensors")
        message = r"2 missing \(embeddings.weight, generator.gen_z.weight_orig\); 1 unexpected"
        with pytest.raises(CheckpointError, match=message):
            load_biggan(folder)

    @pytest.mark.parametrize(
        "change", [{"layers": [[True, 16]]}, {"colour": 1}, {"n_stats": 1}, {"z_dim": "six"}]
    )
    def test_other_config(self, folder: Path, change: dict[str, object]) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match="does not describe a BigGAN"):
            load_biggan(folder)

    def test_other_size(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_classes": 6}))
        with pytest.raises(CheckpointError, match=r"1 reshaped \(embeddings.weight\)"):
            load_biggan(folder)

    def test_class_names(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "class_names": ["dog"]}))
        with pytest.raises(ConfigError, match="1 class names, but the GAN has 5 classes"):
            load_biggan(folder)
