from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    REFERENCE_CODE,
    AugmentConfig,
    Basis,
    BigGan,
    ConfigError,
    Latent,
    OpenClip,
    OptimizeConfig,
    OptimizeResult,
    SearchConfig,
    StepInfo,
    Target,
    aug_clip_score,
    encode_target,
    make_generator,
    optimize,
    sample_params,
    search_basis,
)
from fusedream_core.optimize.latent import OverparameterizedLatent
from fusedream_core.optimize.problems import Problems
from fusedream_core.optimize.starts import _leaders
from fusedream_core.rng import fork

AUGMENT = AugmentConfig(num_augments=4)
RunOptimize = Callable[..., OptimizeResult]

CONFIG = OptimizeConfig(num_steps=6, num_snapshots=2, eval_augments=8)
VARIANTS: list[dict[str, Any]] = [
    {},
    {"mixing": "softmax", "start": "random", "latent_noise_std": 0.1},
    {"start": "preserving"},
    {"mixing": "softmax", "units": "absolute", "schedule": "constant", "selection": "last"},
    {"objective": "clip", "start": "alone"},
]


@pytest.fixture
def run(
    gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
) -> RunOptimize:
    """Optimise the chosen ones of three runs, each with its own seed."""

    def optimize_runs(
        rows: list[int],
        config: OptimizeConfig = CONFIG,
        **options: Any,  # noqa: ANN401
    ) -> OptimizeResult:
        return optimize(
            gan64,
            clip64,
            [targets64[row] for row in rows],
            options.pop("bases", [bases64[row] for row in rows]),
            config=config,
            augment=options.pop("augment", AUGMENT),
            generators=[make_generator(row) for row in rows],
            **options,
        )

    return optimize_runs


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> list[OverparameterizedLatent]:
    """Every over-parameterised latent, as it is after each step."""
    seen: list[OverparameterizedLatent] = []
    clamp = OverparameterizedLatent.clamp_basis_

    def watch(self: OverparameterizedLatent) -> None:
        clamp(self)
        seen.append(self)

    monkeypatch.setattr(OverparameterizedLatent, "clamp_basis_", watch)
    return seen


