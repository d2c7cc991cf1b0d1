from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    AdamConfig,
    AugmentConfig,
    Basis,
    BigGan,
    ConfigError,
    OpenClip,
    OptimizeConfig,
    StepInfo,
    Target,
    clip_score,
    encode_target,
    make_generator,
)
from fusedream_core.compose import ComposeResult, compose
from fusedream_core.compose.placement import Placement, all_placements, paste
from fusedream_core.config import ALL, PAPER_COMPOSITION, ComposeConfig

from .stand_ins import Squares

STEPS = AdamConfig(num_steps=6, num_snapshots=2, eval_augments=8)
CONFIG = ComposeConfig(optimize=STEPS, num_basis=3, rungs=((4, 0.5), (1, 1.0)), batch_size=2)
BRUTE_FORCE = replace(CONFIG, rungs=((ALL, 1.0),))
AUGMENT = AugmentConfig(num_augments=4)
PLACES = all_placements(scales=(0.5,))
EACH = {  # what each run has one of
    "target",
    "foreground",
    "background",
    "generator",
    "foreground_target",
    "background_target",
}
RunCompose = Callable[..., ComposeResult]


def under_the_paste(result: ComposeResult) -> float:
    """How far the pasted picture is from the background that it covers."""
    box = result.placement.box(16, 16)
    pasted = paste(result.foreground, result.background, [box])
    return float((box.crop(pasted) - box.crop(result.background)).square().mean())


@pytest.fixture
def run(
    gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
) -> RunCompose:
    def compose_pictures(
        config: ComposeConfig = CONFIG,
        **options: Any,  # noqa: ANN401
    ) -> ComposeResult:
        given: dict[str, Any] = {
            "augment": AUGMENT,
            "placements": PLACES,
            "perceptual": Squares(),
            "foreground": bases64[0],
            "background": bases64[1],
            "target": targets64[0],
            "generator": make_generator(5),
        }
        given |= options
        for name in EACH & set(given):
            given[f"{name}s"] = [given.pop(name)]
        (result,) = compose(gan64, clip64, config=config, **given)
        return result

    return compose_pictures


