"""The cache, the memory manager, and weights fit for gradients."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn


@pytest.fixture
def models(pack: SimpleNamespace) -> ModuleType:
    return pack.module("nodes._models")


def spoil(module: nn.Module) -> None:
    """What a move to a GPU and back does under ComfyUI's inference mode, on a CPU: a cast."""
    with torch.inference_mode():
        module.double().float()


def inference_tensors(module: nn.Module) -> list[str]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in named if tensor.is_inference()]


class TestCache:
    def test_two_loaders_share_one_module(
        self, run: Callable[..., Any], gan: object, clip: object
    ) -> None:
        assert run("FuseDreamLoadGAN", gan_name="tiny")[0] is gan
        assert run("FuseDreamLoadCLIP", clip_name="tiny")[0] is clip
        assert run("FuseDreamLoadGAN", gan_name="other")[0] is not gan

    def test_a_second_path_to_the_same_file_shares_too(
        self, run: Callable[..., Any], gan: object, tiny_models: Path
    ) -> None:
        link = tiny_models / "gan" / "linked"
        try:
            link.symlink_to(tiny_models / "gan" / "tiny", target_is_directory=True)
        except OSError:
            pytest.skip("no symbolic links here")
        try:
            assert run("FuseDreamLoadGAN", gan_name="linked")[0] is gan
        finally:
            link.unlink()

    def test_freed_with_its_last_handle(self, run: Callable[..., Any], models: ModuleType) -> None:
        import comfy.model_management as management

        (handle,) = run("FuseDreamLoadGAN", gan_name="other")
        with models.autograd_scope():
            models.use_models(handle)
        module, patcher = weakref.ref(handle.model), weakref.ref(handle.patcher)
        weights = weakref.ref(next(handle.model.parameters()))
        management.unload_all_models()  # POST /free {"unload_models": true}
        assert module() is not None
        del handle  # POST /free {"free_memory": true} drops the cached outputs
        gc.collect()
        assert module() is None
        assert patcher() is None
        assert weights() is None

    def test_freed_while_the_manager_still_lists_it(
        self, run: Callable[..., Any], models: ModuleType
    ) -> None:
        (handle,) = run("FuseDreamLoadGAN", gan_name="other")
        with models.autograd_scope():
            models.use_models(handle)
        module = weakref.ref(handle.model)
        del handle
        gc.collect()
        assert module() is None

    def test_memory_goes_back_once_the_weights_are_gone(
        self, run: Callable[..., Any], models: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The C library kept the weights' memory for itself."""
        (handle,) = run("FuseDreamLoadGAN", gan_name="other")
        weights = weakref.ref(next(handle.model.parameters()))
        left: list[object] = []
        monkeypatch.setattr(models, "_return_memory", lambda: left.append(weights()))
        del handle
        gc.collect()
        assert left == [None]

    def test_a_handle_that_another_thread_finds_while_it_goes(
        self, run: Callable[..., Any], models: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was handed out again, without its model."""
        found: list[Any] = []

        def load_again() -> None:
            monkeypatch.setattr(models, "_return_memory", lambda: None)
            found.append(run("FuseDreamLoadGAN", gan_name="other", precision="float32")[0])

        (handle,) = run("FuseDreamLoadGAN", gan_name="other", precision="float32")
        monkeypatch.setattr(models, "_return_memory", load_again)
        del handle
        gc.collect()
        assert found[0].is_alive
        assert found[0].model.resolution == 32

    def test_changed_file_is_read_again(
        self, run: Callable[..., Any], tiny_models: Path, pack: SimpleNamespace
    ) -> None:
        folder = tiny_models / "gan" / "changing"
        shutil.copytree(tiny_models / "gan" / "tiny", folder)
        node = pack.nodes["FuseDreamLoadGAN"]
        try:
            first = run("FuseDreamLoadGAN", gan_name="changing")[0]
            print_before = node.fingerprint_inputs(gan_name="changing")
            assert print_before == node.fingerprint_inputs(gan_name="changing")
            weights = tiny_models / "gan" / "other" / "model.safetensors"
            shutil.copy(weights, folder / "model.safetensors")
            assert node.fingerprint_inputs(gan_name="changing") != print_before
            second = run("FuseDreamLoadGAN", gan_name="changing")[0]
            assert second is not first
            assert second.model.gan_id != first.model.gan_id
        finally:
            shutil.rmtree(folder)

    def test_a_failed_load_leaves_nothing(self, models: ModuleType) -> None:
        def fail() -> nn.Module:
            raise OSError("disk full")

        before = len(models._cache)
        with pytest.raises(OSError, match="disk full"):
            models.load_managed("key", "name", fail)
        assert len(models._cache) == before


class TestUseModels:
    def test_one_request_for_all(
        self,
        models: ModuleType,
        gan: object,
        clip: object,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import comfy.model_management as management

        requests = []
        monkeypatch.setattr(
            management, "load_models_gpu", lambda *args, **kwargs: requests.append((args, kwargs))
        )
        with torch.inference_mode(), models.autograd_scope():
            assert models.use_models(gan, clip, activation_bytes=7) == (gan.model, clip.model)
        ((patchers,), options) = requests.pop()
        assert patchers == [gan.patcher, clip.patcher]
        assert options == {"memory_required": 7, "force_full_load": True}
        assert not requests

    def test_heals_what_another_node_moved(
        self, models: ModuleType, gan: object, clip: object
    ) -> None:
        for handle in (gan, clip):
            spoil(handle.model)
            assert inference_tensors(handle.model)  # or this test shows nothing
        with torch.inference_mode(), models.autograd_scope():
            generator, encoder = models.use_models(gan, clip)
            z = torch.zeros(1, generator.dim_z, requires_grad=True)
            y = generator.embed(torch.tensor([0]))
            encoder.encode_images(generator.decode(z, y, truncation=0.5)).sum().backward()
        assert z.grad is not None
        assert not inference_tensors(gan.model)
        assert not inference_tensors(clip.model)

    def test_without_healing_the_backward_pass_fails(self, gan: object) -> None:
        spoil(gan.model)
        z = torch.zeros(1, gan.model.dim_z, requires_grad=True)
        y = torch.zeros(1, gan.model.dim_y)
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
            gan.model.decode(z, y, truncation=0.5).sum().backward()

    def test_must_be_called_in_the_scope(self, models: ModuleType, gan: object) -> None:
        with torch.inference_mode(), pytest.raises(RuntimeError, match="autograd_scope"):
            models.use_models(gan)

    def test_wrong_socket_value(self, models: ModuleType, pack: SimpleNamespace) -> None:
        config_error = pack.module("fusedream_core.errors").ConfigError
        with pytest.raises(config_error, match="FuseDream loader node, got str"):
            models.use_models("a checkpoint of another pack")


class TestSettle:
    def test_moves_what_the_manager_left(self, models: ModuleType) -> None:
        module = nn.Sequential(nn.BatchNorm1d(3), nn.PReLU())
        module[1].to("meta")
        models.settle(module, torch.device("meta"))
        tensors = [*module.parameters(), *module.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"meta"}

    def test_tied_weights_stay_tied(self, models: ModuleType) -> None:
        with torch.inference_mode():
            first, second = nn.PReLU(), nn.PReLU()
        second.weight = first.weight
        module = nn.Sequential(first, second)
        models.settle(module, torch.device("cpu"))
        assert not inference_tensors(module)
        assert module[0].weight is module[1].weight

    def test_leaves_good_tensors_alone(self, models: ModuleType) -> None:
        module = nn.BatchNorm1d(3)
        before = [*module.parameters(), *module.buffers()]
        models.settle(module, torch.device("cpu"))
        after = [*module.parameters(), *module.buffers()]
        assert all(a is b for a, b in zip(before, after, strict=True))

    @pytest.mark.parametrize(
        ("here", "there", "same"),
        [
            ("cuda:0", "cuda", True),
            ("mps:0", "mps", True),
            ("cuda:0", "cuda:1", False),
            ("cpu", "cuda", False),
            ("cpu", "cpu", True),
        ],
    )
    def test_devices(self, models: ModuleType, here: str, there: str, same: bool) -> None:
        tensor = SimpleNamespace(device=torch.device(here))
        assert models._is_on(tensor, torch.device(there)) is same


class TestActivationBytes:
    def test_grows_with_the_work(self, models: ModuleType, gan: object, clip: object) -> None:
        one = models.activation_bytes(gan, clip, images=1)
        assert 0 < one < models.activation_bytes(gan, clip, images=2)
        assert one < models.activation_bytes(gan, clip, images=1, augments=16)
        assert one < models.activation_bytes(gan, clip, images=1, gradients=True)
        assert models.activation_bytes(None, clip, images=1) < one

    def test_grows_with_what_is_scored_and_compared(
        self, models: ModuleType, gan: object, clip: object, lpips: object
    ) -> None:
        scored = models.activation_bytes(gan, clip, images=2)
        assert models.activation_bytes(gan, None, images=2) < scored
        compared = models.activation_bytes(gan, clip, lpips, images=2)
        assert scored < compared
        assert compared < models.activation_bytes(gan, clip, lpips, images=2, gradients=True)

    def test_a_clip_tells_what_it_keeps(self, models: ModuleType) -> None:
        large = SimpleNamespace(
            model=SimpleNamespace(image_size=(224, 224), activation_floats=10**9)
        )
        assert models.activation_bytes(None, large, images=2, gradients=True) == 8 * 10**9
        assert models.activation_bytes(None, large, images=2) < 10**9

    def test_models_that_do_not_tell_their_size(self, models: ModuleType) -> None:
        bare = SimpleNamespace(model=object())
        assert models.activation_bytes(bare, bare, images=1) > 0


class TestFitBatch:
    @pytest.mark.parametrize(
        ("most", "each", "expected"), [(6, 10, 6), (6, 300, 3), (6, 5_000, 1), (1, 1, 1)]
    )
    def test_value(
        self,
        models: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        most: int,
        each: int,
        expected: int,
    ) -> None:
        import comfy.model_management as management

        monkeypatch.setattr(management, "get_total_memory", lambda device: 1_500)
        assert models.fit_batch(most, each) == expected

    @pytest.mark.parametrize("graphs", [1, 3])
    def test_plan(
        self,
        models: ModuleType,
        gan: object,
        clip: object,
        lpips: object,
        monkeypatch: pytest.MonkeyPatch,
        graphs: int,
    ) -> None:
        """Rows and views each fill at most half of the memory, and are what is asked for."""
        import comfy.model_management as management

        row = models.activation_bytes(gan, None, lpips, images=2, gradients=True)
        view = graphs * models.activation_bytes(None, clip, images=1, gradients=True)
        memory = 5 * row / 0.7
        monkeypatch.setattr(management, "get_total_memory", lambda device: memory)
        rows, views, needed = models.plan_batches(
            gan, clip, lpips, most=9, images=2, augments=4, graphs=graphs
        )
        assert rows == 2
        assert 1 <= views <= rows * 4
        assert 2 * views * view <= 5 * row or views == 1
        assert needed == rows * row + views * view


class TestManaged:
    def test_frozen(self, gan: object, clip: object) -> None:
        for handle in (gan, clip):
            assert not handle.model.training
            assert not any(p.requires_grad for p in handle.model.parameters())

    def test_tells_comfyui_its_size(self, gan: object) -> None:
        weights = sum(p.numel() * p.element_size() for p in gan.model.parameters())
        assert gan.get_ram_usage() >= weights

    def test_reads_well_in_messages(self, gan: object) -> None:
        assert str(gan) == "tiny"
        assert "tiny" in repr(gan)
