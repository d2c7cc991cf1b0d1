"""Every node executed on tiny models, in ComfyUI's inference mode."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., Any]
STEPS = {"num_steps": 4, "num_augments": 2}
SEARCH = {"num_candidates": 40, "num_basis": 3}


@pytest.fixture
def errors(pack: SimpleNamespace) -> ModuleType:
    return pack.module("fusedream_core.errors")


def pictures(*shape: int) -> torch.Tensor:
    with torch.inference_mode():  # as the output of another node is
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def assert_image(image: torch.Tensor, num: int, side: int = 32) -> None:
    assert image.shape == (num, side, side, 3)
    assert image.dtype == torch.float32
    assert not image.requires_grad
    assert float(image.min()) >= 0.0
    assert float(image.max()) <= 1.0


class TestEncodePrompt:
    def test_target(self, target: Any) -> None:  # noqa: ANN401
        assert target.prompt == "a blue dog"
        assert target.features.device.type == "cpu"
        torch.testing.assert_close(target.features.norm(), torch.tensor(1.0))

    @pytest.mark.parametrize("text", ["", "  \n ", " | "])
    def test_empty(self, run: Run, clip: object, errors: ModuleType, text: str) -> None:
        with pytest.raises(errors.PromptError, match="The prompt is empty"):
            run("FuseDreamEncodePrompt", clip=clip, text=text)

    def test_too_long(
        self,
        run: Run,
        clip: object,
        pack: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        shown: list[str] = []
        monkeypatch.setattr(pack.module("nodes.prompt"), "show_text", shown.append)
        run("FuseDreamEncodePrompt", clip=clip, text="a {red|blue} dog, \u72d7\u72d7\u72d7")
        assert "'{red|blue}' is another program's way" in shown[0]
        assert "not trained on '\u72d7\u72d7\u72d7'" in shown[0]
        shown.clear()
        run("FuseDreamEncodePrompt", clip=clip, text="a blue dog " * 20)
        assert "Too long" in shown[0]
        assert "longer than CLIP's context" in caplog.text
        shown.clear()
        run("FuseDreamEncodePrompt", clip=clip, text="a blue dog | blurry:-0.3")
        assert not shown


class TestSeedSearch:
    def test_outputs(self, run: Run, gan: object, clip: object, target: object) -> None:
        basis, images, scores = run(
            "FuseDreamSeedSearch", gan=gan, clip=clip, target=target, **SEARCH
        )
        assert_image(images, 3)
        assert len(scores.splitlines()) == 5
        assert "a blue dog" in scores
        assert basis.latent.z.device.type == "cpu"
        assert basis.scores.tolist() == sorted(basis.scores.tolist(), reverse=True)

    def test_same_seed_same_basis(
        self,
        run: Run,
        gan: object,
        clip: object,
        target: object,
        basis: Any,  # noqa: ANN401
    ) -> None:
        inputs = {"gan": gan, "clip": clip, "target": target, **SEARCH}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(123)  # the global generator must not matter
            again = run("FuseDreamSeedSearch", **inputs)[0]
        other = run("FuseDreamSeedSearch", **inputs, seed=2**64 - 1)[0]
        assert torch.equal(again.latent.z, basis.latent.z)
        assert not torch.equal(other.latent.z, basis.latent.z)

    def test_classes(self, run: Run, gan: Any, clip: object, target: object) -> None:  # noqa: ANN401
        basis, _, scores = run(
            "FuseDreamSeedSearch",
            gan=gan,
            clip=clip,
            target=target,
            classes=" Dog, fish ,",
            max_per_class=2,
            num_candidates=40,
            num_basis=4,
        )
        names = [gan.model.class_names[index] for index in basis.class_index]
        assert sorted(names) == ["dog", "dog", "fish", "fish"]
        assert "fish" in scores

    @pytest.mark.parametrize(("most", "expected"), [(2, 2), (0, None)])
    def test_most_of_one_class(
        self,
        pack: SimpleNamespace,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        gan: object,
        most: int,
        expected: int | None,
    ) -> None:
        seen = []

        def spy(*args: object, config: Any, **kwargs: object) -> None:  # noqa: ANN401
            seen.append(config.max_per_class)
            raise InterruptedError

        monkeypatch.setattr(pack.module("nodes.search"), "search_basis", spy)
        with pytest.raises(InterruptedError):
            run("FuseDreamSeedSearch", gan=gan, clip=gan, target=None, max_per_class=most)
        assert seen == [expected]

    def test_too_few_classes_for_the_limit(
        self,
        run: Run,
        gan: Any,  # noqa: ANN401
        clip: object,
        target: object,
    ) -> None:
        inputs = {"gan": gan, "clip": clip, "target": target, **SEARCH}
        basis, images, _ = run("FuseDreamSeedSearch", **inputs, classes="dog", max_per_class=2)
        assert_image(images, 3)
        assert {gan.model.class_names[index] for index in basis.class_index} == {"dog"}

    @pytest.mark.parametrize(
        ("preset", "score"),
        [("default", "AugCLIP"), ("paper", "AugCLIP"), ("reference code", "CLIP")],
    )
    def test_scores_say_what_they_are(
        self, run: Run, gan: object, clip: object, target: object, preset: str, score: str
    ) -> None:
        inputs = {"gan": gan, "clip": clip, "target": target, **SEARCH}
        scores = run("FuseDreamSeedSearch", **inputs, preset=preset)[2]
        assert scores.startswith(f"{score} of the 3 best for: a blue dog")

    def test_truncation(self, run: Run, gan: object, clip: object, target: object) -> None:
        inputs = {"gan": gan, "clip": clip, "target": target, **SEARCH}
        assert run("FuseDreamSeedSearch", **inputs)[0].latent.truncation == 0.5  # the GAN's
        assert run("FuseDreamSeedSearch", **inputs, truncation=0.9)[0].latent.truncation == 0.9

    def test_automatic_number(
        self, pack: SimpleNamespace, run: Run, monkeypatch: pytest.MonkeyPatch, gan: object
    ) -> None:
        seen = []
        search = pack.module("nodes.search")

        def spy(*args: object, config: Any, **kwargs: object) -> None:  # noqa: ANN401
            seen.append((config.candidates_on(torch.device("cpu")), config.ranking))
            raise InterruptedError

        monkeypatch.setattr(search, "search_basis", spy)
        for preset in ("default", "paper", "reference code"):
            with pytest.raises(InterruptedError):
                run("FuseDreamSeedSearch", gan=gan, clip=gan, target=None, preset=preset)
        assert seen == [(400, "aug_clip"), (10_000, "aug_clip"), (10_000, "clip")]

    @pytest.mark.parametrize(
        ("inputs", "match"),
        [
            ({"num_candidates": 0}, "num_candidates is 0"),
            ({"num_candidates": 4, "num_basis": 5}, "only 4 candidates"),
            ({"classes": "dgo"}, "did you mean dog"),
            ({"classes": "zeppelin"}, "no class 'zeppelin'"),
            ({"seed": 2**64}, "seed is"),
        ],
    )
    def test_bad_input(
        self,
        run: Run,
        gan: object,
        clip: object,
        target: object,
        errors: ModuleType,
        inputs: dict[str, object],
        match: str,
    ) -> None:
        with pytest.raises(errors.ConfigError, match=match):
            run("FuseDreamSeedSearch", gan=gan, clip=clip, target=target, **inputs)

    def test_target_of_another_clip(
        self, run: Run, gan: object, target: object, errors: ModuleType
    ) -> None:
        other = run("FuseDreamLoadCLIP", clip_name="other")[0]
        with pytest.raises(errors.ConfigError, match="encode the prompt again"):
            run("FuseDreamSeedSearch", gan=gan, clip=other, target=target, **SEARCH)


class TestOptimize:
    @pytest.fixture
    def inputs(self, gan: object, clip: object, target: object, basis: object) -> dict[str, object]:
        return {"gan": gan, "clip": clip, "target": target, "basis": basis, **STEPS}

    @pytest.mark.parametrize("preset", ["default", "paper", "reference code"])
    def test_outputs(self, run: Run, inputs: dict[str, Any], preset: str) -> None:
        image, latent, score, report, trace = run("FuseDreamOptimize", **inputs, preset=preset)
        assert_image(image, 1)
        assert latent.gan_id == inputs["gan"].model.gan_id
        assert latent.latent.z.device.type == "cpu"
        assert not latent.latent.z.requires_grad
        assert isinstance(score, float)
        assert preset in report
        assert f"{score:.4f}" in report
        assert len(trace.values) == STEPS["num_steps"]
        assert latent.about["prompt"] == "a blue dog"

    @pytest.mark.parametrize("ranking", ["aug_clip", "clip"])
    def test_report_compares_like_with_like(
        self, run: Run, inputs: dict[str, Any], ranking: str
    ) -> None:
        basis = replace(inputs["basis"], ranking=ranking)
        report = run("FuseDreamOptimize", **(inputs | {"basis": basis}))[3]
        best = float(basis.scores.max())
        assert (f"- best seed of the search: AugCLIP {best:.4f}" in report) == (ranking != "clip")
        assert len(report.splitlines()) == (2 if ranking == "clip" else 3)

    @pytest.mark.parametrize(
        ("start", "said"),
        [
            ("alone", "from the mix 'alone', "),
            ("rival 2", "from the 2nd start, "),
            ("rival 3", "from the 3rd start, "),
            ("rival 4", "from the 4th start, "),
        ],
    )
    def test_report_tells_the_start(
        self,
        pack: SimpleNamespace,
        run: Run,
        inputs: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        start: str,
        said: str,
    ) -> None:
        node = pack.module("nodes.optimize")
        optimize = node.optimize
        monkeypatch.setattr(
            node, "optimize", lambda *args, **more: replace(optimize(*args, **more), start=(start,))
        )
        assert said in run("FuseDreamOptimize", **inputs)[3]

    @pytest.mark.parametrize(
        ("preset", "fitting", "expected"),
        [("default", 9, 3), ("default", 2, 2), ("default", 0, 1), ("paper", 0, 1)],
    )
    def test_as_many_rows_at_once_as_the_memory_holds(
        self,
        pack: SimpleNamespace,
        run: Run,
        inputs: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        preset: str,
        fitting: int,
        expected: int,
    ) -> None:
        """Memory decides how many are looked at together, never how many starts race."""
        import comfy.model_management as management

        node, seen = pack.module("nodes.optimize"), list[int]()
        measure = pack.module("nodes._models").activation_bytes
        each = measure(inputs["gan"], images=1, gradients=True)
        of_copy = measure(None, inputs["clip"], images=1, gradients=True)
        asked, copies = list[int](), list[int]()

        def use_models(*handles: Any, activation_bytes: int) -> tuple[object, ...]:  # noqa: ANN401
            asked.append(activation_bytes)
            return tuple(handle.model for handle in handles)

        def spy(*args: object, config: Any, augment: Any, clip_batch: int, **_: object) -> None:  # noqa: ANN401
            seen.append(config.num_starts)
            copies.append(clip_batch)
            assert clip_batch <= expected * augment.num_augments
            raise InterruptedError

        monkeypatch.setattr(node, "use_models", use_models)
        monkeypatch.setattr(node, "optimize", spy)
        memory = 2 * each * (fitting + 0.5) / 0.7
        monkeypatch.setattr(management, "get_total_memory", lambda device: memory)
        with pytest.raises(InterruptedError):
            run("FuseDreamOptimize", **inputs, preset=preset)
        assert seen == [3 if preset == "default" else 1]
        assert asked == [expected * each + copies[0] * of_copy]
        assert copies[0] == 1 or 2 * copies[0] * of_copy <= 0.7 * memory

    def test_no_more_starts_than_the_basis_holds(self, run: Run, inputs: dict[str, Any]) -> None:
        basis = inputs["basis"].pick(torch.tensor([0]))
        assert_image(run("FuseDreamOptimize", **(inputs | {"basis": basis}))[0], 1)

    def test_same_seed_same_picture(self, run: Run, inputs: dict[str, Any]) -> None:
        first = run("FuseDreamOptimize", **inputs, preset="paper")  # returns the last step's
        again = run("FuseDreamOptimize", **inputs, preset="paper")
        other = run("FuseDreamOptimize", **inputs, preset="paper", seed=1)
        assert torch.equal(first[0], again[0])
        assert first[2:] == again[2:]
        assert not torch.equal(first[1].latent.z, other[1].latent.z)

    def test_same_seed_same_race(self, run: Run, inputs: dict[str, Any]) -> None:
        first, again = (run("FuseDreamOptimize", **inputs) for _ in range(2))
        assert torch.equal(first[0], again[0])
        assert first[2:] == again[2:]
        assert (
            first[2] != run("FuseDreamOptimize", **inputs, seed=1)[2]
        )  # the start may be the best

    def test_weights_that_another_node_moved(self, run: Run, inputs: dict[str, Any]) -> None:
        expected = run("FuseDreamOptimize", **inputs)[0]
        with torch.inference_mode():  # the trick of a GPU offload, on a CPU
            for model in (inputs["gan"].model, inputs["clip"].model):
                model.double().float()
        assert next(inputs["gan"].model.parameters()).is_inference()
        assert torch.equal(run("FuseDreamOptimize", **inputs)[0], expected)

    def test_inputs_are_left_alone(self, run: Run, inputs: dict[str, Any]) -> None:
        before = inputs["basis"].latent.z.clone()
        run("FuseDreamOptimize", **inputs)
        assert torch.equal(inputs["basis"].latent.z, before)
        assert not inputs["basis"].latent.z.requires_grad

    def test_numbers_of_the_preset(
        self,
        pack: SimpleNamespace,
        run: Run,
        inputs: dict[str, Any],
        monkeypatch: Any,  # noqa: ANN401
    ) -> None:
        seen = []

        def spy(*args: object, config: Any, augment: Any, **kwargs: object) -> None:  # noqa: ANN401
            seen.append((config.num_steps, augment.num_augments))
            raise InterruptedError

        monkeypatch.setattr(pack.module("nodes.optimize"), "optimize", spy)
        numbers = inputs | {"num_steps": -1, "num_augments": -1, "preset": "reference code"}
        with pytest.raises(InterruptedError):
            run("FuseDreamOptimize", **numbers)
        assert seen == [(1_000, 50)]

    @pytest.mark.parametrize("preset", ["default", "paper", "reference code"])
    def test_patience_is_ignored(
        self, run: Run, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture, preset: str
    ) -> None:
        """Early stopping is gone; old workflows with a value for it give the same as without."""
        without = run("FuseDreamOptimize", **inputs, preset=preset)
        assert not caplog.messages
        image, latent, *others = run("FuseDreamOptimize", **inputs, preset=preset, patience=2)
        said = [message for message in caplog.messages if "patience" in message]
        assert said == ["FuseDream: patience is ignored; every run takes all of its steps."]
        assert torch.equal(image, without[0])
        assert torch.equal(latent.latent.z, without[1].latent.z)
        assert latent.about == without[1].about
        assert others == list(without[2:])

    def test_basis_of_another_gan(
        self, run: Run, inputs: dict[str, Any], errors: ModuleType
    ) -> None:
        other = run("FuseDreamLoadGAN", gan_name="other")[0]
        with pytest.raises(errors.ConfigError, match="connect the same GAN to both"):
            run("FuseDreamOptimize", **(inputs | {"gan": other}))

    def test_target_of_another_clip(
        self, run: Run, inputs: dict[str, Any], errors: ModuleType
    ) -> None:
        other = run("FuseDreamLoadCLIP", clip_name="other")[0]
        with pytest.raises(errors.ConfigError, match="encode the prompt again"):
            run("FuseDreamOptimize", **(inputs | {"clip": other}))

    @pytest.mark.parametrize("number", ["num_steps", "num_augments"])
    def test_zero(self, run: Run, inputs: dict[str, Any], errors: ModuleType, number: str) -> None:
        with pytest.raises(errors.ConfigError, match=f"{number} is 0"):
            run("FuseDreamOptimize", **(inputs | {number: 0}))


class TestCancel:
    """Cancel acts within a step, and what the step held is freed."""

    @pytest.fixture
    def cancel_at(self, comfyui: object) -> Any:  # noqa: ANN401
        import comfy.model_management as management
        import comfy.utils

        previous = comfy.utils.PROGRESS_BAR_HOOK
        calls: list[int] = []

        def arm(step: int) -> list[int]:
            def hook(value: int, total: int, preview: object, node_id: object = None) -> None:
                calls.append(value)
                if value == step:
                    management.interrupt_current_processing(True)

            comfy.utils.set_progress_bar_global_hook(hook)
            return calls

        yield arm
        comfy.utils.set_progress_bar_global_hook(previous)

    @pytest.mark.parametrize("node_id", ["FuseDreamSeedSearch", "FuseDreamOptimize"])
    def test_stops(
        self,
        run: Run,
        cancel_at: Any,  # noqa: ANN401
        pack: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        gan: object,
        clip: object,
        target: object,
        basis: object,
        node_id: str,
    ) -> None:
        from comfy.model_management import InterruptProcessingException

        monkeypatch.setattr(pack.module("nodes._boundary"), "_PROGRESS_SECONDS", 0.0)
        calls = cancel_at(2)
        inputs = {"gan": gan, "clip": clip, "target": target}
        if node_id == "FuseDreamOptimize":
            inputs |= {"basis": basis, "num_steps": 1_000, "num_augments": 2}
        with pytest.raises(InterruptProcessingException):
            run(node_id, **inputs)
        assert calls == [1, 2]  # the check comes before the third step is shown
        gc.collect()
        held = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.requires_grad]
        assert not held

    def test_score(
        self,
        run: Run,
        cancel_at: Any,  # noqa: ANN401
        pack: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        clip: object,
        target: object,
    ) -> None:
        from comfy.model_management import InterruptProcessingException

        monkeypatch.setattr(pack.module("nodes._boundary"), "_PROGRESS_SECONDS", 0.0)
        cancel_at(2)
        images = pictures(10, 16, 16, 3)
        with pytest.raises(InterruptProcessingException):
            run("FuseDreamAugCLIPScore", clip=clip, target=target, images=images, num_augments=2)


@pytest.fixture(scope="module")
def made(run: Run, gan: object, clip: object, target: object, basis: object) -> Any:  # noqa: ANN401
    return run("FuseDreamOptimize", gan=gan, clip=clip, target=target, basis=basis, **STEPS)


class TestDecodeLatent:
    def test_gives_the_picture_again(self, run: Run, gan: object, made: Any) -> None:  # noqa: ANN401
        image, latent = made[:2]
        torch.testing.assert_close(run("FuseDreamDecodeLatent", gan=gan, latent=latent)[0], image)

    def test_latent_of_another_gan(self, run: Run, made: Any, errors: ModuleType) -> None:  # noqa: ANN401
        other = run("FuseDreamLoadGAN", gan_name="other")[0]
        with pytest.raises(errors.ConfigError, match="connect the one that the latent was made"):
            run("FuseDreamDecodeLatent", gan=other, latent=made[1])


class TestAugCLIPScore:
    @pytest.fixture
    def score(self, run: Run, clip: object, target: object) -> Run:
        def run_score(images: torch.Tensor, **inputs: object) -> Any:  # noqa: ANN401
            defaults = {"clip": clip, "target": target, "num_augments": 4}
            return run("FuseDreamAugCLIPScore", images=images, **(defaults | inputs))

        return run_score

    def test_outputs(self, score: Run) -> None:
        images = pictures(4, 24, 40, 3)
        scores, ranked, best, best_score, *_ = score(images, num_best=2)
        assert ranked.shape == images.shape
        assert torch.equal(best, ranked[:2])
        lines = scores.splitlines()[1:]  # the first two are the heading
        assert len(lines) == 5
        order = [int(line.split()[-1]) - 1 for line in lines[1:]]
        assert sorted(order) == [0, 1, 2, 3]
        assert torch.equal(ranked, images[order])
        assert lines[1].startswith(f"1. {best_score:.4f} +- ")

    def test_order_of_the_batch_does_not_matter(self, score: Run) -> None:
        images = pictures(4, 24, 24, 3)
        assert torch.equal(score(images)[1], score(images.flip(0))[1])

    def test_seed(self, score: Run) -> None:
        images = pictures(2, 16, 16, 3)
        assert score(images)[0] == score(images)[0]
        assert score(images)[0] != score(images, seed=1)[0]

    @pytest.mark.parametrize("size", [(8, 8), (16, 200), (700, 600)])
    def test_any_size(self, score: Run, size: tuple[int, int]) -> None:
        _, ranked, best, best_score, *_ = score(pictures(2, *size, 3))
        assert ranked.shape == (2, *size, 3)
        assert best.shape == (1, *size, 3)
        assert -1.0 <= best_score <= 1.0

    def test_more_best_than_pictures(self, score: Run) -> None:
        assert len(score(pictures(2, 16, 16, 3), num_best=100)[2]) == 2

    def test_alpha_is_kept_in_the_output(self, score: Run) -> None:
        images = pictures(2, 16, 16, 4)
        assert score(images)[1].shape == images.shape

    def test_hidden_colours_do_not_count(self, score: Run) -> None:
        clear = pictures(1, 16, 16, 4).clone()
        clear[..., 3] = 0.0
        white = torch.ones(1, 16, 16, 3)
        assert score(clear)[3] == score(white)[3]

    def test_target_of_another_clip(self, run: Run, score: Run, errors: ModuleType) -> None:
        other = run("FuseDreamLoadCLIP", clip_name="other")[0]
        with pytest.raises(errors.ConfigError, match="encode the prompt again"):
            score(pictures(2, 16, 16, 3), clip=other)

    def test_one_pixel(self, score: Run, errors: ModuleType) -> None:
        with pytest.raises(errors.ShapeError, match="1 x 1 pixels"):
            score(pictures(3, 1, 1, 3))

    def test_nan(self, score: Run, errors: ModuleType) -> None:
        images = pictures(2, 16, 16, 3).clone()
        images[1, 0, 0, 0] = float("nan")
        with pytest.raises(errors.ImageError, match="Picture 2 of the batch"):
            score(images)
        with pytest.raises(errors.ImageError, match="Picture 2 of the batch 2"):
            score([pictures(1, 16, 16, 3), images])


class TestRankingOfAList:
    """What a node that makes lists gives is ranked as one, whatever its sizes."""

    LIST = ((1, 24, 24, 3), (2, 16, 40, 3), (1, 12, 12, 4))

    @pytest.fixture
    def rank(self, run: Run, clip: object, target: object) -> Run:
        def run_score(images: object, **inputs: object) -> Any:  # noqa: ANN401
            own = {"clip": clip, "target": target, "num_augments": 4}
            return run("FuseDreamAugCLIPScore", images=images, **(own | inputs))

        return run_score

    def test_sizes_differ(self, rank: Run) -> None:
        images = [pictures(*shape) for shape in self.LIST]
        scores, ranked, best, best_score, labels, values, good, rest = rank(images, num_best=2)
        places = [int(line.split()[-1]) for line in scores.splitlines()[2:]]
        assert sorted(places) == [1, 2, 3, 4]
        singles = [image for batch in images for image in batch.split(1)]
        for image, place in zip(ranked, places, strict=True):
            assert torch.equal(image, singles[place - 1])
        assert [image.shape for image in best] == [image.shape for image in ranked[:2]]
        assert values == sorted(values, reverse=True)
        assert values[0] == best_score
        assert labels.splitlines() == scores.splitlines()[2:]
        assert len(good) == 4
        assert type(rest).__name__ == "ExecutionBlocker"

    def test_each_has_the_score_that_it_has_alone(self, rank: Run) -> None:
        images = [pictures(*shape) for shape in self.LIST[:2]]
        together = rank(images)
        places = [int(line.split()[-1]) for line in together[0].splitlines()[2:]]
        alone = [*rank(images[0])[5:6], *rank(images[1])[5]]
        ordered = [together[5][places.index(place)] for place in (1, 2, 3)]
        assert sorted(ordered[1:], reverse=True) == pytest.approx(alone[1:], abs=1e-6)
        assert ordered[0] == pytest.approx(alone[0], abs=1e-6)

    def test_of_one_size_it_is_a_batch(self, rank: Run) -> None:
        batch = pictures(3, 16, 16, 3)
        from_list, from_batch = rank(list(batch.split(1))), rank(batch)
        assert torch.equal(from_list[1], from_batch[1])
        assert from_list[0] == from_batch[0]

    def test_threshold(self, rank: Run) -> None:
        images = pictures(4, 16, 16, 3)
        _, ranked, *_, values, _, _ = rank(images)
        *_, good, rest = rank(images, threshold=values[1])
        assert torch.equal(good, ranked[:2])
        assert torch.equal(rest, ranked[2:])

    def test_nothing_is_good(self, rank: Run) -> None:
        """What is wired to an empty output does not run, and the rest does."""
        _, ranked, *_, good, rest = rank(pictures(2, 16, 16, 3), threshold=1.0)
        assert type(good).__name__ == "ExecutionBlocker"
        assert torch.equal(rest, ranked)

    def test_a_ranking_for_each_of_several_prompts(self, run: Run, rank: Run, clip: object) -> None:
        """Lists at the other inputs are gone through, as by any node."""
        texts = ("a dog", "a red boat")
        targets = [run("FuseDreamEncodePrompt", clip=clip, text=text)[0] for text in texts]
        images = pictures(2, 16, 16, 3)
        scores, ranked, _, best_scores, *_ = rank(images, target=targets)
        assert [text.splitlines()[0] for text in scores] == [f"AugCLIP for: {t}" for t in texts]
        assert len(ranked) == len(best_scores) == 2
        for index, target in enumerate(targets):
            assert scores[index] == rank(images, target=target)[0]

    def test_in_comfyuis_executor(
        self,
        pack: SimpleNamespace,
        clip: object,
        target: Any,  # noqa: ANN401
    ) -> None:
        """It hands lists over, and stops what is wired to an output without pictures."""
        execution = pytest.importorskip("execution")
        kept = pack.module("nodes._node").Kept(target)
        inputs = {
            "clip": [clip],
            "target": [kept],
            "images": [pictures(*shape) for shape in self.LIST],
            "num_best": [1],
            "num_augments": [4],
            "seed": [0],
        }

        def go(node_id: str, given: dict[str, list[Any]]) -> list[Any]:
            node = pack.nodes[node_id]
            work = execution.get_output_data("prompt", "1", node, given, hidden_inputs={})
            return asyncio.run(work)[0]

        with torch.inference_mode():
            _, ranked, best, best_score, labels, values, good, rest = go(
                "FuseDreamAugCLIPScore", inputs
            )
            assert [len(one) for one in (ranked, best, best_score, values, good)] == [4, 1, 1, 4, 4]
            sheet = {"images": ranked, "labels": labels, "columns": [0], "tile": [32]}
            (sheets,) = go("FuseDreamContactSheet", sheet)
            assert [one.shape for one in sheets] == [(1, 84, 76, 3)]
            (nothing,) = go("FuseDreamContactSheet", sheet | {"images": rest})
        assert type(nothing[0]).__name__ == "ExecutionBlocker"

    def test_no_pictures(self, rank: Run, errors: ModuleType) -> None:
        with pytest.raises(errors.ShapeError, match="no images to rank"):
            rank([])

    def test_one_augmentation_has_no_error(self, pack: SimpleNamespace) -> None:
        """Its spread is not known, and "nan" says nothing to anybody."""
        score = pack.module("fusedream_core.types").Score(
            torch.tensor([0.5]), torch.tensor([torch.nan])
        )
        report = pack.module("nodes._report")
        assert report.ranking_lines(score, [0]) == ["1. 0.5000 picture 1"]
        assert report.with_error(score) == "0.5000"


class TestMergeCLIP:
    @pytest.fixture
    def pair(self, run: Run, gan: object, clip: object) -> Any:  # noqa: ANN401
        (other,) = run("FuseDreamLoadCLIP", clip_name="other")
        return run("FuseDreamMergeCLIP", gan=gan, clip_a=clip, clip_b=other)[0]

    def test_is_a_clip_like_any_other(self, run: Run, gan: object, pair: object) -> None:
        (target,) = run("FuseDreamEncodePrompt", clip=pair, text="a blue dog")
        basis, *_ = run("FuseDreamSeedSearch", gan=gan, clip=pair, target=target, **SEARCH)
        image, _, score, *_ = run(
            "FuseDreamOptimize", gan=gan, clip=pair, target=target, basis=basis, **STEPS
        )
        assert_image(image, 1)
        assert -1.0 < score < 1.0

    def test_share(self, run: Run, gan: object, clip: object) -> None:
        (other,) = run("FuseDreamLoadCLIP", clip_name="other")
        shares = [
            run("FuseDreamMergeCLIP", gan=gan, clip_a=clip, clip_b=other, share_b=share)[0].model
            for share in (0.2, 0.8)
        ]
        assert shares[0].shares[0] > shares[1].shares[0]
        assert shares[0].clip_id != shares[1].clip_id

    def test_members_still_work(self, run: Run, clip: Any, pair: object) -> None:  # noqa: ANN401
        (target,) = run("FuseDreamEncodePrompt", clip=clip, text="a blue dog")
        assert target.clip_id == clip.model.clip_id


class TestSelector:
    def test_another_clip_gives_the_score(
        self, run: Run, gan: object, clip: object, target: object
    ) -> None:
        (other,) = run("FuseDreamLoadCLIP", clip_name="other")
        basis, *_ = run("FuseDreamSeedSearch", gan=gan, clip=clip, target=target, **SEARCH)
        inputs = {"gan": gan, "clip": clip, "target": target, "basis": basis, **STEPS}
        scores = [
            run("FuseDreamOptimize", **inputs, **more)[2] for more in ({}, {"selector": other})
        ]
        assert scores[0] != scores[1]


class TestMemory:
    def test_models_that_no_device_holds(
        self,
        run: Run,
        clip: object,
        errors: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import comfy.model_management as management

        monkeypatch.setattr(management, "get_total_memory", lambda _: 1000)
        with pytest.raises(errors.ConfigError, match=r"GB, but cpu has 0\.0 GB; choose smaller"):
            run("FuseDreamEncodePrompt", clip=clip)
