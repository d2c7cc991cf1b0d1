"""Optimisation and composition that go on from any step, in batches and in every form."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fusedream_core import (
    REFERENCE_CODE,
    AdamConfig,
    AugmentConfig,
    Basis,
    BigGan,
    ComposeConfig,
    ComposeResult,
    OpenClip,
    OptimizeConfig,
    OptimizeResult,
    Placement,
    Target,
    compose,
    make_generator,
    optimize,
)
from fusedream_core.state import State, flatten, unflatten

AUGMENT = AugmentConfig(num_augments=2)
SMALL = OptimizeConfig(num_steps=6, eval_augments=4, trial_share=0.5)
OPTIMIZE = {
    "three starts": SMALL,
    "one start": replace(SMALL, num_starts=1, start="uniform"),
    "reference code": replace(REFERENCE_CODE.optimize, num_steps=3, eval_augments=4),
}


def through_a_file(state: State) -> State:
    """What is left of a state that was written and read."""
    tensors, plain = flatten(state)
    found: State = unflatten(tensors, json.loads(json.dumps(plain)))
    return found


@pytest.mark.parametrize("form", OPTIMIZE)
def test_optimize(
    form: str, gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
) -> None:
    states: list[State] = []

    def run(state: State | None = None) -> OptimizeResult:
        return optimize(
            *(gan64, clip64, targets64, bases64),
            config=OPTIMIZE[form],
            augment=AUGMENT,
            generators=[make_generator(seed) for seed in range(3)],
            state=state,
            on_state=states.append if state is None else None,
        )

    whole = run()
    assert len(states) == len(whole.trace)
    for state in states:
        found = run(through_a_file(state))
        assert torch.equal(found.images, whole.images)
        assert torch.equal(found.latent.y, whole.latent.y)
        assert torch.equal(found.score.mean, whole.score.mean)
        assert torch.equal(found.trace, whole.trace)
        assert (found.start, found.chosen) == (whole.start, whole.chosen)


def test_a_state_is_good_for_several_times(
    gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
) -> None:
    """Adam works in place, and once did so in the tensors of the state that it was given."""
    states: list[State] = []

    def run(state: State | None = None) -> OptimizeResult:
        return optimize(
            *(gan64, clip64, targets64[:1], bases64[:1]),
            config=SMALL,
            augment=AUGMENT,
            generators=[make_generator(0)],
            state=state,
            on_state=states.append if state is None else None,
        )

    whole = run()
    for _ in range(2):
        assert torch.equal(run(states[3]).images, whole.images)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_compose(
    batch_size: int,
    gan64: BigGan,
    clip64: OpenClip,
    targets64: list[Target],
    bases64: list[Basis],
) -> None:
    """Two compositions at once, of which a batch holds a part; noise in each step."""
    states: list[State] = []
    steps = AdamConfig(num_steps=4, eval_augments=4, latent_noise_std=0.01)
    config = ComposeConfig(
        optimize=steps, rungs=((2, 0.5), (1, 1.0)), consistency="none", batch_size=batch_size
    )

    def run(state: State | None = None) -> list[ComposeResult]:
        return compose(
            *(gan64, clip64, targets64[:2], bases64[:2], bases64[1:]),
            config=config,
            augment=AUGMENT,
            generators=[make_generator(seed) for seed in range(2)],
            placements=[Placement.named(place, 0.5) for place in ("left", "right", "top")],
            state=state,
            on_state=states.append if state is None else None,
        )

    whole = run()
    for state in [*states, *states]:  # twice, as a state is good for several times
        for found, wanted in zip(run(through_a_file(state)), whole, strict=True):
            assert torch.equal(found.images, wanted.images)
            assert torch.equal(found.trace.score, wanted.trace.score)
            assert found.attempts == wanted.attempts
            assert (found.chosen, found.placement) == (wanted.chosen, wanted.placement)
