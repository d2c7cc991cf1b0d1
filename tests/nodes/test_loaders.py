"""Which models are offered, and what bad files are answered with."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture
def folders(pack: SimpleNamespace, tiny_models: Path) -> ModuleType:
    return pack.module("nodes._folders")


@pytest.fixture
def errors(pack: SimpleNamespace) -> ModuleType:
    return pack.module("fusedream_core.errors")


@pytest.fixture
def scratch(tiny_models: Path) -> Iterator[Callable[[str], Path]]:
    """Makes model folders that go away after the test."""
    made: list[Path] = []

    def make(name: str) -> Path:
        path = tiny_models / name
        path.mkdir(parents=True)
        made.append(path)
        return path

    yield make
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


def listed(folders: ModuleType, key: str) -> list[str]:
    """The models that are there."""
    return [name for name in folders.list_models(key) if "(download, " not in name]


class TestRegisterFolders:
    def test_idempotent(self, folders: ModuleType) -> None:
        import folder_paths

        folders.register_folders()
        before = {key: list(folder_paths.get_folder_paths(key)) for key in ("gan", "open_clip")}
        for _ in range(3):
            folders.register_folders()
        after = {key: folder_paths.get_folder_paths(key) for key in ("gan", "open_clip")}
        assert before == after
        assert before["gan"] == [str(Path(folder_paths.models_dir) / "gan")]

    def test_keeps_extra_model_paths(
        self, folders: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import folder_paths

        # As extra_model_paths.yaml leaves it, which ComfyUI reads before any pack.
        monkeypatch.setitem(folder_paths.folder_names_and_paths, "gan", ([str(tmp_path)], set()))
        folders.register_folders()
        paths, extensions = folder_paths.folder_names_and_paths["gan"]
        assert paths == [str(tmp_path), str(Path(folder_paths.models_dir) / "gan")]
        assert ".safetensors" in extensions


class TestListModels:
    def test_demo_is_first(self, folders: ModuleType) -> None:
        assert listed(folders, "gan") == ["demo", "other", "tiny"]
        assert listed(folders, "open_clip") == ["demo", "other", "tiny"]
        assert listed(folders, "lpips") == ["demo", "tiny.safetensors"]

    def test_is_the_default(self, pack: SimpleNamespace) -> None:
        for node_id in ("FuseDreamLoadGAN", "FuseDreamLoadCLIP", "FuseDreamLoadLPIPS"):
            combo = pack.nodes[node_id].define_schema().inputs[0]
            assert combo.default == combo.options[0] == "demo"

    def test_nested_folders_and_bare_files(
        self, folders: ModuleType, tiny_models: Path, scratch: Callable[[str], Path]
    ) -> None:
        nested = scratch("gan/a/b")
        for name in ("config.json", "model.safetensors"):
            shutil.copy(tiny_models / "gan" / "tiny" / name, nested / name)
        (scratch("gan/bare") / "weights.bin").write_bytes(b"")
        assert listed(folders, "gan") == ["demo", "a/b", "bare/weights.bin", "other", "tiny"]
        assert folders.resolve_model("gan", "a/b") == nested

    def test_an_lpips_is_a_file_in_any_folder(
        self, folders: ModuleType, scratch: Callable[[str], Path]
    ) -> None:
        nested = scratch("lpips/v0.1")
        (nested / "alex.pth").write_bytes(b"")
        (nested / "config.json").write_text("{}", encoding="utf-8")  # makes no model of the folder
        assert listed(folders, "lpips") == ["demo", "tiny.safetensors", "v0.1/alex.pth"]
        assert folders.resolve_model("lpips", "v0.1/alex.pth") == nested / "alex.pth"

    def test_no_folder_at_all(
        self, folders: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import folder_paths

        monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "nowhere"))
        monkeypatch.setattr(folder_paths, "filename_list_cache", {})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, "gan", ([], set()))
        assert listed(folders, "gan") == ["demo"]
        assert not (tmp_path / "nowhere").exists()


class TestResolveModel:
    @pytest.mark.parametrize(
        "name", ["../open_clip/tiny", "/etc", "..", "tiny/../other", "", "tiny/config.json", "gone"]
    )
    def test_names_never_become_paths(
        self, folders: ModuleType, errors: ModuleType, name: str
    ) -> None:
        with pytest.raises(errors.CheckpointError, match="There is no model"):
            folders.resolve_model("gan", name)


class TestFingerprint:
    def test_does_not_fail(self, pack: SimpleNamespace, tiny_models: Path) -> None:
        gan, clip = pack.nodes["FuseDreamLoadGAN"], pack.nodes["FuseDreamLoadCLIP"]
        assert isinstance(gan.fingerprint_inputs(gan_name=None), str)  # a linked input
        assert isinstance(gan.fingerprint_inputs(gan_name="gone"), str)
        bare = clip.fingerprint_inputs(clip_name="tiny", architecture="")
        assert bare != clip.fingerprint_inputs(clip_name="tiny", architecture="ViT-B-32")
        lpips = pack.nodes["FuseDreamLoadLPIPS"]
        known = lpips.fingerprint_inputs(lpips_name="tiny.safetensors")
        assert known != lpips.fingerprint_inputs(lpips_name="gone")

    def test_no_folder_is_told(self, pack: SimpleNamespace, tiny_models: Path) -> None:
        """ComfyUI saves it in every picture, which people share."""
        found = pack.nodes["FuseDreamLoadGAN"].fingerprint_inputs(gan_name="tiny")
        assert re.fullmatch("[0-9a-f]{64}", found)


class TestDemo:
    def test_loads(self, run: Callable[..., Any], folders: ModuleType) -> None:
        if not folders.resolve_model("gan", "demo").is_dir():
            pytest.skip("the demo weights are not in this checkout yet")
        gan, clip = run("FuseDreamLoadGAN")[0], run("FuseDreamLoadCLIP")[0]
        assert len(gan.model.class_names) > 50
        assert clip.model.context_length > 8

    def test_precision(self, run: Callable[..., Any], gan: Any, clip: Any) -> None:  # noqa: ANN401
        """Another precision is another model, whose pictures and scores are float32 as well."""
        (rough,) = run("FuseDreamLoadGAN", gan_name="tiny", precision="bfloat16")
        assert rough is not gan
        assert run("FuseDreamLoadGAN", gan_name="tiny", precision="float32")[0] is gan
        assert gan.model.network.rgb_weight.dtype == torch.float32
        assert rough.model.network.rgb_weight.dtype == torch.bfloat16
        assert rough.model.class_weight.dtype == torch.float32
        (rough,) = run("FuseDreamLoadCLIP", clip_name="tiny", precision="float16")
        assert rough is not clip
        assert rough.model.encode_images(torch.zeros(1, 3, 8, 8)).dtype == torch.float32

    @pytest.mark.parametrize(
        ("device", "bf16", "fp16", "expected"),
        [
            ("cpu", True, True, torch.float32),
            ("mps", True, True, torch.float32),
            ("cuda", True, True, torch.bfloat16),
            ("cuda", False, True, torch.float16),
            ("cuda", False, False, torch.float32),
        ],
    )
    def test_automatic_precision(
        self,
        pack: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        device: str,
        bf16: bool,
        fp16: bool,
        expected: torch.dtype,
    ) -> None:
        import comfy.model_management as management

        monkeypatch.setattr(management, "get_torch_device", lambda: torch.device(device))
        monkeypatch.setattr(management, "should_use_bf16", lambda device: bf16)
        monkeypatch.setattr(management, "should_use_fp16", lambda device: fp16)
        models = pack.module("nodes._models")
        assert models.compute_dtype("auto") == expected
        assert models.compute_dtype("float16") == torch.float16

    def test_lpips_loads(self, run: Callable[..., Any]) -> None:
        (lpips,) = run("FuseDreamLoadLPIPS")
        pictures = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
        distance = lpips.model.distance_map(pictures, pictures.flip(0))
        assert distance.shape == (2, 1, 64, 64)
        assert float(distance.mean()) > 0.0


class TestBadFiles:
    def test_gan_file_without_config(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        bare = scratch("gan/bare")
        shutil.copy(tiny_models / "gan" / "tiny" / "model.safetensors", bare / "model.safetensors")
        with pytest.raises(errors.CheckpointError, match=r"put the config\.json that came with"):
            run("FuseDreamLoadGAN", gan_name="bare/model.safetensors")

    def test_truncated_weights(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        cut = scratch("gan/cut")
        source = tiny_models / "gan" / "tiny"
        shutil.copy(source / "config.json", cut / "config.json")
        whole = (source / "model.safetensors").read_bytes()
        (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(errors.CheckpointError, match="truncated"):
            run("FuseDreamLoadGAN", gan_name="cut")

    def test_pickle_that_is_not_weights(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        evil, witness = scratch("gan/evil"), tiny_models / "witness"
        shutil.copy(tiny_models / "gan" / "tiny" / "config.json", evil / "config.json")

        class Payload:
            def __reduce__(self) -> tuple[object, ...]:
                return Path.touch, (witness,)

        torch.save({"weight": Payload()}, evil / "pytorch_model.bin")
        with pytest.raises(errors.CheckpointError, match="refused"):
            run("FuseDreamLoadGAN", gan_name="evil")
        assert not witness.exists()

    def test_weights_of_another_model(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        mixed = scratch("gan/mixed")
        config = json.loads((tiny_models / "gan" / "tiny" / "config.json").read_text())
        config["z_dim"] = config["class_embed_dim"] = 8
        (mixed / "config.json").write_text(json.dumps(config))
        shutil.copy(tiny_models / "gan" / "tiny" / "model.safetensors", mixed)
        with pytest.raises(errors.CheckpointError, match="do not fit"):
            run("FuseDreamLoadGAN", gan_name="mixed")

    def test_clip_file_without_architecture(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        bare = scratch("open_clip/bare")
        shutil.copy(tiny_models / "open_clip" / "tiny" / "open_clip_model.safetensors", bare)
        (bare / "weights.pt").write_bytes(b"")
        with pytest.raises(errors.ConfigError, match="type its open_clip architecture"):
            run("FuseDreamLoadCLIP", clip_name="bare/open_clip_model.safetensors")
        with pytest.raises(errors.CheckpointError, match="cannot be read"):
            run("FuseDreamLoadCLIP", clip_name="bare/weights.pt")
        with pytest.raises(errors.ConfigError, match="no architecture 'ViT-Z'"):
            run("FuseDreamLoadCLIP", clip_name="bare/weights.pt", architecture=" ViT-Z ")

    def test_clip_folder_that_runs_code(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        evil = scratch("open_clip/evil")
        shutil.copytree(tiny_models / "open_clip" / "tiny", evil, dirs_exist_ok=True)
        config = json.loads((evil / "open_clip_config.json").read_text())
        text = {"hf_tokenizer_name": "evil", "tokenizer_kwargs": {"trust_remote_code": True}}
        config["model_cfg"]["text_cfg"].update(text)
        (evil / "open_clip_config.json").write_text(json.dumps(config))
        with pytest.raises(errors.CheckpointError, match="trust_remote_code, which is refused"):
            run("FuseDreamLoadCLIP", clip_name="evil")

    def test_clip_pickle_that_is_not_weights(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        evil = scratch("open_clip/evil")
        source = tiny_models / "open_clip" / "tiny" / "open_clip_config.json"
        shutil.copy(source, evil / "open_clip_config.json")
        (evil / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps({"weight": object()}))
        with pytest.raises(errors.CheckpointError):
            run("FuseDreamLoadCLIP", clip_name="evil")

    def test_lpips_of_another_model(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        wrong = scratch("lpips/wrong")
        shutil.copy(tiny_models / "gan" / "tiny" / "model.safetensors", wrong)
        with pytest.raises(errors.CheckpointError, match="none of the nets"):
            run("FuseDreamLoadLPIPS", lpips_name="wrong/model.safetensors")
        with pytest.raises(errors.CheckpointError, match="There is no model"):
            run("FuseDreamLoadLPIPS", lpips_name="../gan/tiny/model.safetensors")


class TestNeverDownloads:
    def test_local_models_need_no_network(
        self,
        run: Callable[..., Any],
        models_module: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        tiny_models: Path,
    ) -> None:
        import socket

        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a connection was opened")

        monkeypatch.setattr(socket, "create_connection", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        models_module._cache.clear()
        handles = [
            run("FuseDreamLoadGAN", gan_name="other")[0],
            run("FuseDreamLoadCLIP", clip_name="other")[0],
            run("FuseDreamLoadLPIPS", lpips_name="tiny.safetensors")[0],
        ]
        assert set(models_module._cache.values()) == set(handles)  # read anew, not found there

    @pytest.fixture
    def models_module(self, pack: SimpleNamespace) -> Iterator[ModuleType]:
        module = pack.module("nodes._models")
        kept = dict(module._cache)
        yield module
        module._cache.update(kept)


class TestCatalogue:
    @pytest.fixture
    def tiny_model(
        self, pack: SimpleNamespace, folders: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Any]:
        """A GAN in the catalogue that none of its places has."""
        data = pack.module("fusedream_core.models.catalogue")
        file = data.RemoteFile("model.safetensors", 3, (data.Source("http://127.0.0.1:9/x"),))
        config = data.RemoteFile("config.json", 0, (data.Source("http://127.0.0.1:9/y"),))
        model = data.CatalogueModel("offered", "gan", "Tiny", "MIT", 16, (config, file))
        monkeypatch.setattr(folders, "catalogue", lambda: (model,))
        yield model
        shutil.rmtree(folders.download_root("gan") / "offered", ignore_errors=True)

    def test_what_can_be_downloaded_is_marked_and_last(self, folders: ModuleType) -> None:
        names = folders.list_models("gan")
        assert names[-6] == "biggan-deep-128 (download, 201 MB, Apache-2.0)"
        offers = folders.list_models("open_clip")
        assert any("for research only" in name for name in offers if "MobileCLIP" in name)

    def test_downloaded_when_asked_for(
        self,
        pack: SimpleNamespace,
        folders: ModuleType,
        run: Callable[..., Any],
        tiny_model: Any,  # noqa: ANN401
        tiny_models: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        name = "offered (download, 3 MB, MIT)"
        assert folders.list_models("gan")[-1] == name
        asked: list[str] = []

        def download(model: Any, root: Path, *, progress: Callable[..., None]) -> Path:  # noqa: ANN401
            asked.append(model.name)
            progress(1, None)
            progress(2, 4)
            return Path(shutil.copytree(tiny_models / "gan" / "tiny", root / model.name))

        monkeypatch.setattr(pack.module("nodes._downloads"), "download_model", download)
        (first,) = run("FuseDreamLoadGAN", gan_name=name)
        (again,) = run("FuseDreamLoadGAN", gan_name=name)
        assert asked == ["offered"]
        assert first is again
        assert "offered" in folders.list_models("gan")
        assert name not in folders.list_models("gan")
        assert pack.nodes["FuseDreamLoadGAN"].validate_inputs(gan_name=name) is True

    def test_cancel(
        self,
        pack: SimpleNamespace,
        run: Callable[..., Any],
        tiny_model: Any,  # noqa: ANN401
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import comfy.model_management as management

        def download(_: Any, __: Path, *, progress: Callable[..., None]) -> None:  # noqa: ANN401
            progress(1, 4)
            raise AssertionError("it was not asked whether to go on")

        monkeypatch.setattr(pack.module("nodes._downloads"), "download_model", download)
        management.interrupt_current_processing(True)
        with pytest.raises(management.InterruptProcessingException):
            run("FuseDreamLoadGAN", gan_name="offered (download, 3 MB, MIT)")

    def test_no_place_has_it(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        folders: ModuleType,
        tiny_model: Any,  # noqa: ANN401
    ) -> None:
        with pytest.raises(
            errors.DownloadError, match=r"by hand, and save it as .*offered"
        ) as told:
            run("FuseDreamLoadGAN", gan_name="offered (download, 3 MB, MIT)")
        assert "http://127.0.0.1:9/y" in str(told.value)
        assert folders.list_models("gan")[-1] == "offered (download, 3 MB, MIT)"

    def test_unknown_names_are_told_at_once(self, pack: SimpleNamespace, tiny_models: Path) -> None:
        told = pack.nodes["FuseDreamLoadGAN"].validate_inputs(gan_name="gone (download, 3 MB, MIT)")
        assert "There is no model 'gone (download" in told

    def test_the_hubs_cache_is_looked_at_first(
        self,
        pack: SimpleNamespace,
        tiny_models: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        download = pack.module("fusedream_core.models.download")
        model = pack.module("fusedream_core.models.catalogue").find_model("ViT-B-32-laion2b")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        assert download.cached_folder(model) is None
        repository = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
        snapshot = repository / "snapshots" / "abc"
        shutil.copytree(tiny_models / "open_clip" / "tiny", snapshot)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
        assert download.cached_folder(model) == snapshot
        (snapshot / "open_clip_config.json").unlink()
        assert download.cached_folder(model) is None


class TestClipOfOtherMakers:
    def test_clip_of_transformers(
        self,
        run: Callable[..., Any],
        folders: ModuleType,
        tmp_path: Path,
        scratch: Callable[[str], Path],
    ) -> None:
        from transformers import CLIPConfig, CLIPModel

        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
        text = {**sizes, "num_attention_heads": 2, "max_position_embeddings": 20}
        vision = {**sizes, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        with torch.random.fork_rng(devices=[]):
            CLIPModel(config).save_pretrained(scratch("open_clip/by_transformers"))
        assert "by_transformers" in listed(folders, "open_clip")
        (clip,) = run("FuseDreamLoadCLIP", clip_name="by_transformers")
        assert clip.model.encode_text(["a dog"]).shape == (1, 8)
        assert clip.model.image_size == (16, 16)

    def test_clip_of_openai(
        self, run: Callable[..., Any], folders: ModuleType, scratch: Callable[[str], Path]
    ) -> None:
        from open_clip import CLIP

        vision = {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8}
        text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        with torch.random.fork_rng(devices=[]):
            state = CLIP(8, vision, text, quick_gelu=True).state_dict()
        numbers = {"input_resolution": 16, "context_length": 77, "vocab_size": 49408}
        state.update((name, torch.tensor(number)) for name, number in numbers.items())
        torch.save(state, scratch("open_clip/openai") / "ViT-B-32.pt")
        assert "openai/ViT-B-32.pt" in listed(folders, "open_clip")
        (clip,) = run("FuseDreamLoadCLIP", clip_name="openai/ViT-B-32.pt")
        assert clip.model.clip_id.startswith("openai-")
        assert clip.model.encode_text(["a dog"]).shape == (1, 8)


class TestOtherFolders:
    def test_a_whole_open_clip_is_found_and_nothing_else(
        self, folders: ModuleType, tiny_models: Path, scratch: Callable[[str], Path]
    ) -> None:
        from safetensors.torch import save_file

        place = scratch("clip_vision")
        weights = tiny_models / "open_clip" / "tiny" / "open_clip_model.safetensors"
        shutil.copy(weights, place / "whole.safetensors")
        save_file({"visual.conv1.weight": torch.zeros(1)}, place / "vision.safetensors")
        (place / "broken.safetensors").write_bytes(b"abc")
        assert [name for name in listed(folders, "open_clip") if "/" in name] == [
            "clip_vision/whole.safetensors"
        ]
        found = folders.resolve_model("open_clip", "clip_vision/whole.safetensors")
        assert found == place / "whole.safetensors"


LOADERS = {
    "FuseDreamLoadGAN": "gan_name",
    "FuseDreamLoadCLIP": "clip_name",
    "FuseDreamLoadLPIPS": "lpips_name",
    "FuseDreamLoadLatent": "latent_name",
}


@pytest.mark.parametrize(("node_id", "widget"), LOADERS.items())
class TestLinkedNames:
    """A name that comes by a link is None when ComfyUI validates a prompt."""

    def test_pass_validation(
        self, pack: SimpleNamespace, tiny_models: Path, node_id: str, widget: str
    ) -> None:
        assert pack.nodes[node_id].validate_inputs(**{widget: None}) is True

    def test_may_come_from_a_text(
        self, pack: SimpleNamespace, tiny_models: Path, node_id: str, widget: str
    ) -> None:
        from comfy_execution.validation import validate_node_input

        section = pack.nodes[node_id].INPUT_TYPES()["required"]
        type_, options = section[widget]
        assert validate_node_input("STRING", type_)
        assert validate_node_input("COMBO", type_)
        assert not validate_node_input("INT", type_)
        assert options["widgetType"] == "COMBO"

    @pytest.mark.parametrize("value", [None, 5, 0.5, True, ["demo"], {"name": "demo"}])
    def test_what_is_no_text_is_refused_when_it_runs(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        node_id: str,
        widget: str,
        value: object,
    ) -> None:
        with pytest.raises(errors.ConfigError, match=f"{widget} is .*, but it must be a text"):
            run(node_id, **{widget: value})

    def test_a_wrong_one_is_refused_when_it_runs(
        self,
        run: Callable[..., Any],
        errors: ModuleType,
        tiny_models: Path,
        node_id: str,
        widget: str,
    ) -> None:
        with pytest.raises(errors.CheckpointError, match=r"There is no .* 'gone'"):
            run(node_id, **{widget: "gone"})


@pytest.mark.parametrize("key", ["gan", "open_clip", "lpips"])
def test_a_linked_name_follows_every_model(
    folders: ModuleType, scratch: Callable[[str], Path], key: str
) -> None:
    """Which of them is meant is not known before the prompt runs."""
    before = folders.fingerprint(key, None)
    assert folders.fingerprint(key, None) == before
    (scratch(f"{key}/new") / "weights.safetensors").write_bytes(b"1")
    assert folders.fingerprint(key, None) != before
