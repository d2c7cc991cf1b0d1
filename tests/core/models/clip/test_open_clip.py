from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fusedream_core import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    OpenClip,
    load_open_clip,
    load_open_clip_file,
    load_open_clip_folder,
    make_generator,
)
from fusedream_core.images import to_pil


class TestOpenClip:
    def test_smoke(self, clip: OpenClip) -> None:
        assert clip.clip_id.startswith("open_clip-")
        assert clip.image_size == (16, 16)
        assert clip.context_length == 8
        assert clip.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
        assert not any(p.requires_grad for p in clip.parameters())

    def test_encode_images(self, clip: OpenClip, images: Tensor) -> None:
        pixels = ((images + 1) / 2 - clip.mean) / clip.std
        expected = F.normalize(clip.model.encode_image(pixels), dim=-1)
        torch.testing.assert_close(clip.encode_images(images), expected)

    @pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
    @pytest.mark.parametrize(
        "size", [(16, 16), (40, 40), (30, 50), (9, 12), (20, 17), (17, 20), (31, 16), (1, 1)]
    )
    def test_same_as_open_clip(
        self, clip: OpenClip, mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        monkeypatch.setattr(clip, "_resize_mode", mode)
        coarse = torch.rand(1, 3, 4, 4, generator=make_generator(0)) * 1.6 - 0.8
        images = F.interpolate(coarse, size, mode="bilinear")
        pil: Image.Image = to_pil(images)[0]
        config = PreprocessCfg(**{**clip.model.visual.preprocess_cfg, "resize_mode": mode})
        transform = image_transform_v2(config, is_train=False)
        theirs = transform(pil)[None] * clip.std + clip.mean
        ours = (clip._resize(images) + 1) / 2
        assert ours.shape == (1, 3, 16, 16)
        assert float((ours - theirs).abs().max()) < 0.02  # 8-bit rounding, twice

    @pytest.mark.parametrize("mode", ["squash", "longest"])
    def test_resize_modes(self, clip: OpenClip, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clip, "_resize_mode", mode)
        resized = clip._resize(torch.ones(1, 3, 10, 20))
        assert resized.shape == (1, 3, 16, 16)
        rows = resized[0, 0, :, 0]
        expected = [1.0] * 16 if mode == "squash" else [-1.0] * 4 + [1.0] * 8 + [-1.0] * 4
        torch.testing.assert_close(rows, torch.tensor(expected))

    @pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
    @pytest.mark.parametrize("size", [(16, 16), (40, 24), (9, 30)])
    def test_resizing(
        self, clip: OpenClip, mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clip, "_resize_mode", mode)
        monkeypatch.setattr(clip, "_fill", 0.0)
        images = torch.rand(2, 3, *size, generator=make_generator(0)) * 2 - 1
        matrices = clip.resizing(*size)
        assert matrices is not None
        resized = matrices[0] @ images @ matrices[1].T
        assert resized.shape[-2:] == clip.image_size
        torch.testing.assert_close(clip.encode_images(resized), clip.encode_images(images))

    def test_no_matrix_adds_a_border_of_another_colour(
        self, clip: OpenClip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clip, "_resize_mode", "longest")
        monkeypatch.setattr(clip, "_fill", -1.0)
        assert clip.resizing(40, 24) is None
        assert clip.resizing(40, 40) is not None

    def test_unit_norm_and_precision(
        self, clip: OpenClip, clip64: OpenClip, images: Tensor
    ) -> None:
        for model, dtype in ((clip, torch.float32), (clip64, torch.float64)):
            for features in (model.encode_images(images), model.encode_text(["a", "a dog"])):
                assert features.dtype == dtype
                torch.testing.assert_close(
                    features.norm(dim=-1), torch.ones(len(features)).to(dtype)
                )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(
        self, clip: OpenClip, clip_dir: Path, images: Tensor, dtype: torch.dtype
    ) -> None:
        rough = load_open_clip_folder(clip_dir)
        rough.to(dtype)
        features = rough.encode_images(images)
        assert features.dtype == torch.float32
        assert not torch.equal(features, clip.encode_images(images))
        step = torch.finfo(dtype).eps
        torch.testing.assert_close(features, clip.encode_images(images), rtol=0, atol=4 * step)
        assert torch.equal(rough.encode_text(["a dog"]), clip.encode_text(["a dog"]))

    def test_gradient(self, clip: OpenClip, images: Tensor) -> None:
        images.requires_grad_()
        clip.encode_images(images)[:, 0].sum().backward()
        assert images.grad is not None
        assert (images.grad != 0).any(dim=1).all()

    def test_the_same_texts_are_encoded_once(
        self, clip: OpenClip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches: list[int] = []
        encode = clip.model.encode_text

        def spy(tokens: Tensor) -> Tensor:
            batches.append(len(tokens))
            return encode(tokens)

        monkeypatch.setattr(clip, "_texts", {})
        monkeypatch.setattr(clip.model, "encode_text", spy)
        first = clip.encode_text(["a dog", "a cat"])
        expected = first.clone()
        first.zero_()  # callers may modify the result
        assert torch.equal(clip.encode_text(["a dog", "a cat"]), expected)
        clip.encode_text(["a dog"])  # rounding depends on the batch
        assert batches == [2, 1]
        monkeypatch.setattr("fusedream_core.models.clip.open_clip._MAX_CACHED_CALLS", 2)
        for text in ("a", "b"):
            clip.encode_text([text])
        assert len(clip._texts) <= 2

    def test_truncates(self, clip: OpenClip) -> None:
        # room for 8 tokens: 6 words between the marks
        assert not clip.truncates("a a a a a a")
        assert clip.truncates("a a a a a a a")
        features = clip.encode_text(["a a a a a a", "a a a a a a dog", "a a a a a dog"])
        assert torch.equal(features[0], features[1])
        assert not torch.equal(features[0], features[2])


class TestLoadFolder:
    def test_no_network(self, clip_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("the network was used")

        monkeypatch.setattr("socket.socket.connect", refuse)
        features = load_open_clip_folder(clip_dir).encode_text(["a dog"])
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(1))

    def test_name_follows_content(self, clip: OpenClip, clip_dir: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(clip_dir, tmp_path / "renamed")
        assert load_open_clip_folder(copy).clip_id == clip.clip_id

    def test_no_weights(self, clip_dir: Path, tmp_path: Path) -> None:
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        with pytest.raises(CheckpointError, match=r"holds no open_clip_model.safetensors or"):
            load_open_clip_folder(tmp_path)

    def test_truncated(self, clip_dir: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(clip_dir, tmp_path / "clip"))
        path = folder / "open_clip_model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match="may be truncated"):
            load_open_clip_folder(folder)

    def test_other_config(self, clip_dir: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(clip_dir, tmp_path / "clip"))
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["model_cfg"]["vision_cfg"]["layers"] = 2
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"12 missing \(visual.transformer.resblocks.1"):
            load_open_clip_folder(folder)

    def test_code_is_refused(self, clip_dir: Path, tmp_path: Path) -> None:
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        torch.save({"weight": Path("not a tensor")}, tmp_path / "open_clip_pytorch_model.bin")
        with pytest.raises(CheckpointError, match="is refused"):
            load_open_clip_folder(tmp_path)


class TestWeightsInAFolder:
    """Whatever the file is called, and whatever it is wrapped in."""

    @pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors"])
    def test_another_name(self, clip: OpenClip, clip_dir: Path, tmp_path: Path, name: str) -> None:
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        shutil.copy(clip_dir / "open_clip_model.safetensors", tmp_path / name)
        same(load_open_clip_folder(tmp_path), clip)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "epoch_32.pt", "last.pth"])
    @pytest.mark.parametrize(
        "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "clip.", "model.module."]
    )
    @pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
    def test_wrapped(
        self,
        clip: OpenClip,
        clip_dir: Path,
        tmp_path: Path,
        name: str,
        prefix: str,
        wrapper: str | None,
    ) -> None:
        from safetensors.torch import load_file

        state = load_file(clip_dir / "open_clip_model.safetensors")
        content: dict[str, Any] = {f"{prefix}{key}": value for key, value in state.items()}
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        torch.save({wrapper: content, "epoch": 32} if wrapper else content, tmp_path / name)
        same(load_open_clip_folder(tmp_path), clip)

    def test_several_files(self, clip: OpenClip, clip_dir: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        state = load_file(clip_dir / "open_clip_model.safetensors")
        names = sorted(state)
        parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, part in parts.items():
            save_file({name: state[name] for name in part}, tmp_path / file)
        places = {name: file for file, part in parts.items() for name in part}
        index = tmp_path / "open_clip_model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        loaded = load_open_clip_folder(tmp_path)
        same(loaded, clip)
        save_file({name: state[name] * 2 for name in names[1::2]}, tmp_path / "b.safetensors")
        assert load_open_clip_folder(tmp_path).clip_id != loaded.clip_id

    def test_nothing_in_it(self, clip_dir: Path, tmp_path: Path) -> None:
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        torch.save({}, tmp_path / "open_clip_pytorch_model.bin")
        with pytest.raises(CheckpointError, match="no state dict"):
            load_open_clip_folder(tmp_path)

    def test_not_a_number(self, clip_dir: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        state = load_file(clip_dir / "open_clip_model.safetensors")
        state["visual.proj"][3, 4] = float("nan")
        save_file(state, tmp_path / "open_clip_model.safetensors")
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        with pytest.raises(CheckpointError, match=r"visual.proj holds numbers that are not finite"):
            load_open_clip_folder(tmp_path)

    @pytest.mark.parametrize("kind", ["complex64", "int8", "int64", "bool"])
    def test_weights_of_another_kind_of_number(
        self, kind: str, clip_dir: Path, tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        state = load_file(clip_dir / "open_clip_model.safetensors")
        state["visual.proj"] = state["visual.proj"].to(getattr(torch, kind))
        save_file(state, tmp_path / "open_clip_model.safetensors")
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        with pytest.raises(CheckpointError, match=rf"its tensor visual\.proj is of {kind}"):
            load_open_clip_folder(tmp_path)

    def test_what_does_not_fit_is_named(self, clip_dir: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        state = load_file(clip_dir / "open_clip_model.safetensors")
        state["visual.proj"] = torch.zeros(32, 13)
        state["extra.one"] = state.pop("visual.ln_pre.weight")
        save_file(state, tmp_path / "open_clip_model.safetensors")
        shutil.copy(clip_dir / "open_clip_config.json", tmp_path)
        with pytest.raises(
            CheckpointError,
            match=r"1 missing \(visual.ln_pre.weight\); 1 unexpected \(extra.one\); "
            r"1 reshaped \(visual.proj is \(32, 13\), not \(32, 12\)\)",
        ):
            load_open_clip_folder(tmp_path)


def same(loaded: OpenClip, clip: OpenClip) -> None:
    """Both give the same features."""
    images = torch.rand(1, 3, 16, 16, generator=make_generator(0)) * 2 - 1
    assert torch.equal(loaded.encode_images(images), clip.encode_images(images))
    assert torch.equal(loaded.encode_text(["a dog"]), clip.encode_text(["a dog"]))


@pytest.fixture
def tiny(clip_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bare weights of an architecture ``Tiny`` that open_clip knows, with one tag."""
    import open_clip

    model = json.loads((clip_dir / "open_clip_config.json").read_text())["model_cfg"]
    entry = open_clip.get_pretrained_cfg("MobileCLIP2-S0", "dfndr2b")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", model)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", {"one": entry})
    return clip_dir / "open_clip_model.safetensors"


class TestLoadFile:
    def test_preprocessing_is_that_of_the_tables(self, tiny: Path) -> None:
        clip = load_open_clip_file(tiny, "Tiny")
        assert clip.mean.flatten().tolist() == [0, 0, 0]
        assert clip.std.flatten().tolist() == [1, 1, 1]
        assert clip._interpolation == "bilinear"
        assert load_open_clip("Tiny", str(tiny)).clip_id == clip.clip_id

    def test_no_network(self, tiny: Path, no_network: list[object]) -> None:
        load_open_clip_file(tiny, "Tiny/one")
        with pytest.raises(CheckpointError, match=r"needs the tokenizer 'timm/ViT-B-16-SigLIP'"):
            load_open_clip_file(tiny, "ViT-B-16-SigLIP")
        assert not no_network

    def test_what_it_is_must_be_said(self, tiny: Path) -> None:
        with pytest.raises(ConfigError, match="type its open_clip architecture, such as Tiny"):
            load_open_clip_file(tiny)

    def test_another_architecture(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import open_clip

        other = open_clip.get_model_config("Tiny")
        other["text_cfg"]["width"] = 32  # within open_clip this ends in an AssertionError
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Other", other)
        tags = open_clip.pretrained._PRETRAINED["Tiny"]
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Other", tags)
        with pytest.raises(CheckpointError, match=r"\d+ reshaped \(.*\); they fit Tiny\."):
            load_open_clip_file(tiny, "Other")

    def test_unknown_name_is_said_before_the_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pt"
        path.write_bytes(b"")
        with pytest.raises(ConfigError, match="it has ViT-B-32"):
            load_open_clip_file(path, "ViT-B/32")

    def test_file_that_the_tables_know(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import open_clip

        digest = hashlib.sha256(tiny.read_bytes()).hexdigest()
        entry = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_e16")
        url = f"https://github.com/mlfoundations/open_clip/releases/tiny-{digest[:8]}.pt"
        tags = {"known": {**entry, "url": url}}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", tags)
        clip = load_open_clip_file(tiny)
        assert clip.clip_id == f"Tiny/{digest[:12]}"
        assert clip.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])


class TestLoadByName:
    @pytest.mark.parametrize("version", ["2.32.0", "2.9.3", "unknown"])
    def test_too_old_an_open_clip(
        self, clip_dir: Path, monkeypatch: pytest.MonkeyPatch, version: str
    ) -> None:
        monkeypatch.setattr("open_clip.__version__", version)
        for load in (
            lambda: load_open_clip_folder(clip_dir),
            lambda: load_open_clip_file(clip_dir / "open_clip_model.safetensors"),
            lambda: load_open_clip("ViT-B-32", "openai"),
        ):
            with pytest.raises(MissingDependencyError, match=f"is {version}, but 3.0 or newer"):
                load()

    def test_unknown_architecture(self) -> None:
        with pytest.raises(ConfigError, match="open_clip has no architecture 'ViT-B-33'; it has"):
            load_open_clip("ViT-B-33", "openai")

    def test_openai_needs_its_own_activation(self) -> None:
        with pytest.raises(ConfigError, match="made for ViT-B-32-quickgelu"):
            load_open_clip("ViT-B-32", "openai")

    def test_tokenizer_that_cannot_be_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> None:
            raise OSError("")

        monkeypatch.setattr("open_clip.create_model", offline)
        with pytest.raises(CheckpointError, match=r"cannot be loaded \(OSError: no reason given\)"):
            load_open_clip("ViT-B-16-SigLIP", "webli")

    def test_unknown_tag(self) -> None:
        with pytest.raises(CheckpointError, match="'ViT-B-32' with the weights 'nobody'"):
            load_open_clip("ViT-B-32", "nobody")


@pytest.mark.parametrize("architecture", ["", "ViT-B-32-quickgelu"])
def test_file_that_holds_no_clip(gan_dir: Path, architecture: str) -> None:
    """Nobody is asked for the architecture of a GAN."""
    with pytest.raises(CheckpointError, match=r"model\.safetensors holds no CLIP \(its first"):
        load_open_clip_file(gan_dir / "model.safetensors", architecture)
