from __future__ import annotations

import dataclasses
import json

import torch

from fusedream_core import Basis, Placement, Target, make_generator
from fusedream_core.compose.candidates import PlacementCandidate, make_candidate, make_problem
from fusedream_core.rng import fork


class TestMakeProblem:
    def test_children_of_the_generator_in_order(
        self, targets64: list[Target], bases64: list[Basis]
    ) -> None:
        problem = make_problem(targets64[0], (None, None), *bases64[:2], make_generator(4))
        parent = make_generator(4)
        for own in (problem.start, problem.held_out, problem.steps):
            assert torch.equal(own.get_state(), fork(parent).get_state())

    def test_as_many_members_as_both_bases_have(
        self, targets64: list[Target], bases64: list[Basis]
    ) -> None:
        two = bases64[1].pick(torch.tensor([0, 1]))
        problem = make_problem(targets64[0], (None, None), bases64[0], two, make_generator(4))
        assert (problem.num_members(5), problem.num_members(1)) == (2, 1)


def test_a_candidate_is_made_of_its_fields() -> None:
    place = Placement(0.5, 0.25, 1.0)
    candidate = PlacementCandidate(1, place, place.box(20, 30))
    fields = json.loads(json.dumps(dataclasses.astuple(candidate)))
    assert make_candidate(*fields) == candidate
