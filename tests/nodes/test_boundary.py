"""Pictures in and out, progress, cancel."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest
import torch

SIDES = {"height": 12, "width": 9}


@pytest.fixture
def boundary(pack: SimpleNamespace) -> ModuleType:
    return pack.module("nodes._boundary")


@pytest.fixture
def errors(pack: SimpleNamespace) -> ModuleType:
    return pack.module("fusedream_core.errors")


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class TestImageToCore:
    def test_round_trip(self, boundary: ModuleType) -> None:
        image = picture(2, 12, 9, 3)
        core = boundary.image_to_core(image)
        assert core.shape == (2, 3, 12, 9)
        assert core.is_contiguous()
        torch.testing.assert_close(boundary.core_to_image(core), image)

    def test_value(self, boundary: ModuleType) -> None:
        image = torch.tensor([0.0, 0.5, 1.0]).expand(1, 8, 8, 3)
        core = boundary.image_to_core(image)
        assert core[0, :, 0, 0].tolist() == [-1.0, 0.0, 1.0]

    def test_leaves_its_input_alone(self, boundary: ModuleType) -> None:
        image = picture(1, 8, 8, 3) * 3 - 1
        before = image.clone()
        core = boundary.image_to_core(image)
        assert torch.equal(image, before)
        assert core.min() == -1.0
        assert core.max() == 1.0

    def test_alpha_is_laid_on_white(self, boundary: ModuleType) -> None:
        image = torch.zeros(1, 8, 8, 4)
        image[..., 3] = 0.25
        assert boundary.image_to_core(image).unique().tolist() == [0.5]  # 0.75 of white

    def test_grey_becomes_rgb(self, boundary: ModuleType) -> None:
        core = boundary.image_to_core(picture(2, 8, 8, 1))
        assert core.shape == (2, 3, 8, 8)
        assert torch.equal(core[:, 0], core[:, 2])

    def test_half_precision(self, boundary: ModuleType) -> None:
        assert boundary.image_to_core(picture(1, 8, 8, 3).half()).dtype == torch.float32

    def test_inference_tensor_becomes_a_normal_one(self, boundary: ModuleType) -> None:
        with torch.inference_mode():
            image = picture(1, 8, 8, 3)
            assert image.is_inference()
            with boundary.autograd_scope():
                core = boundary.image_to_core(image)
                weight = torch.ones((), requires_grad=True)
                (core * weight).sum().backward()
        assert weight.grad is not None

    @pytest.mark.parametrize(
        ("shape", "match"),
        [
            ((1, 1, 1, 3), "1 x 1 pixels"),
            ((1, 64, 7, 3), "7 x 64 pixels"),
            ((8, 8, 3), r"shape \(B, H, W, C\)"),
            ((1, 8, 8, 2), "2 channels"),
            ((0, 8, 8, 3), "empty"),
        ],
    )
    def test_exception(
        self, boundary: ModuleType, errors: ModuleType, shape: tuple[int, ...], match: str
    ) -> None:
        with pytest.raises(errors.ShapeError, match=match):
            boundary.image_to_core(torch.zeros(shape))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, boundary: ModuleType, errors: ModuleType, value: float) -> None:
        image = picture(3, 8, 8, 3)
        image[1, 2, 3, 0] = value
        with pytest.raises(errors.ImageError, match="Picture 2 of the batch"):
            boundary.image_to_core(image)

    def test_says_which_batch(self, boundary: ModuleType, errors: ModuleType) -> None:
        with pytest.raises(errors.ShapeError, match="The foreground is empty"):
            boundary.image_to_core(torch.zeros(0, 8, 8, 3), "foreground")
        with pytest.raises(errors.ShapeError, match="pictures of the foreground are 1 x 1"):
            boundary.image_to_core(torch.zeros(1, 1, 1, 3), "foreground")


class TestMasks:
    def test_round_trip(self, boundary: ModuleType) -> None:
        mask = picture(2, 12, 9)
        core = boundary.mask_to_core(mask, **SIDES)
        assert core.shape == (2, 1, 12, 9)
        assert torch.equal(boundary.core_to_mask(core), mask)

    def test_leaves_its_input_alone(self, boundary: ModuleType) -> None:
        with torch.inference_mode():
            mask = picture(12, 9) * 3 - 1
        before = mask.clone()
        core = boundary.mask_to_core(mask, **SIDES)
        assert core.shape == (1, 1, 12, 9)
        assert (float(core.min()), float(core.max())) == (0.0, 1.0)
        assert torch.equal(mask, before)

    @pytest.mark.parametrize(
        ("shape", "match"),
        [
            ((1, 64, 64), "The mask is 64 x 64 pixels, but the background is 9 x 12"),
            ((1, 9, 12), "The mask is 12 x 9 pixels"),
            ((0, 12, 9), r"shape \(B, H, W\)"),
            ((1, 12, 9, 3), r"shape \(B, H, W\)"),
        ],
    )
    def test_exception(
        self, boundary: ModuleType, errors: ModuleType, shape: tuple[int, ...], match: str
    ) -> None:
        with pytest.raises(errors.ShapeError, match=match):
            boundary.mask_to_core(torch.zeros(shape), **SIDES)

    @pytest.mark.parametrize("shape", [(1, 64, 64), (64, 64), (3, 64, 64)])
    @pytest.mark.parametrize("side", [12, 64])
    def test_the_mask_of_an_image_without_alpha(
        self, boundary: ModuleType, errors: ModuleType, shape: tuple[int, ...], side: int
    ) -> None:
        with pytest.raises(errors.ShapeError, match="Load Image gives for an image without alpha"):
            boundary.mask_to_core(torch.zeros(shape), height=side, width=side)

    def test_a_painted_mask_of_that_size(self, boundary: ModuleType) -> None:
        assert boundary.mask_to_core(torch.ones(1, 64, 64), height=64, width=64).all()

    def test_not_finite(self, boundary: ModuleType, errors: ModuleType) -> None:
        with pytest.raises(errors.ImageError, match="mask holds NaN"):
            boundary.mask_to_core(torch.full((1, 12, 9), float("nan")), **SIDES)


class TestCoreToImage:
    def test_clamps_and_detaches(self, boundary: ModuleType) -> None:
        core = (picture(1, 3, 8, 8) * 4 - 2).requires_grad_()
        image = boundary.core_to_image(core)
        assert image.shape == (1, 8, 8, 3)
        assert image.is_contiguous()
        assert not image.requires_grad
        assert image.dtype == torch.float32
        assert float(image.min()) >= 0.0
        assert float(image.max()) <= 1.0


class TestAutogradScope:
    def test_gradients_inside_inference_mode(self, boundary: ModuleType) -> None:
        with torch.inference_mode():
            with boundary.autograd_scope():
                x = torch.ones(3, requires_grad=True)
                (x * x).sum().backward()
            assert torch.is_inference_mode_enabled()
        assert x.grad is not None


class TestProgress:
    @pytest.fixture
    def sent(self, boundary: ModuleType) -> list[tuple[int, int, object]]:
        """What reaches ComfyUI's progress hook."""
        import comfy.utils

        calls: list[tuple[int, int, object]] = []
        previous = comfy.utils.PROGRESS_BAR_HOOK
        comfy.utils.set_progress_bar_global_hook(
            lambda value, total, preview, node_id=None: calls.append((value, total, preview))
        )
        yield calls
        comfy.utils.set_progress_bar_global_hook(previous)

    def step(self, pack: SimpleNamespace, step: int, total: int = 100) -> object:
        info = pack.module("fusedream_core.types").StepInfo
        return info("optimize", step, total, torch.zeros(1), picture(1, 3, 8, 8) * 2 - 1)

    def test_previews_are_few(
        self,
        pack: SimpleNamespace,
        boundary: ModuleType,
        sent: list[tuple[int, int, object]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clock = SimpleNamespace(now=100.0)
        monkeypatch.setattr(boundary.time, "monotonic", lambda: clock.now)
        progress = boundary.Progress()
        for step in range(1, 101):  # 2 s at 20 ms a step
            progress(self.step(pack, step))
            clock.now += 0.02
        previews = [preview for _, _, preview in sent if preview is not None]
        assert len(previews) == 4
        assert len(sent) <= 41
        assert sent[-1][:2] == (100, 100)
        kind, image, pixels = previews[0]
        assert kind == "JPEG"
        assert image.size == (8, 8)
        assert pixels == 512

    @pytest.mark.parametrize(
        ("argv", "prompt", "method", "sent_some"),
        [
            ([], None, "none", True),  # ComfyUI's default
            (["--preview-method", "none"], None, "none", False),
            (["--preview-method=none"], None, "none", False),
            (["--preview-method", "auto"], None, "auto", True),
            ([], "none", "none", False),
            ([], "default", "none", True),
            (["--preview-method", "auto"], "none", "none", False),
            (["--preview-method", "none"], "auto", "auto", True),  # newer cores write it there
        ],
    )
    def test_nobody_who_said_none_gets_previews(
        self,
        pack: SimpleNamespace,
        boundary: ModuleType,
        sent: list[tuple[int, int, object]],
        monkeypatch: pytest.MonkeyPatch,
        argv: list[str],
        prompt: str | None,
        method: str,
        sent_some: bool,
    ) -> None:
        """On the command line, or in the frontend's setting, which comes with the prompt."""
        from comfy.cli_args import LatentPreviewMethod, args
        from comfy_execution.utils import CurrentNodeContext

        monkeypatch.setattr(boundary.sys, "argv", ["main.py", *argv])
        monkeypatch.setattr(args, "preview_method", LatentPreviewMethod(method))
        extra = {} if prompt is None else {"preview_method": prompt}
        running = {
            0: (0, "another", {}, {"preview_method": "none"}, []),
            1: (1, "this", {}, extra, [], {}),
        }
        server = SimpleNamespace(prompt_queue=SimpleNamespace(currently_running=running))
        monkeypatch.setattr(boundary, "_server", lambda: server)
        with CurrentNodeContext("this", "7"):
            boundary.Progress()(self.step(pack, 1))
        assert [preview is not None for _, _, preview in sent] == [sent_some]

    def test_cancel(
        self, pack: SimpleNamespace, boundary: ModuleType, sent: list[tuple[int, int, object]]
    ) -> None:
        import comfy.model_management as management

        progress = boundary.Progress()
        progress(self.step(pack, 1))
        management.interrupt_current_processing(True)
        with pytest.raises(management.InterruptProcessingException):
            progress(self.step(pack, 2))


class TestShowText:
    def test_silent_outside_a_server(
        self, boundary: ModuleType, capsys: pytest.CaptureFixture[str]
    ) -> None:
        boundary.show_text("no server is listening")
        assert capsys.readouterr() == ("", "")