class TestOptimize:
    @pytest.mark.parametrize("change", VARIANTS)
    def test_result(self, gan64: BigGan, run: RunOptimize, change: dict[str, Any]) -> None:
        result = run([0, 1, 2], replace(CONFIG, **change))
        assert result.images.shape == (3, 3, 16, 16)
        assert result.trace.shape == (6, 3)
        assert len(result.start) == len(result.chosen) == 3
        assert not result.images.requires_grad
        assert not result.latent.z.requires_grad
        latent = result.latent
        again = gan64.decode(latent.z, latent.y, truncation=latent.truncation)
        torch.testing.assert_close(again, result.images)

    @pytest.mark.parametrize(
        "change",
        [*VARIANTS, {"num_starts": 1}],
    )
    @pytest.mark.parametrize("options", [{}, {"clip_batch": 3}, {"selector": True}])
    def test_batch_is_on_a_cpu_to_the_last_bit_what_singles_are(
        self, gan: BigGan, clip: OpenClip, change: dict[str, Any], options: dict[str, Any]
    ) -> None:
        """In float32, where another size of a matrix product shows."""
        if "selector" in options:
            options = {"selector": copy.deepcopy(clip)}
        targets = [encode_target(clip, prompt) for prompt in ("a dog", "a cat", "a crane")]
        bases = search_basis(
            *(gan, clip, targets),
            config=SearchConfig(num_candidates=30, num_basis=4),
            augment=AUGMENT,
            generator=make_generator(1),
        )

        def make(rows: list[int]) -> OptimizeResult:
            return optimize(
                *(gan, clip, [targets[row] for row in rows], [bases[row] for row in rows]),
                config=replace(CONFIG, **change),
                augment=AUGMENT,
                generators=[make_generator(row) for row in rows],
                **options,
            )

        together = make([0, 1, 2])
        for row in range(3):
            alone = make([row])
            num_steps = len(alone.trace)
            assert torch.equal(together.images[row], alone.images[0])
            assert torch.equal(together.latent.z[row], alone.latent.z[0])
            assert torch.equal(together.score.mean[row], alone.score.mean[0])
            assert torch.equal(together.trace[:num_steps, row], alone.trace[:, 0])

    @pytest.mark.parametrize("change", VARIANTS)
    def test_batch_equals_singles(
        self, run: RunOptimize, change: dict[str, Any], grouping: str
    ) -> None:
        config = replace(CONFIG, **change)
        together = run([0, 1, 2], config)
        for row in range(3):
            alone = run([row], config)
            assert (together.start[row], together.chosen[row]) == (alone.start[0], alone.chosen[0])
            for one, other in (
                (together.images[row], alone.images[0]),
                (together.latent.z[row], alone.latent.z[0]),
                (together.latent.y[row], alone.latent.y[0]),
                (together.trace[:, row], alone.trace[:, 0]),
                (together.score.mean[row], alone.score.mean[0]),
            ):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-9)

    def test_determinism(self, run: RunOptimize) -> None:
        assert torch.equal(run([1]).images, run([1]).images)

    def test_score_rises(self, run: RunOptimize) -> None:
        config = replace(CONFIG, num_steps=60, lr_z=0.1)
        trace = run([0, 1, 2], config, augment=AugmentConfig(num_augments=8)).trace
        assert (trace[-10:].mean(dim=0) > trace[:10].mean(dim=0) + 0.02).all()

    def test_callback(self, gan64: BigGan, run: RunOptimize) -> None:
        seen: list[StepInfo] = []
        result = run([0, 2], replace(CONFIG, num_starts=1), callback=seen.append)
        stages = {info.stage: (info.step, info.total) for info in seen}
        assert list(stages) == ["start", "optimize", "select"]
        assert all(step == total for step, total in stages.values())
        steps = [info for info in seen if info.stage == "optimize"]
        assert [(info.step, info.total) for info in steps] == [(i, 6) for i in range(1, 7)]
        assert torch.equal(torch.stack([info.score for info in steps]), result.trace)
        assert seen[0].preview.shape == (2, 3, 16, 16)
        for info in seen:
            assert info.latent is not None
            z, y = info.latent.z, info.latent.y
            again = gan64.decode(z, y, truncation=info.latent.truncation)
            torch.testing.assert_close(again, info.preview)
        assert not seen[0].preview.requires_grad

    @pytest.mark.parametrize("stage", ["start", "optimize", "select"])
    def test_callback_may_stop(self, run: RunOptimize, stage: str) -> None:
        def stop(info: StepInfo) -> None:
            if info.stage == stage and info.step == 2:
                raise InterruptedError("stopped")

        with pytest.raises(InterruptedError, match="stopped"):
            run([0], callback=stop)

    def test_works_without_outer_grad(self, run: RunOptimize) -> None:
        expected = run([0]).images
        with torch.no_grad():
            assert torch.equal(run([0]).images, expected)

    def test_models_get_no_gradient(
        self, gan64: BigGan, clip64: OpenClip, run: RunOptimize
    ) -> None:
        run([0])
        models = [*gan64.parameters(), *clip64.parameters()]
        assert all(parameter.grad is None for parameter in models)


class TestMultiStart:
    @pytest.mark.parametrize("trial_share", [0.0, 0.5, 1.0])
    def test_the_winner_ends_as_it_would_alone(
        self, run: RunOptimize, bases64: list[Basis], trial_share: float
    ) -> None:
        config = replace(CONFIG, start="alone", latent_noise_std=0.05)
        raced = run([0, 1], replace(config, num_starts=3, trial_share=trial_share))
        for row, start in enumerate(raced.start):
            rank = 1 if start == "alone" else int(start.split()[1])
            order = _leaders(bases64[row], set(), 3)[rank - 1]
            alone = run([row], replace(config, num_starts=1), bases=[bases64[row].pick(order)])
            torch.testing.assert_close(raced.trace[:, row], alone.trace[:, 0], rtol=0, atol=1e-9)
            torch.testing.assert_close(raced.images[row], alone.images[0], rtol=0, atol=1e-9)

    def test_a_late_bloomer_wins(self, run: RunOptimize) -> None:
        """After a trial of all steps, the start that ends best is the one that is returned."""
        config = replace(CONFIG, start="alone", num_steps=20, selection="last", eval_augments=64)
        augment = AugmentConfig(num_augments=32)
        raced = run([0, 1, 2], replace(config, num_starts=3, trial_share=1.0), augment=augment)
        alone = run([0, 1, 2], replace(config, num_starts=1), augment=augment)
        assert (raced.score.mean >= alone.score.mean - 0.01).all()
        assert (raced.score.mean > alone.score.mean + 0.01).any()


