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
    Score,
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
from fusedream_core.optimize.latent import Mixture
from fusedream_core.optimize.race import _leaders, _winners
from fusedream_core.optimize.runs import Iterates, Runs, join_iterates
from fusedream_core.rng import fork

AUGMENT = AugmentConfig(num_augments=4)
RunOptimize = Callable[..., OptimizeResult]

CONFIG = OptimizeConfig(num_steps=6, num_snapshots=2, eval_augments=8)
VARIANTS: list[dict[str, Any]] = [
    {},
    {"mixing": "softmax", "start": "random", "latent_noise_std": 0.1},
    {"y_mode": "hull", "start": "preserving"},
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
def mixtures(monkeypatch: pytest.MonkeyPatch) -> list[Mixture]:
    """Every mixture, as it is after each step."""
    seen: list[Mixture] = []
    clamp = Mixture.clamp_basis_

    def watch(self: Mixture) -> None:
        clamp(self)
        seen.append(self)

    monkeypatch.setattr(Mixture, "clamp_basis_", watch)
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
        [*VARIANTS, {"num_starts": 1}, {"num_steps": 30, "num_snapshots": 10, "patience": 1}],
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

    def test_callback(self, run: RunOptimize) -> None:
        seen: list[StepInfo] = []
        result = run([0, 2], replace(CONFIG, num_starts=1), callback=seen.append)
        stages = {info.stage: (info.step, info.total) for info in seen}
        assert list(stages) == ["start", "optimize", "select"]
        assert all(step == total for step, total in stages.values())
        steps = [info for info in seen if info.stage == "optimize"]
        assert [(info.step, info.total) for info in steps] == [(i, 6) for i in range(1, 7)]
        assert torch.equal(torch.stack([info.score for info in steps]), result.trace)
        assert seen[0].preview.shape == (2, 3, 16, 16)
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


class TestRace:
    def test_leaders(self, bases64: list[Basis]) -> None:
        basis = replace(bases64[0], class_index=torch.tensor([4, 4, 2]))
        orders = [order.tolist() for order in _leaders(basis, set(), 3)]
        assert orders == [[0, 1, 2], [2, 0, 1], [1, 0, 2]]  # the other class before its own

    def test_a_named_class_that_ranks_last_races(self, bases64: list[Basis]) -> None:
        basis = replace(
            bases64[0],
            latent=Latent(torch.zeros(5, 3), torch.zeros(5, 3), 1.0),
            scores=torch.zeros(5),
            class_index=torch.tensor([4, 4, 2, 3, 1]),
        )
        leads = [order[0].item() for order in _leaders(basis, {1}, 3)]
        assert leads == [0, 4, 2]

    def test_a_named_class_goes_on_unless_another_is_clearly_better(self) -> None:
        scores = Score(
            torch.tensor([[0.5, 0.5, 0.5], [0.47, 0.45, 0.52]]), torch.full((2, 3), 0.02)
        )
        named = torch.tensor([[False] * 3, [True] * 3])
        assert _winners(scores, named).tolist() == [1, 0, 1]
        assert _winners(scores, torch.zeros_like(named)).tolist() == [0, 0, 1]

    def test_the_best_of_two_named_goes_on(self) -> None:
        scores = Score(torch.tensor([[0.50], [0.51]]), torch.tensor([[0.02], [0.001]]))
        assert _winners(scores, torch.tensor([[True], [True]])).tolist() == [1]

    def test_one_copy_has_no_standard_error(self) -> None:
        scores = Score(torch.tensor([[0.1], [0.9]]), torch.full((2, 1), torch.nan))
        for named in ([[False], [False]], [[True], [False]], [[True], [True]]):
            assert _winners(scores, torch.tensor(named)).tolist() == [1]

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


class TestCopies:
    @pytest.mark.parametrize(
        ("first", "expected"), [(1.0, [8, 8, 8, 8]), (0.5, [4, 5, 7, 8]), (0.0, [1, 3, 5, 8])]
    )
    def test_their_number_grows_from_step_to_step(
        self, run: RunOptimize, monkeypatch: pytest.MonkeyPatch, first: float, expected: list[int]
    ) -> None:
        seen: list[int] = []
        ascend = Runs.ascend

        def spy(self: Runs, latent: Any, kind: Any, num: int, *others: Any) -> Any:  # noqa: ANN401
            seen.append(num)
            return ascend(self, latent, kind, num, *others)

        monkeypatch.setattr(Runs, "ascend", spy)
        config = replace(CONFIG, num_steps=4, first_augments=first)
        run([0], config, augment=AugmentConfig(num_augments=8))
        assert seen == expected


class TestTrainables:
    @pytest.mark.parametrize("mixing", ["scalar", "softmax"])
    @pytest.mark.parametrize("y_mode", ["free", "hull"])
    def test_gradient_reaches_each(
        self,
        run: RunOptimize,
        mixtures: list[Mixture],
        mixing: str,
        y_mode: str,
    ) -> None:
        run(
            [0, 1],
            replace(
                CONFIG,
                num_steps=1,
                num_starts=1,
                mixing=mixing,
                y_mode=y_mode,
                start="uniform",
            ),
        )
        mixture = mixtures[-1]
        moved = [mixture.z_basis, *mixture.mixes()]
        if y_mode == "free":
            moved.append(mixture.y_basis)
        else:
            assert mixture.y_basis.grad is None
        for tensor in moved:
            assert tensor.grad is not None
            assert (tensor.grad != 0).all()

    @pytest.mark.parametrize("mixing", ["scalar", "softmax"])
    def test_bound_holds_after_each_step(
        self,
        run: RunOptimize,
        mixtures: list[Mixture],
        mixing: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        largest: list[float] = []

        def measure(info: StepInfo) -> None:
            if info.stage != "optimize":
                return
            mixture = mixtures[-1]
            largest.append(float(mixture.z_basis.detach().abs().max()))
            largest.append(float(mixture.latent()[0].detach().abs().max()))
            if mixing == "softmax":
                for weights in mixture.weights():
                    torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]))

        run([0, 1], replace(CONFIG, mixing=mixing, lr_z=5.0, lr_w=1.0), callback=measure)
        assert len(largest) == 12
        assert max(largest) == pytest.approx(1.2)  # 2 * truncation

    def test_learning_rates_follow_the_spread(
        self,
        gan64: BigGan,
        bases64: list[Basis],
        run: RunOptimize,
        mixtures: list[Mixture],
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
            mixture = mixtures[-1]
            for now, old, rate in (
                (mixture.z_basis, before[0], 1e-3 * z_unit),
                (mixture.y_basis, before[1], 2e-3 * y_unit),
                (mixture.z_mix, torch.full((1, 3, 1), 1 / 3), 3e-3),
            ):
                steps = (now.detach() - old).abs()
                torch.testing.assert_close(steps, torch.full_like(steps, rate), rtol=0.02, atol=0)


class TestSelection:
    def slow_judge(
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
        expected = self.slow_judge(gan64, clip64, targets64[1], result.latent, seed=1)
        torch.testing.assert_close(result.score.mean, expected)

    def test_a_second_clip_chooses_and_scores(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        run: RunOptimize,
    ) -> None:
        class Contrary(torch.nn.Module):
            """Thinks the opposite."""

            clip_id, device = "contrary", clip64.device
            truncates = staticmethod(clip64.truncates)

            def encode_images(self, images: Tensor) -> Tensor:
                return -clip64.encode_images(images)

            def encode_text(self, texts: list[str]) -> Tensor:
                return clip64.encode_text(texts)

        own, other = run([1]), run([1], selector=Contrary())
        assert torch.equal(own.trace, other.trace)
        assert own.chosen != other.chosen
        expected = -self.slow_judge(gan64, clip64, targets64[1], other.latent, seed=1)
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

    def test_iterates(self) -> None:
        iterates = Iterates(replace(CONFIG, num_steps=4, num_snapshots=2, ema_decay=0.5))
        for step, value in enumerate([0.0, 4.0, 4.0, 8.0, 8.0]):
            iterates.observe(step, (torch.tensor([value]), torch.tensor([-value])))
        found = {name: (float(z), float(y)) for name, (z, y) in iterates.candidates().items()}
        assert found == {
            "step 0": (0.0, 0.0),
            "step 2": (4.0, -4.0),
            "average": (6.75, -6.75),  # 0, 2, 3, 5.5, 6.75
            "last": (8.0, -8.0),
        }

    def test_joined_iterates(self) -> None:
        config = replace(CONFIG, num_steps=4, num_snapshots=2, ema_decay=0.5)
        alone = [Iterates(config), Iterates(config)]
        for step in range(3):
            for row, iterates in enumerate(alone):
                iterates.observe(
                    step, (torch.tensor([1.0 * row + step]), torch.tensor([-1.0 * step]))
                )
        whole = join_iterates(alone)
        both = [*alone, whole]
        for iterates, value in zip(both, ([7.0], [8.0], [7.0, 8.0]), strict=True):
            iterates.observe(3, (torch.tensor(value), torch.tensor(value)))
        first, second, found = (iterates.candidates() for iterates in both)
        assert list(found) == list(first) == ["step 0", "step 2", "average", "last"]
        for name, blocks in found.items():
            for block, *own in zip(blocks, first[name], second[name], strict=True):
                assert torch.equal(block, torch.cat(own))


class Watched:
    """A CLIP that remembers how many pictures it saw, in which order, with and without gradient."""

    def __init__(self, clip: OpenClip, *, sign: float = 1.0) -> None:
        self.clip_id, self.device, self.truncates = "watched", clip.device, clip.truncates
        self._clip, self._sign = clip, sign
        self.judged: list[int] = []
        self.steps = 0

    def encode_images(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            self.steps += 1
        else:
            self.judged.append(len(images))
        return self._sign * self._clip.encode_images(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self._clip.encode_text(texts)


class TestPatience:
    """A run that may stop early: ``STILL`` cannot rise, ``WILD`` rises for some of the steps."""

    STILL = replace(
        CONFIG, num_steps=12, num_snapshots=6, num_starts=1, lr_z=0.0, lr_y=0.0, lr_w=0.0
    )
    WILD = replace(CONFIG, num_steps=24, num_snapshots=12, num_starts=1, lr_z=1.0)

    def test_a_score_that_cannot_rise(self, run: RunOptimize) -> None:
        for patience, steps in ((1, 2), (2, 4), (5, 10)):
            result = run([0, 1], replace(self.STILL, patience=patience))
            assert result.stopped == (steps, steps)
            assert result.trace.shape == (steps, 2)
            assert result.chosen == ("step 0",) * 2

    def test_patience_that_does_not_run_out_changes_nothing(self, run: RunOptimize) -> None:
        config = replace(CONFIG, num_steps=8, num_snapshots=4, latent_noise_std=0.05)
        never, patient = (run([0, 1, 2], replace(config, patience=n)) for n in (None, 3))
        assert never.stopped == patient.stopped == (None,) * 3
        assert (never.chosen, never.start) == (patient.chosen, patient.start)
        assert torch.equal(never.trace, patient.trace)
        torch.testing.assert_close(never.images, patient.images, rtol=0, atol=1e-9)
        torch.testing.assert_close(never.score.mean, patient.score.mean, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("change", [{}, {"num_starts": 3, "latent_noise_std": 0.5}])
    def test_batch_equals_singles(
        self, run: RunOptimize, change: dict[str, Any], grouping: str
    ) -> None:
        config = replace(self.WILD, patience=1, **change)
        together = run([0, 1, 2], config)
        ends = [24 if steps is None else steps for steps in together.stopped]
        assert len(set(ends)) == 3
        assert max(ends) < 24
        assert together.trace.shape == (max(ends), 3)
        for row in range(3):
            alone = run([row], config)
            assert together.stopped[row] == alone.stopped[0]
            assert (together.start[row], together.chosen[row]) == (alone.start[0], alone.chosen[0])
            assert alone.trace.shape == (ends[row], 1)
            assert together.trace[ends[row] :, row].isnan().all()
            for one, other in (
                (together.images[row], alone.images[0]),
                (together.latent.z[row], alone.latent.z[0]),
                (together.latent.y[row], alone.latent.y[0]),
                (together.trace[: ends[row], row], alone.trace[:, 0]),
                (together.score.mean[row], alone.score.mean[0]),
                (together.score.stderr[row], alone.score.stderr[0]),
            ):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-9)

    def test_a_run_is_the_beginning_of_the_one_that_never_stops(self, run: RunOptimize) -> None:
        never, early = (run([0], replace(self.WILD, patience=n)) for n in (None, 1))
        assert early.stopped[0] is not None
        assert torch.equal(early.trace, never.trace[: early.stopped[0]])

    def test_no_stop_while_starts_race(self, run: RunOptimize) -> None:
        config = replace(self.STILL, num_starts=3, patience=1, start="alone")
        assert run([0], replace(config, trial_share=0.5)).stopped == (8,)
        assert run([0], replace(config, trial_share=1.0)).stopped == (None,)
        assert run([0], replace(config, trial_share=0.0)).stopped == (2,)

    def test_nothing_is_judged_twice(
        self, clip64: OpenClip, targets64: list[Target], run: RunOptimize
    ) -> None:
        for patience, num_judged, num_steps in ((None, 8, 12), (5, 7, 10), (2, 4, 4)):
            chooser = Watched(clip64)
            result = run([0], replace(self.STILL, patience=patience), selector=chooser)
            assert len(result.trace) == num_steps
            assert chooser.judged == [8] * num_judged  # eval_augments
            assert chooser.steps == 0

    def test_stopped_runs_cost_nothing(
        self, run: RunOptimize, clip64: OpenClip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stepped: list[int] = []
        ascend = Runs.ascend

        def spy(self: Runs, latent: Any, *args: Any) -> Any:  # noqa: ANN401
            stepped.append(len(latent[0]))
            return ascend(self, latent, *args)

        monkeypatch.setattr(Runs, "ascend", spy)
        chooser = Watched(clip64)
        stopped = run([0, 1, 2], replace(self.WILD, patience=1)).stopped
        again = run([0, 1, 2], replace(self.WILD, patience=1), selector=chooser).stopped
        assert stopped == again
        steps = [end for end in stopped if end is not None]
        assert sum(stepped) == 2 * sum(steps)
        # each snapshot up to the stop, of which the last is the last iterate, and the average
        assert sum(chooser.judged) == 8 * sum(end // 2 + 1 + 1 for end in steps)

    def test_the_selector_decides(self, clip64: OpenClip, run: RunOptimize) -> None:
        """One that thinks the opposite sees the score fall while it rises for the other."""
        config = replace(self.WILD, lr_z=0.1, patience=2)
        augment = AugmentConfig(num_augments=8)
        own = run([0], config, augment=augment)
        other = run([0], config, augment=augment, selector=Watched(clip64, sign=-1.0))
        assert other.stopped == (4,)
        assert other.chosen == ("step 0",)
        assert own.stopped[0] is None or own.stopped[0] > 4

    def test_small_rises_count_once_they_add_up(
        self, run: RunOptimize, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rises = iter([0.0, 0.009, 0.018, 0.018, 0.018])  # the margin is 0.015

        def judge(self: Runs, latents: Any, *_: object, **__: object) -> tuple[Tensor, Score]:  # noqa: ANN401
            num = len(latents)
            means = torch.tensor([[next(rises, 0.0)] for _ in range(num)])
            return torch.zeros(num, 1, 3, 16, 16), Score(means, torch.full((num, 1), 0.1))

        monkeypatch.setattr(Runs, "judge", judge)
        result = run([0], replace(self.STILL, start="alone", patience=2))
        assert result.stopped == (8,)
        assert result.chosen == ("step 4",)

    def test_progress_ends(self, run: RunOptimize) -> None:
        seen: list[StepInfo] = []
        result = run([0, 1, 2], replace(self.WILD, patience=1), callback=seen.append)
        steps = [info for info in seen if info.stage == "optimize"]
        assert [info.step for info in steps] == list(range(1, len(result.trace) + 1))
        assert {info.total for info in steps[:-1]} == {24}
        assert steps[-1].total == steps[-1].step < 24
        assert all(info.preview.shape == (3, 3, 16, 16) for info in steps)
        for row, stopped in enumerate(result.stopped):
            assert stopped is not None
            shown = torch.stack([info.score[row] for info in steps])
            assert torch.equal(shown[:stopped], result.trace[:stopped, row])
            assert (shown[stopped:] == shown[stopped - 1]).all()
        assert seen[-1] is steps[-1]  # all have been judged by then

    def test_progress_of_a_run_that_goes_on(self, run: RunOptimize) -> None:
        seen: list[StepInfo] = []
        config = replace(self.WILD, patience=2)
        result = run([0, 1, 2], config, callback=seen.append)
        assert None in result.stopped
        assert set(result.stopped) != {None}
        assert seen[-3].stage == "optimize"
        assert seen[-3].step == seen[-3].total == 24
        told = [(info.stage, info.step, info.total) for info in seen[-2:]]
        assert told == [("select", 1, 2), ("select", 2, 2)]
        for info in seen[-2:]:
            assert info.preview.shape == (3, 3, 16, 16)
            for row, stopped in enumerate(result.stopped):
                if stopped is not None:
                    assert info.score[row] == result.score.mean[row]
                    assert torch.equal(info.preview[row], result.images[row])

    def test_iterates_of_a_stopped_run_stay(self) -> None:
        iterates = Iterates(replace(CONFIG, num_steps=4, num_snapshots=2, ema_decay=0.5))
        iterates.observe(0, (torch.zeros(2, 1), torch.zeros(2, 1)))
        iterates.observe(1, (torch.ones(2, 1), torch.ones(2, 1)))
        iterates.observe(2, (torch.full((1, 1), 5.0), torch.full((1, 1), 5.0)), [1])
        ends = {name: z[:, 0].tolist() for name, (z, _) in iterates.candidates().items()}
        assert ends["last"] == [1.0, 5.0]
        assert ends["average"] == [0.5, 2.75]
        assert list(iterates.snapshots()) == ["step 0", "step 2"]


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
