from __future__ import annotations

import torch
from torch import Tensor

from fusedream_core import AugmentConfig, make_generator, sample_params
from fusedream_core.augclip.draws import Draws

AUGMENT = AugmentConfig(num_augments=3)


def test_images_of_a_problem_share_its_draw(images: Tensor) -> None:
    generators = [make_generator(seed) for seed in range(2)]
    draws = Draws(AUGMENT, 3, generators)
    params = draws.of([1, 0, 1], images[:3])
    for row, problem in enumerate([1, 0, 1]):
        own = sample_params(3, 16, 16, config=AUGMENT, generator=make_generator(problem))
        for name, values in own.drawn().items():
            assert torch.equal(params.drawn()[name][row], values[0])


def test_a_draw_is_made_once(images: Tensor) -> None:
    generators = [make_generator(0)]
    draws = Draws(AUGMENT, 3, generators)
    first = draws.of([0], images[:1])
    state = generators[0].get_state()
    again = draws.of([0, 0], images[:2])
    assert torch.equal(generators[0].get_state(), state)
    for name, values in first.drawn().items():
        assert torch.equal(again.drawn()[name], values.expand_as(again.drawn()[name]))