class TestNumAugments:
    @pytest.mark.parametrize(
        ("first", "expected"), [(1.0, [8, 8, 8, 8]), (0.5, [4, 5, 7, 8]), (0.0, [1, 3, 5, 8])]
    )
    def test_their_number_grows_from_step_to_step(
        self, run: RunOptimize, monkeypatch: pytest.MonkeyPatch, first: float, expected: list[int]
    ) -> None:
        seen: list[int] = []
        score_and_grad = Problems.score_and_grad

        def spy(self: Problems, *args: Any) -> Any:  # noqa: ANN401
            seen.append(args[3])
            return score_and_grad(self, *args)

        monkeypatch.setattr(Problems, "score_and_grad", spy)
        config = replace(CONFIG, num_steps=4, first_augments=first)
        run([0], config, augment=AugmentConfig(num_augments=8))
        assert seen == expected


class TestTrainables:
    @pytest.mark.parametrize("mixing", ["scalar", "softmax"])
    def test_gradient_reaches_each(
        self,
        run: RunOptimize,
        latents: list[OverparameterizedLatent],
        mixing: str,
    ) -> None:
        run(
            [0, 1],
            replace(
                CONFIG,
                num_steps=1,
                num_starts=1,
                mixing=mixing,
                start="uniform",
            ),
        )
        latent = latents[-1]
        for tensor in (latent.z_basis, latent.y_basis, *latent.mixes()):
            assert tensor.grad is not None
            assert (tensor.grad != 0).all()

    @pytest.mark.parametrize("mixing", ["scalar", "softmax"])
    def test_bound_holds_after_each_step(
        self,
        run: RunOptimize,
        latents: list[OverparameterizedLatent],
        mixing: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        largest: list[float] = []

        def measure(info: StepInfo) -> None:
            if info.stage != "optimize":
                return
            latent = latents[-1]
            largest.append(float(latent.z_basis.detach().abs().max()))
            largest.append(float(latent.mixed()[0].detach().abs().max()))
            if mixing == "softmax":
                for weights in latent.weights():
                    torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]))

        run([0, 1], replace(CONFIG, mixing=mixing, lr_z=5.0, lr_w=1.0), callback=measure)
        assert len(largest) == 12
        assert max(largest) == pytest.approx(1.2)  # 2 * truncation

    def test_learning_rates_follow_the_spread(
        self,
        gan64: BigGan,
        bases64: list[Basis],
        run: RunOptimize,
        latents: list[OverparameterizedLatent],
    ) -> None:
        # the first step of Adam moves every coordinate by its learning rate
        before = torch.stack([basis.latent.z for basis in bases64[:1]]), bases64[0].latent.y[None]
        config = replace(
            CONFIG,
            num_steps=1,
            num_starts=1,
            lr_z=1e-3,
            lr_y=2e-3,
            lr_w=3e-3,
            start="uniform",
        )
        for units, z_unit, y_unit in (
            ("spread", gan64.z_std * 0.6, gan64.y_std),
            ("absolute", 1.0, 1.0),
        ):
            run([0], replace(config, units=units))
            latent = latents[-1]
            for now, old, rate in (
                (latent.z_basis, before[0], 1e-3 * z_unit),
                (latent.y_basis, before[1], 2e-3 * y_unit),
                (latent.z_mix, torch.full((1, 3, 1), 1 / 3), 3e-3),
            ):
                steps = (now.detach() - old).abs()
                torch.testing.assert_close(steps, torch.full_like(steps, rate), rtol=0.02, atol=0)


