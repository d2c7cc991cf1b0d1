"""The node that makes one picture of two, on tiny models, in ComfyUI's inference mode."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., Any]
Inputs = dict[str, Any]
PRE_SEARCH = 3 + 9  # pictures of the one basis, and places
OUTPUTS = (
    "composite",
    "mask",
    "foreground",
    "background",
    "latent",
    "score",
    "placement",
    "report",
)


@pytest.fixture
def errors(pack: SimpleNamespace) -> ModuleType:
    return pack.module("fusedream_core.errors")


@pytest.fixture
def inputs(gan: object, clip: object, target: object, basis: object, lpips: object) -> Inputs:
    bases = {"foreground": basis, "background": basis}
    models = {"gan": gan, "clip": clip, "target": target, "lpips": lpips}
    return {**models, **bases, "num_steps": 4, "num_augments": 2, "scale": 0.5}


@pytest.fixture
def compose(run: Run, inputs: Inputs) -> Callable[..., SimpleNamespace]:
    """Runs the node; its outputs by name."""

    def compose_pictures(**changes: object) -> SimpleNamespace:
        given = {name: value for name, value in (inputs | changes).items() if value is not None}
        values = run("FuseDreamCompose", **given)
        return SimpleNamespace(**dict(zip(OUTPUTS, values, strict=True)))

    return compose_pictures


@pytest.fixture
def asked(
    pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, compose: Callable[..., object]
) -> Callable[..., SimpleNamespace]:
    """What the node asks of the core for its inputs; nothing is computed."""

    def ask(**changes: object) -> SimpleNamespace:
        seen: list[dict[str, Any]] = []

        def spy(*args: object, **kwargs: Any) -> None:  # noqa: ANN401
            seen.append(kwargs)
            raise InterruptedError

        monkeypatch.setattr(pack.module("nodes.compose"), "compose", spy)
        with pytest.raises(InterruptedError):
            compose(**changes)
        return SimpleNamespace(**seen[0])

    return ask


class TestOutputs:
    @pytest.mark.parametrize("preset", ["default", "paper"])
    def test_shapes(
        self, compose: Callable[..., SimpleNamespace], inputs: Inputs, preset: str
    ) -> None:
        made = compose(preset=preset, position="top" if preset == "paper" else "auto")
        for image in (made.composite, made.foreground, made.background):
            assert image.shape == (1, 32, 32, 3)
            assert not image.requires_grad
            assert 0.0 <= float(image.min()) < float(image.max()) <= 1.0
        assert made.mask.shape == (1, 32, 32)
        assert made.mask.unique().tolist() == [0.0, 1.0]
        assert float(made.mask.sum()) == 16 * 16
        assert made.latent.gan_id == inputs["gan"].model.gan_id
        assert len(made.latent.latent.z) == 2
        assert made.latent.latent.z.device.type == "cpu"
        assert isinstance(made.score, float)
        assert made.placement.endswith(" 0.5")

    def test_report(self, pack: SimpleNamespace, compose: Callable[..., SimpleNamespace]) -> None:
        made = compose(blend_strength=0.5)
        assert f"- AugCLIP {made.score:.4f} +- " in made.report
        assert f"- {made.placement}, of 9 tried; blend poisson at 0.5" in made.report
        assert "4 steps, preset default, returned: " in made.report
        assert "consistency seam: distance " in made.report
        tried = made.report.split("best first:\n\n")[1].splitlines()
        assert len(tried) == 9
        assert tried[0].startswith(f"1. {made.placement}: AugCLIP {made.score:.4f} after 4 steps")
        assert [": CLIP " in line for line in tried] == [
            "before any step" in line for line in tried
        ]
        entered = min(9, pack.module("fusedream_core.config").ComposeConfig().rungs[0][0])
        assert sum(": CLIP " in line for line in tried) == 9 - entered
        assert sum(": AugCLIP " in line for line in tried) == entered
        assert "consistency" not in compose(consistency="none", position="top").report

    def test_the_background_shows_around_the_mask(
        self, compose: Callable[..., SimpleNamespace]
    ) -> None:
        made = compose(position="top left")
        outside = made.mask[..., None] == 0
        torch.testing.assert_close(made.composite * outside, made.background * outside)
        assert made.mask[0, :16, :16].all()

    def test_a_plain_paste(self, compose: Callable[..., SimpleNamespace], run: Run) -> None:
        made = compose(position="left", blend="none")
        paste = {"foreground": made.foreground, "background": made.background}
        expected = run("FuseDreamPoissonBlend", **paste, position="left", blend="none")
        torch.testing.assert_close(made.composite, expected[0])
        assert torch.equal(made.mask, expected[1])

    def test_the_latents_give_the_pictures_again(
        self, compose: Callable[..., SimpleNamespace], run: Run, gan: object
    ) -> None:
        made = compose(position="top")
        (images,) = run("FuseDreamDecodeLatent", gan=gan, latent=made.latent)
        torch.testing.assert_close(images, torch.cat([made.foreground, made.background]))


class TestWidgets:
    def test_all_placements_by_default(self, asked: Callable[..., SimpleNamespace]) -> None:
        placements = asked(scale=0.0).placements
        assert len({one.name for one in placements}) == 18
        assert {one.scale for one in placements} == {0.65, 0.5}

    def test_a_fixed_place(self, asked: Callable[..., SimpleNamespace]) -> None:
        (placement,) = asked(scale=0.3, position="bottom right").placements
        assert placement.name == "bottom right 0.3"
        assert {one.scale for one in asked(scale=0.0, position="top").placements} == {0.65, 0.5}
        assert len(asked(scale=1.0).placements) == 9

    def test_numbers_of_the_preset(self, asked: Callable[..., SimpleNamespace]) -> None:
        seen = asked(num_steps=-1, num_augments=-1, preset="paper")
        assert (seen.config.optimize.num_steps, seen.augment.num_augments) == (1_000, 50)
        assert len(seen.config.rungs) == 1
        seen = asked(num_steps=-1, num_augments=-1)
        assert (seen.config.optimize.num_steps, seen.augment.num_augments) == (60, 8)

    def test_widgets_apply_to_every_preset(self, asked: Callable[..., SimpleNamespace]) -> None:
        widgets = {"consistency": "whole", "blend": "mixed", "blend_strength": 0.25}
        for preset in ("default", "paper"):
            config = asked(preset=preset, **widgets).config
            assert {name: getattr(config, name) for name in widgets} == widgets

    def test_lpips_only_where_it_counts(
        self,
        asked: Callable[..., SimpleNamespace],
        lpips: Any,  # noqa: ANN401
    ) -> None:
        assert asked().perceptual is lpips.model
        assert asked(consistency="none").perceptual is None

    def test_parts_with_prompts(
        self, asked: Callable[..., SimpleNamespace], target: object
    ) -> None:
        assert asked().foreground_targets == [None]
        assert asked(foreground_target=target).foreground_targets == [target]
        assert asked(background_target=target).background_targets == [target]

    def test_as_many_at_once_as_the_memory_holds(
        self,
        asked: Callable[..., SimpleNamespace],
        pack: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import comfy.model_management as management

        assert asked().config.batch_size == 1  # so that Cancel acts between two on a CPU
        config = pack.module("fusedream_core.config").ComposeConfig
        monkeypatch.setattr(config, "batch_size_on", lambda config, device: 6)
        assert asked(position="top").config.batch_size == 1
        assert asked().config.batch_size == 6
        monkeypatch.setattr(management, "get_total_memory", lambda device: 2**24)
        assert asked().config.batch_size == 1


class TestSeed:
    def test_same_seed_same_picture(self, compose: Callable[..., SimpleNamespace]) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(123)  # the global generator must not matter
            first = compose(position="top")
        again = compose(position="top")
        other = compose(position="top", seed=2**64 - 1)
        assert torch.equal(first.composite, again.composite)
        assert first.report == again.report
        assert not torch.equal(first.composite, other.composite)

    def test_inputs_are_left_alone(
        self,
        compose: Callable[..., SimpleNamespace],
        basis: Any,  # noqa: ANN401
    ) -> None:
        before = basis.latent.z.clone()
        compose(position="top")
        assert torch.equal(basis.latent.z, before)
        assert not basis.latent.z.requires_grad


class TestGradients:
    def test_weights_that_another_node_moved(
        self, compose: Callable[..., SimpleNamespace], inputs: Inputs
    ) -> None:
        expected = compose(position="top")
        models = [inputs[name].model for name in ("gan", "clip", "lpips")]
        with torch.inference_mode():  # the trick of a GPU offload, on a CPU
            for model in models:
                model.double().float()
        assert all(next(model.parameters()).is_inference() for model in models)
        assert torch.equal(compose(position="top").composite, expected.composite)


class TestBadInput:
    def test_no_lpips(self, compose: Callable[..., object], errors: ModuleType) -> None:
        with pytest.raises(errors.ConfigError, match="needs a perceptual model"):
            compose(lpips=None)
        compose(lpips=None, consistency="none", position="top")

    def test_basis_of_another_gan(
        self, run: Run, compose: Callable[..., object], errors: ModuleType
    ) -> None:
        other = run("FuseDreamLoadGAN", gan_name="other")[0]
        with pytest.raises(errors.ConfigError, match="connect the same GAN to both"):
            compose(gan=other)

    @pytest.mark.parametrize("name", ["target", "foreground_target", "background_target"])
    def test_target_of_another_clip(
        self, run: Run, compose: Callable[..., object], errors: ModuleType, name: str
    ) -> None:
        other = run("FuseDreamLoadCLIP", clip_name="other")[0]
        target = run("FuseDreamEncodePrompt", clip=other, text="a red apple")[0]
        with pytest.raises(errors.ConfigError, match="encode the prompt again"):
            compose(**{name: target})

    def test_two_truncations(
        self, run: Run, inputs: Inputs, compose: Callable[..., object], errors: ModuleType
    ) -> None:
        search = {name: inputs[name] for name in ("gan", "clip", "target")}
        search |= {"num_candidates": 20, "num_basis": 2, "truncation": 0.9}
        with pytest.raises(errors.ConfigError, match="one composition has one truncation"):
            compose(background=run("FuseDreamSeedSearch", **search)[0])

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"num_steps": 0}, "num_steps is 0"),
            ({"num_augments": 0}, "num_augments is 0"),
            ({"scale": 1.5}, "scale is 1.5"),
            ({"seed": 2**64}, "seed is"),
            ({"lpips": "a string"}, "Load LPIPS"),
        ],
    )
    def test_numbers(
        self,
        compose: Callable[..., object],
        errors: ModuleType,
        changes: dict[str, object],
        match: str,
    ) -> None:
        with pytest.raises(errors.ConfigError, match=match):
            compose(**changes)


class TestCancel:
    @pytest.fixture
    def calls(self, pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
        """Progress as ComfyUI shows it; Cancel is pressed where a test says so."""
        import comfy.utils

        monkeypatch.setattr(pack.module("nodes._boundary"), "_PROGRESS_SECONDS", 0.0)
        monkeypatch.setattr(pack.module("nodes._boundary"), "_PREVIEW_SECONDS", 0.0)
        previous = comfy.utils.PROGRESS_BAR_HOOK
        shown: list[Any] = []
        comfy.utils.set_progress_bar_global_hook(
            lambda value, total, preview, node_id=None: shown.append((value, total, preview))
        )
        yield shown
        comfy.utils.set_progress_bar_global_hook(previous)

    def test_progress(
        self, pack: SimpleNamespace, compose: Callable[..., object], calls: list[Any]
    ) -> None:
        compose()
        steps = [(value, total) for value, total, _ in calls]
        assert steps[:PRE_SEARCH] == [(step + 1, PRE_SEARCH) for step in range(PRE_SEARCH)]
        rungs = pack.module("fusedream_core.config").ComposeConfig().rungs
        counts = [min(9, count) for count, _ in rungs]
        ends = [0, *(max(1, round(4 * share)) for _, share in rungs)]
        spans = [end - begin for begin, end in itertools.pairwise(ends)]
        total = sum(count * span for count, span in zip(counts, spans, strict=True))
        assert [value for value, whole in steps[PRE_SEARCH:] if whole == total] == list(
            range(1, total + 1)
        )
        assert all(preview[1].size == (32, 32) for _, _, preview in calls)

    def test_while_clip_looks_at_the_second_place(
        self,
        pack: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        compose: Callable[..., object],
    ) -> None:
        import comfy.model_management as management

        pairs = pack.module("fusedream_core.compose.pairs")
        clip_score, looked = pairs.clip_score, list[int]()

        def press_cancel(images: torch.Tensor, **more: object) -> torch.Tensor:
            looked.append(len(images))
            if len(looked) == 2:
                management.interrupt_current_processing(True)
            return clip_score(images, **more)

        monkeypatch.setattr(pairs, "clip_score", press_cancel)
        with pytest.raises(management.InterruptProcessingException):
            compose()
        assert looked == [9, 9]  # three foregrounds on three backgrounds, at two of nine places

    @pytest.mark.parametrize(
        "at", [4, PRE_SEARCH + 1], ids=["in the pre-search", "in the optimisation"]
    )
    def test_stops(self, compose: Callable[..., object], calls: list[Any], at: int) -> None:
        import comfy.model_management as management
        import comfy.utils

        def hook(*shown: object, **more: object) -> None:
            calls.append(shown)
            if len(calls) == at:
                management.interrupt_current_processing(True)

        comfy.utils.set_progress_bar_global_hook(hook)
        with pytest.raises(management.InterruptProcessingException):
            compose(num_steps=1_000)
        assert len(calls) == at
        assert (calls[-1][1] == PRE_SEARCH) == (at < PRE_SEARCH)
        gc.collect()
        held = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.requires_grad]
        assert not held
