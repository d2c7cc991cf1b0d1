from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusedream_core import (
    AugmentConfig,
    Basis,
    BigGan,
    OpenClip,
    clip_score,
    encode_target,
    make_generator,
)
from fusedream_core.compose.candidates import Problem
from fusedream_core.compose.objective import FuseObjective
from fusedream_core.compose.pairs import PairSearch, best_members
from fusedream_core.compose.placement import all_placements, paste
from fusedream_core.compose.poisson import blend
from fusedream_core.config import ComposeConfig

CONFIG = ComposeConfig(num_basis=3)
AUGMENT = AugmentConfig(num_augments=4)
PLACES = all_placements(scales=(0.5,))


class TestPairSearch:
    @pytest.mark.parametrize(
        ("batch_size", "blend_from", "named"),
        [(2, 0.5, False), (100, 0.5, True), (100, 0.0, False)],
    )
    def test_value(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        bases64: list[Basis],
        batch_size: int,
        blend_from: float,
        named: bool,
    ) -> None:
        """The slow way: one pair at one place after the other; blended if the first step is."""
        config = replace(CONFIG, blend_from=blend_from)
        boxes = [place.box(16, 16) for place in PLACES[:3]]
        target = encode_target(clip64, "a dog and a cat" if named else "a dog")
        bases = [
            replace(basis, class_index=torch.tensor(classes))
            for basis, classes in zip(bases64[:2], ([0, 2, 1], [1, 0, 0]), strict=True)
        ]
        draws = [make_generator(0) for _ in range(3)]
        problem = Problem(target, (None, None), *bases, *draws)
        objective = FuseObjective(gan64, clip64, None, 0.6, config, AUGMENT, [problem])
        search = PairSearch(objective, PLACES[:3], batch_size=batch_size)
        candidates, scores = search.score(0)
        assert [(own.problem, own.placement) for own in candidates] == [
            (0, placement) for placement in PLACES[:3]
        ]
        assert [own.box for own in candidates] == boxes
        wanted = torch.ones(3, 3, dtype=torch.bool)
        if named:  # a dog on a cat or a cat on a dog
            wanted = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 1]], dtype=torch.bool)
        assert scores.shape == (3, 3, 3)
        assert torch.equal(scores.isfinite(), wanted.expand(3, 3, 3))
        fronts, backs = (
            gan64.decode(basis.latent.z, basis.latent.y, truncation=0.6) for basis in bases64[:2]
        )
        for p, box in enumerate(boxes):
            for i in range(3):
                for j in range(3):
                    if not wanted[i, j]:
                        continue
                    one = paste(fronts[i : i + 1], backs[j : j + 1], [box])
                    if blend_from == 0.0:
                        one = blend(one, backs[j : j + 1], box, mode="poisson")
                    expected = clip_score(one, target, clip64)[0]
                    assert float(scores[p, i, j]) == pytest.approx(float(expected), abs=1e-9)

    def test_best_members(self) -> None:
        scores = torch.tensor([[0.1, 0.4, 0.2], [0.3, 0.9, 0.5], [0.8, 0.6, 0.0]])
        front, back = best_members(scores, 2)
        assert front.tolist() == [1, 2]  # by their score on background 1
        assert back.tolist() == [1, 2]  # by their score under foreground 1