class TestCompose:
    def test_result(self, run: RunCompose, gan64: BigGan) -> None:
        result = run()
        assert result.images.shape == result.foreground.shape == (1, 3, 16, 16)
        assert result.mask.shape == (1, 1, 16, 16)
        assert float(result.mask.sum()) == 64
        assert result.placement in PLACES
        assert result.trace.score.shape == result.trace.weight.shape == (6,)
        assert len(result.attempts) == 9
        assert [a.num_steps for a in result.attempts].count(6) == 1
        assert [a.num_steps for a in result.attempts].count(3) == 3
        assert not result.images.requires_grad
        latent = result.latent
        again = gan64.decode(latent.z, latent.y, truncation=latent.truncation)
        torch.testing.assert_close(again[:1], result.foreground)
        torch.testing.assert_close(again[1:], result.background)

    def test_outside_the_box_is_background(self, run: RunCompose) -> None:
        result = run()
        outside = (1 - result.mask).bool().expand_as(result.images)
        assert torch.equal(result.images[outside], result.background[outside])

    @pytest.mark.parametrize("change", [{}, {"metric": "euclidean"}, {"consistency": "whole"}])
    def test_the_survivor_ends_where_brute_force_takes_it(
        self, run: RunCompose, change: dict[str, Any]
    ) -> None:
        pruned = run(replace(CONFIG, **change))
        brute = run(replace(BRUTE_FORCE, **change), placements=[pruned.placement])
        torch.testing.assert_close(pruned.images, brute.images, rtol=0, atol=1e-9)
        torch.testing.assert_close(pruned.trace.score, brute.trace.score, rtol=0, atol=1e-9)

    def test_halving_keeps_what_scored_best_in_its_last_steps(self, run: RunCompose) -> None:
        """Every configuration alone, for as many steps as before the halving."""
        result = run()
        entered = [a.placement for a in result.attempts if a.num_steps > 0]
        alone = {
            place: float(run(BRUTE_FORCE, placements=[place]).trace.score[:3].mean())
            for place in entered
        }
        assert len(alone) == 4
        assert max(alone, key=alone.__getitem__) == result.placement
        told = {a.placement: a.score for a in result.attempts if a.num_steps == 3}
        assert told == pytest.approx({place: alone[place] for place in told}, abs=1e-9)

    def test_brute_force_tries_all(self, run: RunCompose) -> None:
        result = run(BRUTE_FORCE)
        assert all(attempt.num_steps == 6 for attempt in result.attempts)
        assert result.attempts[0].score == pytest.approx(float(result.score.mean))
        assert result.attempts[0].placement == result.placement

    @pytest.mark.parametrize("size", [1, 9])
    def test_batch_size_changes_nothing(self, run: RunCompose, size: int) -> None:
        expected, other = run(), run(replace(CONFIG, batch_size=size))
        assert expected.placement == other.placement
        torch.testing.assert_close(expected.images, other.images, rtol=0, atol=1e-9)

    def test_determinism(self, run: RunCompose) -> None:
        assert torch.equal(run().images, run().images)
        assert not torch.equal(run().images, run(generator=make_generator(6)).images)

    @pytest.mark.parametrize("consistency", ["patch", "seam"])
    def test_consistency_brings_the_pictures_together(
        self,
        run: RunCompose,
        consistency: Any,  # noqa: ANN401
    ) -> None:
        steps = replace(STEPS, num_steps=40, selection="last")
        config = replace(BRUTE_FORCE, optimize=steps, beta=0.1, blend="none")
        place = [Placement.named("center", 0.5)]
        with_it = run(replace(config, consistency=consistency), placements=place)
        without = run(replace(config, consistency="none"), placements=place)
        assert (without.trace.loss == 0).all()
        assert under_the_paste(with_it) < 0.8 * under_the_paste(without)

    def test_named_classes_are_paired(
        self, run: RunCompose, gan64: BigGan, clip64: OpenClip, bases64: list[Basis]
    ) -> None:
        """Whatever CLIP thinks of them: the prompt names a dog and an apple."""
        target = encode_target(clip64, "a dog and an apple")
        basis = replace(bases64[0], class_index=torch.tensor([1, 0, 2]))  # cat, dog, apple
        config = replace(
            BRUTE_FORCE,
            num_basis=1,
            optimize=replace(STEPS, num_steps=1, lr_z=0.0, lr_y=0.0, lr_w=0.0),
        )
        result = run(config, target=target, foreground=basis, background=basis)
        pair = [int((basis.latent.z == z).all(dim=1).nonzero()) for z in result.latent.z]
        assert sorted(pair) == [1, 2]
        free = run(replace(config, prefer_named=False), target=target, foreground=basis)
        assert free.images.shape == result.images.shape

    def test_score_rises(self, run: RunCompose) -> None:
        steps = replace(STEPS, num_steps=60)
        augment = AugmentConfig(num_augments=8)
        trace = run(replace(BRUTE_FORCE, optimize=steps), placements=PLACES[:1], augment=augment)
        assert float(trace.trace.score[-10:].mean()) > float(trace.trace.score[:10].mean()) + 0.02

    def test_parts_have_prompts_of_their_own(
        self, run: RunCompose, clip64: OpenClip, targets64: list[Target]
    ) -> None:
        """What the foreground is told wins, though the composite's own prompt asks the opposite."""
        opposite = replace(targets64[0], features=-targets64[0].features)
        config = replace(
            BRUTE_FORCE,
            optimize=replace(STEPS, num_steps=40, selection="last"),
            consistency="none",
            part_weight=3.0,
        )
        place = [Placement.named("top left", 0.5)]
        alone = run(config, placements=place)
        told = run(config, placements=place, foreground_target=opposite)
        better = clip_score(told.foreground, opposite, clip64)
        assert float(better) > float(clip_score(alone.foreground, opposite, clip64)) + 0.1

    @pytest.mark.parametrize("blend", ["none", "feather", "poisson", "mixed"])
    def test_blend_modes(self, run: RunCompose, blend: Any) -> None:  # noqa: ANN401
        result = run(replace(CONFIG, blend=blend, blend_from=0.5))
        plain = paste(result.foreground, result.background, [result.placement.box(16, 16)])
        assert torch.allclose(result.images, plain) == (blend == "none")

    def test_reference_forms_run(self, run: RunCompose) -> None:
        noisy = replace(
            STEPS, mixing="softmax", start="random", latent_noise_std=0.05, units="absolute"
        )
        assert run(replace(CONFIG, optimize=noisy)).images.isfinite().all()
        paper = replace(
            PAPER_COMPOSITION, optimize=replace(PAPER_COMPOSITION.optimize, num_steps=2)
        )
        assert run(paper).images.isfinite().all()

    def test_callback(self, run: RunCompose) -> None:
        seen: list[StepInfo] = []
        run(callback=seen.append)
        last = {info.stage: (info.step, info.total) for info in seen}
        assert list(last) == ["pair", "compose", "select"]
        assert all(step == total for step, total in last.values())
        assert last["compose"] == (15, 15)  # 4 configurations for 3 steps, 1 for 3 more
        assert all(info.preview.shape == (1, 3, 16, 16) for info in seen)
        assert not any(info.preview.requires_grad for info in seen)

    @pytest.mark.parametrize("stage", ["pair", "compose", "select"])
    def test_callback_may_stop(self, run: RunCompose, stage: str) -> None:
        def stop(info: StepInfo) -> None:
            if info.stage == stage:
                raise InterruptedError("stopped")

        with pytest.raises(InterruptedError, match="stopped"):
            run(callback=stop)

    def test_works_without_outer_grad(self, run: RunCompose) -> None:
        expected = run().images
        with torch.no_grad():
            assert torch.equal(run().images, expected)

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"placements": []}, "no placement"),
            ({"perceptual": None}, "needs a perceptual model"),
        ],
    )
    def test_exception(self, run: RunCompose, options: dict[str, Any], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            run(**options)

    def test_a_model_elsewhere_is_refused(self, run: RunCompose) -> None:
        elsewhere = Squares()
        elsewhere.device = torch.device("meta")
        with pytest.raises(ConfigError, match="is on meta and the GAN on cpu"):
            run(perceptual=elsewhere)

    def test_settings_that_do_nothing_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="beta is 0"):
            ComposeConfig(beta=0, consistency="none")

    def test_settings_of_several_starts_are_left_out_with_a_warning(self) -> None:
        given = OptimizeConfig(num_steps=7, start="uniform", num_starts=3)
        with pytest.warns(DeprecationWarning, match="takes an AdamConfig"):
            config = ComposeConfig(optimize=given)
        assert config.optimize == AdamConfig(num_steps=7, start="uniform")

    def test_equal_boxes_are_tried_once(self, run: RunCompose) -> None:
        result = run(placements=all_placements(scales=(1.0,)))
        assert len(result.attempts) == 1

    def test_a_shared_basis_is_decoded_once(self, run: RunCompose, bases64: list[Basis]) -> None:
        seen: list[StepInfo] = []
        run(background=bases64[0], callback=seen.append)
        pairs = [info for info in seen if info.stage == "pair"]
        assert len(pairs) == 3 + len(PLACES)  # each picture, then each place's pairs

    def test_memory_does_not_grow_with_the_steps(self, run: RunCompose) -> None:
        """No step's graph lives on while the next one's is built."""
        alive: set[int] = set()
        peaks: list[int] = [0]

        class Kept:
            def __init__(self, tensor: Tensor) -> None:
                self.tensor = tensor.detach()
                alive.add(id(self))
                peaks[-1] = max(peaks[-1], len(alive))

            def __del__(self) -> None:
                alive.discard(id(self))

        def next_step(info: StepInfo) -> None:
            if info.stage == "compose":
                peaks.append(0)

        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            run(replace(BRUTE_FORCE, blend="none"), placements=PLACES[:1], callback=next_step)
        assert peaks[0] > 0
        assert max(peaks[1:7]) <= peaks[0] * 1.05

    def test_foreign_parts_are_refused(self, run: RunCompose, bases64: list[Basis]) -> None:
        other = replace(bases64[0], gan_id="another")
        with pytest.raises(ConfigError, match="another"):
            run(background=other)
        latent = replace(bases64[0].latent, truncation=0.9)
        with pytest.raises(ConfigError, match=r"0\.6 and the background's at 0\.9"):
            run(background=replace(bases64[0], latent=latent))

    def test_bases_of_different_sizes(self, run: RunCompose, bases64: list[Basis]) -> None:
        result = run(foreground=bases64[0].pick(torch.tensor([1])))
        assert result.images.isfinite().all()
