from __future__ import annotations

import itertools
import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core import ConfigError, ShapeError
from fusedream_core.compose import placement
from fusedream_core.compose.placement import Box
from fusedream_core.compose.poisson import (
    BlendMode,
    PoissonSolver,
    blend,
    blend_cutout,
    make_solver,
)

MODES = get_args(BlendMode)
GRADIENT_MODES: tuple[BlendMode, ...] = ("poisson", "mixed")
BOX = Box(2, 0, 6, 7)  # in pictures of 11 x 10: inside, but for the left side


def random_images(*shape: int, rng: torch.Generator) -> Tensor:
    return torch.rand(*shape, generator=rng, dtype=torch.float64) * 2 - 1


@pytest.fixture
def pair(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Source and background, two of each."""
    return random_images(2, 3, 11, 10, rng=rng), random_images(2, 3, 11, 10, rng=rng)


def slow_blend(source: Tensor, background: Tensor, box: Box, mixed: bool) -> Tensor:
    """One channel ``(H, W)``: one equation for each pair of neighbours, then least squares."""
    height, width = source.shape
    spots = itertools.product(
        range(box.top, box.top + box.height), range(box.left, box.left + box.width)
    )
    index = {spot: i for i, spot in enumerate(spots)}
    rows, values = [], []
    for row, column in itertools.product(range(height), range(width)):
        here = (row, column)
        for there in ((row + 1, column), (row, column + 1)):
            if max(there[0] - height, there[1] - width) >= 0 or not {here, there} & set(index):
                continue
            within = here in index and there in index
            asked = float(source[there] - source[here])
            behind = float(background[there] - background[here])
            if not within or (mixed and abs(behind) > abs(asked)):
                asked = behind
            equation = torch.zeros(len(index), dtype=torch.float64)
            for spot, sign in ((there, 1.0), (here, -1.0)):
                if spot in index:
                    equation[index[spot]] = sign
                else:
                    asked -= sign * float(background[spot])
            rows.append(equation)
            values.append(asked)
    if len(index) == height * width:  # nothing is known: the source's mean
        rows.append(torch.ones(len(index), dtype=torch.float64))
        values.append(float(source.sum()))
    matrix, right_side = torch.stack(rows), torch.tensor(values, dtype=torch.float64)
    solution = torch.linalg.solve(matrix.mT @ matrix, matrix.mT @ right_side)
    blended = background.clone()
    for spot, i in index.items():
        blended[spot] = solution[i]
    return blended


def slow_fade(source: Tensor, background: Tensor, box: Box, over: float) -> Tensor:
    """Pictures ``(B, 3, H, W)``, pixel by pixel."""
    height, width = source.shape[-2:]
    blended = background.clone()
    for row, column in itertools.product(range(box.height), range(box.width)):
        opacity = 1.0
        for place, start, length, side in (
            (row, box.top, box.height, height),
            (column, box.left, box.width, width),
        ):
            before = place + 0.5 if start > 0 else math.inf
            after = length - place - 0.5 if start + length < side else math.inf
            share = min(before / over, after / over, 1.0)
            opacity *= share**2 * (3 - 2 * share)
        spot = (..., box.top + row, box.left + column)
        blended[spot] = opacity * source[spot] + (1 - opacity) * background[spot]
    return blended


class TestMakeSolver:
    @pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (4, 7)])
    def test_inverts_the_laplacian(self, rng: torch.Generator, size: tuple[int, int]) -> None:
        box = Box(1, 1, *size)
        solver = make_solver(box, torch.zeros(size[0] + 2, size[1] + 2, dtype=torch.float64))
        right_side = random_images(2, 3, *size, rng=rng)
        around = F.pad(solver.solve(right_side), (1, 1, 1, 1))
        again = -around.diff(n=2, dim=-2)[..., 1:-1] - around.diff(n=2, dim=-1)[..., 1:-1, :]
        torch.testing.assert_close(again, right_side)

    def test_whole_picture_has_mean_zero(self, rng: torch.Generator) -> None:
        solver = make_solver(Box(0, 0, 5, 4), torch.zeros(5, 4, dtype=torch.float64))
        solution = solver.solve(random_images(3, 5, 4, rng=rng))
        torch.testing.assert_close(solution.mean(dim=(-2, -1)), torch.zeros(3).double())

    def test_follows_the_pictures(self) -> None:
        solver = make_solver(BOX, torch.zeros(1, 3, 11, 10))
        assert solver.rows.dtype == solver.columns.dtype == solver.inverse.dtype == torch.float32
        assert isinstance(solver.to("cpu"), PoissonSolver)

    def test_exception(self) -> None:
        with pytest.raises(ConfigError, match="does not fit into an image of 7 x 10"):
            make_solver(BOX, torch.zeros(1, 3, 7, 10))


class TestBlend:
    @pytest.mark.parametrize("mode", GRADIENT_MODES)
    @pytest.mark.parametrize("margins", list(itertools.product((0, 2), repeat=4)))
    def test_is_least_squares(
        self, rng: torch.Generator, margins: tuple[int, int, int, int], mode: BlendMode
    ) -> None:
        above, below, before, after = margins
        for tall, wide in ((4, 3), (2, 5), (1, 4), (3, 1), (1, 1)):
            box = Box(above, before, tall, wide)
            size = (above + tall + below, before + wide + after)
            source, background = random_images(2, 1, 3, *size, rng=rng)
            blended = blend(source, background, box, mode=mode)
            for channel in range(3):
                expected = slow_blend(
                    source[0, channel], background[0, channel], box, mode == "mixed"
                )
                torch.testing.assert_close(blended[0, channel], expected, rtol=0.0, atol=1e-8)

    @pytest.mark.parametrize("over", [None, 0.5, 2.5, 100.0])
    @pytest.mark.parametrize("box", [BOX, Box(5, 4, 1, 1), Box(0, 0, 11, 10), Box(0, 1, 11, 8)])
    def test_feather(self, pair: tuple[Tensor, Tensor], box: Box, over: float | None) -> None:
        blended = blend(*pair, box, mode="feather", feather_width=over)
        width = over or max(1.0, 0.12 * min(box.height, box.width))
        torch.testing.assert_close(blended, slow_fade(*pair, box, width))

    def test_none_is_the_paste(self, pair: tuple[Tensor, Tensor]) -> None:
        source, background = pair
        blended = blend(source, background, BOX, mode="none")
        assert torch.equal(BOX.crop(blended), BOX.crop(source))

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("box", [BOX, Box(5, 4, 1, 1), Box(0, 0, 11, 10)])
    def test_outside_is_the_background(
        self, pair: tuple[Tensor, Tensor], box: Box, mode: BlendMode
    ) -> None:
        blended = blend(*pair, box, mode=mode).clone()
        box.crop(blended).copy_(box.crop(pair[1]))
        assert torch.equal(blended, pair[1])

    @pytest.mark.parametrize("mode", GRADIENT_MODES)
    def test_offset_does_not_matter(self, pair: tuple[Tensor, Tensor], mode: BlendMode) -> None:
        source, background = pair
        expected = blend(source, background, BOX, mode=mode)
        torch.testing.assert_close(blend(source + 0.7, background, BOX, mode=mode), expected)

    @pytest.mark.parametrize("mode", GRADIENT_MODES)
    @pytest.mark.parametrize("box", [BOX, Box(5, 4, 1, 1), Box(3, 2, 4, 5), Box(0, 0, 8, 4)])
    def test_a_crop_laid_back_where_it_was_changes_nothing(
        self, pair: tuple[Tensor, Tensor], box: Box, mode: BlendMode
    ) -> None:
        """The whole of it, or darker or brighter by any amount; what is around it may be wild."""
        background = pair[1]
        assert torch.equal(blend(background, background, box, mode=mode), background)
        for offset in (-0.4, 0.7):
            blended = blend(background + offset, background, box, mode=mode)
            torch.testing.assert_close(blended, background)

    def test_mixed_shows_the_background_where_the_source_is_flat(
        self, pair: tuple[Tensor, Tensor]
    ) -> None:
        background = pair[1]
        blended = blend(torch.full_like(background, 0.3), background, BOX, mode="mixed")
        torch.testing.assert_close(blended, background)

    def test_whole_picture_stays(self, pair: tuple[Tensor, Tensor]) -> None:
        source, background = pair
        whole = Box(0, 0, 11, 10)
        for mode in ("none", "feather", "poisson"):
            assert torch.equal(blend(source, background, whole, mode=mode), source)
        mixed = blend(source, background, whole, mode="mixed")
        torch.testing.assert_close(mixed.mean(dim=(-2, -1)), source.mean(dim=(-2, -1)))

    def test_seam_is_hidden(self, rng: torch.Generator) -> None:
        """A bright patch on a dark ground: the step at the seam all but vanishes."""
        background = torch.full((1, 3, 64, 64), -0.5) + 0.02 * torch.rand(64, 64, generator=rng)
        source = torch.full((1, 3, 64, 64), 0.6) + 0.02 * torch.rand(64, 64, generator=rng)
        box = Box(0, 20, 40, 30)
        steps = {mode: blend(source, background, box, mode=mode).diff(dim=-2) for mode in MODES}
        largest = {mode: float(step[..., 39, 20:50].abs().max()) for mode, step in steps.items()}
        assert largest["none"] > 1.0
        assert largest["feather"] < 0.1
        assert largest["poisson"] < 0.05
        assert largest["mixed"] < 0.05

    @pytest.mark.parametrize("mode", MODES)
    def test_strength(self, pair: tuple[Tensor, Tensor], mode: BlendMode) -> None:
        pasted, full = (blend(*pair, BOX, mode=m) for m in ("none", mode))
        assert torch.equal(blend(*pair, BOX, mode=mode, strength=0.0), pasted)
        for strength in (0.3, 0.5, 1.0):
            blended = blend(*pair, BOX, mode=mode, strength=strength)
            torch.testing.assert_close(blended, torch.lerp(pasted, full, strength))

    @pytest.mark.parametrize("mode", MODES)
    def test_batch_equals_singles(self, pair: tuple[Tensor, Tensor], mode: BlendMode) -> None:
        both = blend(*pair, BOX, mode=mode)
        for b in range(2):
            alone = blend(pair[0][b : b + 1], pair[1][b : b + 1], BOX, mode=mode)
            torch.testing.assert_close(both[b : b + 1], alone)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("box", [Box(1, 0, 2, 3), Box(2, 1, 1, 1), Box(0, 0, 5, 4)])
    def test_gradcheck(self, rng: torch.Generator, box: Box, mode: BlendMode) -> None:
        source, background = (random_images(1, 3, 5, 4, rng=rng).requires_grad_() for _ in "ab")
        assert torch.autograd.gradcheck(
            lambda s, b: blend(s, b, box, mode=mode, strength=0.8), (source, background)
        )

    @pytest.mark.parametrize("mode", GRADIENT_MODES)
    def test_gradient_reaches_both(self, pair: tuple[Tensor, Tensor], mode: BlendMode) -> None:
        source, background = (images.requires_grad_() for images in pair)
        inside = BOX.crop(blend(source, background, BOX, mode=mode))
        weights = torch.linspace(-1.0, 1.0, inside.numel()).view_as(inside)
        of_source, of_background = torch.autograd.grad(
            (inside * weights).sum(), (source, background)
        )
        assert (BOX.crop(of_source) != 0).double().mean() > 0.8
        if mode == "poisson":
            assert (of_background[..., 2, :7] != 0).all()  # what the box covers, at the seam
        else:
            assert (BOX.crop(of_background) != 0).double().mean() > 0.8
        outside = of_source.clone()
        BOX.crop(outside).zero_()
        assert (outside == 0).all()

    @pytest.mark.parametrize("mode", GRADIENT_MODES)
    def test_float32(self, rng: torch.Generator, mode: BlendMode) -> None:
        source, background = random_images(2, 1, 3, 200, 160, rng=rng)
        box = Box(0, 20, 166, 140)
        exact = blend(source, background, box, mode=mode)
        blended = blend(source.float(), background.float(), box, mode=mode)
        assert blended.dtype == torch.float32
        torch.testing.assert_close(blended, exact.float(), rtol=0.0, atol=1e-4)

    @pytest.mark.parametrize("mode", MODES)
    def test_determinism(self, pair: tuple[Tensor, Tensor], mode: BlendMode) -> None:
        results = []
        for _ in range(2):
            leaves = [images.clone().requires_grad_() for images in pair]
            blended = blend(*leaves, BOX, mode=mode)
            results.append([blended, *torch.autograd.grad((blended**2).sum(), leaves)])
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))

    @pytest.mark.parametrize("mode", GRADIENT_MODES)
    def test_solver_can_be_kept(self, pair: tuple[Tensor, Tensor], mode: BlendMode) -> None:
        solver = make_solver(BOX, pair[1])
        expected = blend(*pair, BOX, mode=mode)
        for _ in range(2):
            assert torch.equal(blend(*pair, BOX, mode=mode, solver=solver), expected)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"mode": "clone"}, "mode is 'clone', but it must be one of none, feather, poisson"),
            ({"strength": 1.5}, "strength is 1.5, but it must be a number from 0 to 1"),
            ({"strength": float("nan")}, "strength is nan"),
            ({"feather_width": 0.0}, "feather_width is 0.0, but it must be a number above 0"),
            ({"feather_width": math.inf}, "feather_width is inf"),
            ({"box": Box(6, 0, 6, 7)}, "does not fit into an image of 11 x 10"),
            ({"box": Box(2, 1, 6, 7)}, r"made for Box\(top=2, left=0, .* make one for this box"),
        ],
    )
    def test_exception(
        self, pair: tuple[Tensor, Tensor], change: dict[str, Any], message: str
    ) -> None:
        settings = {"box": BOX, "mode": "poisson", "solver": make_solver(BOX, pair[1]), **change}
        with pytest.raises(ConfigError, match=message):
            blend(*pair, **settings)

    def test_exception_of_shapes(self, pair: tuple[Tensor, Tensor]) -> None:
        source, background = pair
        with pytest.raises(ShapeError, match=r"source has the shape \(1, 3, 11, 10\) and the"):
            blend(source[:1], background, BOX, mode="none")
        with pytest.raises(ShapeError, match="RGB images"):
            blend(source[0], background[0], BOX, mode="none")


class TestBlendCutout:
    @pytest.fixture
    def cutout(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two pictures of BOX's size, and their alpha, 0 at their edges."""
        alpha = torch.zeros(2, 1, 6, 7, dtype=torch.float64)
        alpha[:, :, 1:5, 2:6] = torch.rand(2, 1, 4, 4, generator=rng, dtype=torch.float64)
        return random_images(2, 3, 6, 7, rng=rng), alpha

    @pytest.mark.parametrize("mode", MODES)
    def test_value(
        self, cutout: tuple[Tensor, Tensor], pair: tuple[Tensor, Tensor], mode: BlendMode
    ) -> None:
        """Laid on the background, blended, and the change shown as far as alpha goes."""
        colors, alpha = cutout
        background = pair[1]
        laid = background.clone()
        BOX.crop(laid).copy_(alpha * colors + (1 - alpha) * BOX.crop(background))
        change = blend(laid, background, BOX, mode=mode) - laid
        expected = laid.clone()
        BOX.crop(expected).add_(alpha * BOX.crop(change))
        images, covered = blend_cutout(colors, alpha, background, BOX, mode=mode)
        torch.testing.assert_close(images, expected)
        torch.testing.assert_close(BOX.crop(covered), alpha)
        assert covered.sum() == BOX.crop(covered).sum()

    @pytest.mark.parametrize("mode", MODES)
    def test_without_alpha_it_is_a_blended_paste(
        self, cutout: tuple[Tensor, Tensor], pair: tuple[Tensor, Tensor], mode: BlendMode
    ) -> None:
        source = placement.place(cutout[0], [BOX] * 2, 11, 10)
        images, covered = blend_cutout(cutout[0], None, pair[1], BOX, mode=mode, strength=0.4)
        assert torch.equal(images, blend(source, pair[1], BOX, mode=mode, strength=0.4))
        assert covered.sum() == 6 * 7 * 2
        assert (BOX.crop(covered) == 1).all()

    def test_exception(self, cutout: tuple[Tensor, Tensor], pair: tuple[Tensor, Tensor]) -> None:
        with pytest.raises(ShapeError, match="one number for each of their pixels"):
            blend_cutout(cutout[0], cutout[1][:1], pair[1], BOX, mode="none")