class TestSelection:
    def slow_score(
        self, gan: BigGan, clip: OpenClip, target: Target, latent: Latent, seed: int
    ) -> Tensor:
        """The held-out score, from the second child of the run's generator."""
        generator = make_generator(seed)
        fork(generator)
        params = sample_params(8, 16, 16, config=AUGMENT, generator=fork(generator))
        images = gan.decode(latent.z, latent.y, truncation=latent.truncation)
        return aug_clip_score(images, target, clip, params=params).mean

    def test_score_is_held_out(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        run: RunOptimize,
    ) -> None:
        result = run([1])
        expected = self.slow_score(gan64, clip64, targets64[1], result.latent, seed=1)
        torch.testing.assert_close(result.score.mean, expected)

    def test_a_second_clip_chooses_and_scores(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        run: RunOptimize,
    ) -> None:
        class Contrary(torch.nn.Module):
            """Its scores are the opposite."""

            clip_id, device = "contrary", clip64.device
            truncates = staticmethod(clip64.truncates)

            def encode_images(self, images: Tensor) -> Tensor:
                return -clip64.encode_images(images)

            def encode_text(self, texts: list[str]) -> Tensor:
                return clip64.encode_text(texts)

        own, other = run([1]), run([1], selector=Contrary())
        assert torch.equal(own.trace, other.trace)
        assert own.chosen != other.chosen
        expected = -self.slow_score(gan64, clip64, targets64[1], other.latent, seed=1)
        torch.testing.assert_close(other.score.mean, expected)

    def test_never_worse_than_start_or_last(self, run: RunOptimize) -> None:
        wild = replace(CONFIG, lr_z=3.0, schedule="constant")
        best = run([0, 1, 2], wild)
        last = run([0, 1, 2], replace(wild, selection="last"))
        assert last.chosen == ("last",) * 3
        assert (best.score.mean >= last.score.mean).all()
        assert torch.equal(best.trace, last.trace)

    def test_best_start_is_the_best(self, run: RunOptimize) -> None:
        frozen = replace(CONFIG, lr_z=0.0, lr_y=0.0, lr_w=0.0, selection="last")
        augment = AugmentConfig(policy=(), num_augments=2)
        chosen = run([0, 1, 2], frozen, augment=augment)
        for start in ("alone", "uniform", "preserving"):
            fixed = run([0, 1, 2], replace(frozen, start=start), augment=augment)
            assert (chosen.score.mean >= fixed.score.mean - 1e-12).all()

    def test_each_checkpoint_is_scored_once(self, clip64: OpenClip, run: RunOptimize) -> None:
        chooser = Watched(clip64)
        result = run([0], replace(CONFIG, num_steps=12, num_snapshots=6), selector=chooser)
        assert len(result.trace) == 12
        assert chooser.scored == [8] * 8  # eval_augments of each
        assert chooser.steps == 0


class Watched:
    """A CLIP that counts the images it encodes, with and without gradient."""

    def __init__(self, clip: OpenClip) -> None:
        self.clip_id, self.device, self.truncates = "watched", clip.device, clip.truncates
        self._clip = clip
        self.scored: list[int] = []
        self.steps = 0

    def encode_images(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            self.steps += 1
        else:
            self.scored.append(len(images))
        return self._clip.encode_images(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self._clip.encode_text(texts)


class TestPresets:
    def test_reference_code_runs(self, run: RunOptimize) -> None:
        config = replace(REFERENCE_CODE.optimize, num_steps=3)
        result = run([0, 1], config, augment=REFERENCE_CODE.augment)
        assert result.start == ("random", "random")
        assert result.chosen == ("last", "last")


class TestMismatch:
    def test_exception(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        bases64: list[Basis],
        rng: torch.Generator,
    ) -> None:
        def attempt(targets: list[Target], bases: list[Basis]) -> None:
            optimize(
                gan64,
                clip64,
                targets,
                bases,
                config=CONFIG,
                augment=AUGMENT,
                generators=[rng] * len(bases),
            )

        foreign = replace(bases64[0], gan_id="biggan-other")
        with pytest.raises(ConfigError, match="found with the GAN 'biggan-other', but the GAN in"):
            attempt(targets64[:1], [foreign])
        with pytest.raises(ConfigError, match="3 targets, 2 bases and 2 generators"):
            attempt(targets64, bases64[:2])
        with pytest.raises(ConfigError, match="0 targets, 0 bases"):
            attempt([], [])
        latent = replace(bases64[1].latent, truncation=0.3)
        with pytest.raises(ConfigError, match="differ in their number of members or in truncation"):
            attempt(targets64[:2], [bases64[0], replace(bases64[1], latent=latent)])
        stranger = replace(targets64[0], clip_id="other")
        with pytest.raises(ConfigError, match="encoded by the CLIP 'other'"):
            attempt([stranger], bases64[:1])
