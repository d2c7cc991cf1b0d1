"""Several compositions as one batch: each must end as it would alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fusedream_core import (
    AdamConfig,
    AugmentConfig,
    Basis,
    BigGan,
    ConfigError,
    OpenClip,
    StepInfo,
    Target,
    make_generator,
)
from fusedream_core.compose import ComposeResult, compose
from fusedream_core.compose.placement import all_placements
from fusedream_core.config import ALL, PAPER_COMPOSITION, ComposeConfig

from .stand_ins import Squares, Watched

STEPS = AdamConfig(num_steps=6, num_snapshots=2, eval_augments=8)
NOISY = replace(STEPS, mixing="softmax", start="random", latent_noise_std=0.05, units="absolute")
CONFIG = ComposeConfig(optimize=STEPS, num_basis=2, rungs=((4, 0.5), (2, 0.8), (1, 1.0)))
PAPER = replace(
    PAPER_COMPOSITION, num_basis=2, optimize=replace(PAPER_COMPOSITION.optimize, num_steps=2)
)
KEEPS_THREE = replace(CONFIG, rungs=((4, 0.5), (3, 1.0)), batch_size=6)
PLACES = all_placements(scales=(0.5,))
Compose = Callable[..., list[ComposeResult]]


@pytest.fixture
def run(gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]) -> Compose:
    """Compose the chosen ones of three runs, of which only two have prompts for a part."""
    blue_dog, red_apple, cat = targets64
    backgrounds = [bases64[0], bases64[2], bases64[0].pick(torch.tensor([2, 0]))]
    parts = [(None, None), (cat, red_apple), (blue_dog, None)]

    def compose_runs(
        rows: list[int],
        config: ComposeConfig = CONFIG,
        **options: Any,  # noqa: ANN401
    ) -> list[ComposeResult]:
        given: dict[str, Any] = {
            "gan": gan64,
            "clip": clip64,
            "targets": [targets64[row] for row in rows],
            "foregrounds": [bases64[row] for row in rows],
            "backgrounds": [backgrounds[row] for row in rows],
            "generators": [make_generator(row) for row in rows],
            "foreground_targets": [parts[row][0] for row in rows],
            "background_targets": [parts[row][1] for row in rows],
            "augment": AugmentConfig(num_augments=4),
            "placements": PLACES,
            "perceptual": Squares(),
        }
        return compose(config=config, **(given | options))

    return compose_runs


def assert_same(found: ComposeResult, expected: ComposeResult, atol: float) -> None:
    """All that a result tells, up to rounding of ``atol``."""
    assert (found.placement, found.chosen) == (expected.placement, expected.chosen)
    for name in ("images", "mask", "foreground", "background"):
        one, other = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(one, other, rtol=0, atol=atol)
    for record in ("latent", "score", "trace"):
        one, other = getattr(found, record), getattr(expected, record)
        for name in one.__slots__:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=atol)
    for one, other in zip(found.attempts, expected.attempts, strict=True):
        assert (one.placement, one.num_steps) == (other.placement, other.num_steps)
        assert one.score == pytest.approx(other.score, rel=0, abs=atol)


class TestBatch:
    @pytest.mark.parametrize(
        "config",
        [
            CONFIG,
            KEEPS_THREE,
            replace(CONFIG, optimize=NOISY, metric="euclidean"),
            replace(CONFIG, consistency="none", part_weight=0.0, rungs=((ALL, 1.0),)),
            PAPER,
        ],
        ids=["default", "keeps three", "noisy", "bare", "paper"],
    )
    @pytest.mark.parametrize(("size", "atol"), [(1, 0.0), (6, 1e-9)])
    def test_equals_singles(
        self, run: Compose, config: ComposeConfig, size: int, atol: float
    ) -> None:
        config = replace(config, batch_size=size)
        together = run([0, 1, 2], config)
        assert len(together) == 3
        for row, found in enumerate(together):
            (alone,) = run([row], config)
            assert_same(found, alone, atol)

    def test_seeds_of_one_prompt(
        self, run: Compose, targets64: list[Target], bases64: list[Basis]
    ) -> None:
        """Runs that share all but the seed do not share what they draw."""
        shared: dict[str, Any] = {"foreground_targets": None, "background_targets": None}
        for name, value in (
            ("targets", targets64[0]),
            ("foregrounds", bases64[0]),
            ("backgrounds", bases64[0]),
        ):
            shared[name] = [value, value]
        first, second = run([0, 1], **shared)
        assert not torch.equal(first.trace.score, second.trace.score)
        alike = run([0, 1], **shared, generators=[make_generator(1) for _ in range(2)])
        for found in alike:
            assert_same(found, second, 0.0)

    def test_batches_are_filled_across_runs(self, run: Compose, gan64: BigGan) -> None:
        gan = Watched(gan64)
        run([0, 1], KEEPS_THREE, gan=gan)
        # Four placements of each problem for three steps, then three of each for three more.
        assert gan.decoded == [12, 4] * 3 + [12] * 3

    def test_what_is_left_is_packed_anew(self, run: Compose, gan64: BigGan) -> None:
        gan = Watched(gan64)
        config = replace(CONFIG, rungs=((4, 0.5), (1, 1.0)), batch_size=3)
        run([0, 1, 2], config, gan=gan)
        assert gan.decoded == [6] * 12 + [6] * 3

    @pytest.mark.parametrize("num_ample", [0, 1, 4, 7])
    def test_goes_on_with_less_memory(
        self,
        run: Compose,
        gan64: BigGan,
        num_ample: int,
    ) -> None:
        """From the very step that failed, with the very numbers that it had drawn."""
        config = replace(KEEPS_THREE, optimize=NOISY)
        gan = Watched(gan64, num_ample, room=4)
        found = run([0, 1, 2], config, gan=gan)
        assert max(gan.decoded[num_ample:]) <= 4
        for one, other in zip(found, run([0, 1, 2], config), strict=True):
            assert_same(one, other, 1e-9)

    def test_a_basis_of_another_gan_is_told_before_its_truncation(
        self, run: Compose, bases64: list[Basis]
    ) -> None:
        """The advice to search both at the same truncation would not have helped."""
        latent = replace(bases64[0].latent, truncation=0.9)
        other = replace(bases64[0], gan_id="another", latent=latent)
        with pytest.raises(ConfigError, match="found with the GAN 'another'"):
            run([0], CONFIG, backgrounds=[other])

    def test_small_memory_is_remembered(self, run: Compose, gan64: BigGan) -> None:
        gan = Watched(gan64, num_ample=1, room=6)
        run([0, 1], KEEPS_THREE, gan=gan)
        assert gan.decoded == [12, 4] + [6, 6, 4] * 2 + [6] * 6

    def test_callback(self, run: Compose) -> None:
        seen: list[StepInfo] = []
        run([0, 1], replace(CONFIG, batch_size=2), callback=seen.append)
        stages: dict[str, list[StepInfo]] = {}
        for info in seen:
            stages.setdefault(info.stage, []).append(info)
        assert list(stages) == ["pair", "compose", "select"]
        for infos in stages.values():
            steps = [info.step for info in infos]
            assert steps == sorted(set(steps))
            assert {info.total for info in infos} == {steps[-1]}
        # Pictures and places; the first run has one basis for both of its pictures.
        assert stages["pair"][-1].step == (3 + 9) + (6 + 9)
        assert stages["compose"][-1].step == 2 * (4 * 3 + 2 * 2 + 1)
        assert all(info.preview.shape == (1, 3, 16, 16) for info in seen)
        assert all(info.score.shape == (1,) for info in seen)

    def test_callback_may_stop_within_a_step(self, run: Compose, gan64: BigGan) -> None:
        gan = Watched(gan64)

        def stop(info: StepInfo) -> None:
            if info.stage == "compose":
                raise InterruptedError("stopped")

        with pytest.raises(InterruptedError, match="stopped"):
            run([0, 1], replace(CONFIG, batch_size=1), gan=gan, callback=stop)
        assert gan.decoded == [2]

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (
                {"targets": [], "foreground_targets": None, "background_targets": None},
                "There are 0 targets, 2 foregrounds, 2 backgrounds and 2 generators, but each run "
                "needs one of each",
            ),
            ({"generators": [make_generator(0)]}, "2 backgrounds, 1 generators, 2 foreground"),
            ({"background_targets": []}, "2 foreground targets and 0 background targets, but"),
        ],
    )
    def test_numbers_of_runs(self, run: Compose, options: dict[str, Any], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            run([0, 1], **options)

    def test_no_run(self, run: Compose) -> None:
        with pytest.raises(ConfigError, match="There are 0 targets"):
            run([])

    def test_runs_that_do_not_fit_together(self, run: Compose, bases64: list[Basis]) -> None:
        first, second = bases64[:2]
        with pytest.raises(ConfigError, match="number of members or in truncation"):
            run([0, 1], foregrounds=[first, second.pick(torch.tensor([0]))])
        other = replace(second, latent=replace(second.latent, truncation=0.9))
        with pytest.raises(ConfigError, match="number of members or in truncation"):
            run([0, 1], foregrounds=[first, other], backgrounds=[first, other])
