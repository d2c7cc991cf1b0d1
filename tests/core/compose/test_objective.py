from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    AdamConfig,
    AugmentConfig,
    Basis,
    BigGan,
    OpenClip,
    Placement,
    Target,
    make_generator,
)
from fusedream_core.compose import objective as objective_module
from fusedream_core.compose.candidates import PlacementCandidate, make_problem
from fusedream_core.compose.objective import FuseObjective, Images
from fusedream_core.compose.placement import box_masks, paste
from fusedream_core.config import ComposeConfig
from fusedream_core.optimize.latent import make_latent
from fusedream_core.optimize.trials import start_trials

from .stand_ins import Squares

AUGMENT = AugmentConfig(num_augments=3)


class TestEvaluateWithGrad:
    @pytest.mark.parametrize("size", [1, 2, 6])
    @pytest.mark.parametrize("consistency", ["seam", "none"])
    def test_each_candidate_by_itself(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        bases64: list[Basis],
        size: int,
        consistency: Any,  # noqa: ANN401
    ) -> None:
        """Candidates of two problems in micro-batches, and one at a time through autograd."""
        problems = [
            make_problem(targets64[0], (None, targets64[2]), *bases64[:2], make_generator(0)),
            make_problem(targets64[1], (None, None), *bases64[1:], make_generator(1)),
        ]
        config = ComposeConfig(
            optimize=AdamConfig(num_steps=3), batch_size=size, consistency=consistency
        )
        perceptual = None if consistency == "none" else Squares()
        objective = FuseObjective(gan64, clip64, perceptual, 0.6, config, AUGMENT, problems)
        places = [Placement.named(name, 0.5) for name in ("left", "top", "right")]
        candidates = [
            PlacementCandidate(p, own, own.box(16, 16)) for p in (0, 1) for own in places[: 2 + p]
        ]
        of = [problems[own.problem] for own in candidates]
        latent = make_latent(
            [*(own.foreground for own in of), *(own.background for own in of)],
            "uniform",
            mixing="scalar",
            device=torch.device("cpu"),
            generators=[make_generator(0) for _ in range(2 * len(of))],
        )

        def trials_of(chosen: list[int]) -> Any:  # noqa: ANN401
            trials = start_trials(
                latent,
                candidates,
                gan64,
                config.optimize,
                truncation=0.6,
                generators=[make_generator(5), make_generator(6)],
            )
            return trials.pick(chosen)

        reported: list[int] = []
        trials = trials_of(list(range(5)))
        whole = objective.evaluate_with_grad(
            trials, trials.noisy_latent(), lambda scores, _: reported.append(len(scores))
        )
        assert sum(reported) == 5
        assert max(reported) == min(size, 5)
        for one in range(5):
            own = trials_of([one])
            alone = objective.evaluate_with_grad(own, own.noisy_latent(), lambda *_: None)
            rows = [one, 5 + one]
            torch.testing.assert_close(alone[0], whole[0][one : one + 1])
            torch.testing.assert_close(alone[1], whole[1][one : one + 1])
            for found, expected in zip(alone[2:], whole[2:], strict=True):
                for block, other in zip(found, expected, strict=True):
                    torch.testing.assert_close(block, other[rows])
        if consistency == "none":
            assert not whole[1].any()
            assert not whole[2][0].any()

    def test_the_gradient_is_that_of_the_score(
        self, gan64: BigGan, clip64: OpenClip, targets64: list[Target], bases64: list[Basis]
    ) -> None:
        """A small step along it raises s_Fuse by as much as it says."""
        problem = make_problem(targets64[0], (None, None), *bases64[:2], make_generator(0))
        config = ComposeConfig(optimize=AdamConfig(num_steps=3))
        objective = FuseObjective(gan64, clip64, Squares(), 0.6, config, AUGMENT, [problem])
        place = Placement.named("center", 0.5)
        rows = [bases64[0].pick(torch.tensor([0])), bases64[1].pick(torch.tensor([0]))]
        latent = make_latent(
            rows,
            "alone",
            mixing="scalar",
            device=torch.device("cpu"),
            generators=[make_generator(0)] * 2,
        )
        candidate = PlacementCandidate(0, place, place.box(16, 16))

        def evaluate(z: Tensor, y: Tensor) -> tuple[Any, ...]:
            trials = start_trials(
                latent,
                [candidate],
                gan64,
                config.optimize,
                truncation=0.6,
                generators=[make_generator(5)],
            )
            return objective.evaluate_with_grad(trials, (z, y), lambda *_: None)

        z, y = (block.detach() for block in latent.mixed())
        _, loss, of_loss, of_score = evaluate(z, y)
        for index, gradient in ((0, of_score[0]), (1, of_loss[0])):
            step = 1e-5 * gradient / gradient.norm()
            rise = (evaluate(z + step, y)[index] - evaluate(z - step, y)[index]) / 2e-5
            torch.testing.assert_close(rise[0], gradient.norm(), rtol=1e-3, atol=0)
        assert float(loss) > 0


class TestInconsistency:
    @pytest.fixture(autouse=True)
    def _wide_seam(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(objective_module, "SEAM_WIDTH", 0.25)

    def make(self, consistency: Any, box_side: float = 0.5) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """The loss, and the plain mean over the region that it should look at."""
        config = ComposeConfig(consistency=consistency)
        objective = FuseObjective(None, None, Squares(), 1.0, config, AUGMENT, [])  # type: ignore[arg-type]
        draw = make_generator(3)
        front, back = (torch.rand(1, 3, 16, 16, generator=draw) for _ in range(2))
        box = Placement(box_side, 0.0, 0.5).box(16, 16)  # flush left: three sides have a seam
        layer = paste(front, torch.zeros_like(back), [box])
        region = box_masks([box], 16, 16)
        if consistency == "seam":
            region[..., box.top + 2 : box.top + 6, 0:6] = 0
        if consistency == "whole":
            layer, region = front, torch.ones_like(region)
        difference = Squares().distance_map(layer, back)
        expected = (difference * region).sum() / region.sum()
        images = Images(front, back, paste(front, torch.zeros_like(back), [box]), back)
        return objective.inconsistency(images, [box])[0], expected

    @pytest.mark.parametrize("consistency", ["whole", "patch", "seam"])
    def test_value(self, consistency: str) -> None:
        loss, expected = self.make(consistency)
        torch.testing.assert_close(loss, expected)
