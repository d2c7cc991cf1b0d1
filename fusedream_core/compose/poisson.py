"""Blending a rectangle into an image: by its gradients (Poisson), or by a soft edge.

Paper: Liu et al. 2021, section 3.3, which applies Poisson blending to the result as pix2latent
does. A rectangle's Poisson equation is solved exactly by the eigenvectors of its two axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_shape
from ..config import BlendMode
from ..errors import ConfigError, ShapeError
from ..types import Record
from .placement import Box, box_masks, place

# Width of the soft edge, as a share of the box's smaller side.
_FEATHER = 0.12


@dataclass(frozen=True, slots=True, eq=False)
class PoissonSolver(Record):
    """The five-point Laplacian of a box, taken apart once for any number of solves.

    A side of the box inside the image has known neighbours (Dirichlet); a side flush with the
    image's border has none (Neumann).

    Attributes:
        box: The box.
        image_size: Height and width of the images it lies in.
        rows: Eigenvectors of the vertical axis as columns, shape ``(h, h)``.
        columns: Eigenvectors of the horizontal axis as columns, shape ``(w, w)``.
        inverse: One over each sum of two eigenvalues, shape ``(h, w)``.
    """

    box: Box
    image_size: tuple[int, int]
    rows: Tensor
    columns: Tensor
    inverse: Tensor

    def solve(self, right_side: Tensor) -> Tensor:
        """Solve ``L u = right_side``, where known neighbours are 0; differentiable.

        Args:
            right_side: Shape ``(..., h, w)``, of the solver's type and device.

        Returns:
            u, of the same shape. A box that is the whole image leaves its mean open: it is 0.
        """
        waves = self.rows.mT @ right_side @ self.columns
        return self.rows @ (waves * self.inverse) @ self.columns.mT


def make_solver(box: Box, like: Tensor) -> PoissonSolver:
    """Make the solver of a box, for images of one size.

    Args:
        box: The box, inside the images.
        like: Images ``(..., H, W)`` of the size, device and type that it is to serve.

    Returns:
        The solver, made in float64 and then brought to that type.

    Raises:
        ConfigError: If the box does not lie within the images.
    """
    height, width = like.shape[-2:]
    box.check_inside(height, width)
    row_values, rows = torch.linalg.eigh(_laplacian(box.top, box.height, height))
    column_values, columns = torch.linalg.eigh(_laplacian(box.left, box.width, width))
    inverse = 1.0 / (row_values[:, None] + column_values)
    if (box.height, box.width) == (height, width):
        inverse[0, 0] = 0.0  # eigenvalue 0: no neighbour is known, so the mean is free
    return PoissonSolver(box, (height, width), rows.to(like), columns.to(like), inverse.to(like))


def _laplacian(start: int, length: int, side: int) -> Tensor:
    """Minus the second difference along one axis of the box, shape ``(length, length)``."""
    neighbors = torch.full((length,), 2.0, dtype=torch.float64)
    neighbors[0] -= int(start == 0)
    neighbors[-1] -= int(start + length == side)
    beside = torch.ones(length - 1, dtype=torch.float64)
    return neighbors.diag() - beside.diag(1) - beside.diag(-1)


def blend(
    source: Tensor,
    background: Tensor,
    box: Box,
    *,
    mode: BlendMode,
    strength: float = 1.0,
    feather_width: float | None = None,
    solver: PoissonSolver | None = None,
) -> Tensor:
    """Lay the box of one image over another and hide the seam; differentiable in both.

    "none" is the plain paste. "feather" lets the box fade in from its sides. "poisson" returns
    the image whose differences between neighbours in the box are nearest to the source's; from
    a pixel of the box to its known neighbour outside the background's own difference is asked for,
    since the source has no pixel there: so a crop laid back where it was changes nothing, whatever
    its brightness. "mixed" asks within the box for the larger, in absolute value and for each
    channel, of the source's difference and the background's, so that the background shows through
    where the source is flat. Sides flush with the image's border are left as they are.

    Args:
        source: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``, as ``place`` makes them; only
            the box of them is read.
        background: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        box: The box, the same for all images.
        mode: How.
        strength: From 0, the plain paste, to 1, the blended image; linear between.
        feather_width: Width of the soft edge in pixels, above 0. None means 12 % of the box's
            smaller side, at least 1.
        solver: ``make_solver(box, background)``, where many images are blended in one box.

    Returns:
        Images, shape ``(B, 3, H, W)``. Outside the box they are the background. Inside "poisson"
        and "mixed" may leave ``[-1, 1]``: they are not clamped here, which would stop gradients,
        but by ``to_images01``. A box that is the whole image keeps the source's mean.

    Raises:
        ShapeError: If the images are not RGB, or differ in shape.
        ConfigError: If a setting is out of range, the box does not lie within the images, or
            the solver was made for another box or size.

    References:
        Perez et al. 2003; Liu et al. 2021, section 3.3, following pix2latent, which calls OpenCV's
        ``seamlessClone``. Differs: no shift of the patch, no 8-bit rounding, boxes that touch the
        border, and the differences across the seam; "feather" and "mixed" are additions.
    """
    _check(source, background, box, mode, strength, feather_width)
    height, width = background.shape[-2:]
    mask = box_masks([box], height, width, device=background.device, dtype=background.dtype)
    pasted = mask * source + (1.0 - mask) * background
    if mode == "none":
        return pasted
    if mode == "feather":
        change = _fade(source, background, box, feather_width)
    else:
        solver = solver or make_solver(box, background)
        _check_solver(solver, box, (height, width))
        change = solver.solve(_right_side(pasted, background, box, mode == "mixed"))
    below, beyond = height - box.top - box.height, width - box.left - box.width
    return pasted + strength * F.pad(change, (box.left, beyond, box.top, below))


def blend_cutout(
    foreground: Tensor,
    alpha: Tensor | None,
    background: Tensor,
    box: Box,
    *,
    mode: BlendMode,
    strength: float = 1.0,
    solver: PoissonSolver | None = None,
) -> tuple[Tensor, Tensor]:
    """Resize an image that is transparent in parts into a box of another, and blend it in.

    Its colours there, which mean nothing, take no part: what is blended is the image laid on
    the background, and of the change that blending makes as much shows as the image covers.

    Args:
        foreground: Images, shape ``(B, 3, h, w)``, in ``[-1, 1]``; alpha is not in them.
        alpha: How much of each pixel they cover, shape ``(B, 1, h, w)``, in ``[0, 1]``; None
            means all.
        background: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        box: Where to, the same for all images.
        mode: As for ``blend``, and so are the next two.
        strength: From 0, the plain paste, to 1, the blended image.
        solver: ``make_solver(box, background)``, where many images are blended in one box.

    Returns:
        The images, and how much of each pixel of theirs is covered, ``(B, 1, H, W)``.

    Raises:
        ShapeError: If shapes do not fit together.
        ConfigError: As for ``blend``.
    """
    boxes, size = [box] * len(foreground), background.shape[-2:]
    if alpha is None:
        laid, covered = place(foreground, boxes, *size), box_masks(boxes, *size).to(foreground)
        return blend(laid, background, box, mode=mode, strength=strength, solver=solver), covered
    if alpha.shape != (len(foreground), 1, *foreground.shape[-2:]):
        raise ShapeError(
            f"The alpha has the shape {tuple(alpha.shape)}, but images of the shape "
            f"{tuple(foreground.shape)} need one number for each of their pixels."
        )
    covered = place(alpha.expand_as(foreground), boxes, *size)[:, :1]
    laid = place(foreground * alpha, boxes, *size) + (1.0 - covered) * background
    blended = blend(laid, background, box, mode=mode, strength=strength, solver=solver)
    return torch.lerp(laid, blended, covered), covered


def _check(
    source: Tensor,
    background: Tensor,
    box: Box,
    mode: str,
    strength: float,
    feather_width: float | None,
) -> None:
    """Check what ``blend`` is given, but for the solver."""
    check_shape(background)
    if source.shape != background.shape:
        raise ShapeError(
            f"The source has the shape {tuple(source.shape)} and the background "
            f"{tuple(background.shape)}, but they must be the same; bring the source to the "
            "background's size with place."
        )
    box.check_inside(*background.shape[-2:])
    if mode not in get_args(BlendMode):
        known = ", ".join(get_args(BlendMode))
        raise ConfigError(f"mode is {mode!r}, but it must be one of {known}.")
    if not 0.0 <= strength <= 1.0:
        raise ConfigError(f"strength is {strength!r}, but it must be a number from 0 to 1.")
    if feather_width is not None and not 0.0 < feather_width < math.inf:
        raise ConfigError(f"feather_width is {feather_width!r}, but it must be a number above 0.")


def _check_solver(solver: PoissonSolver, box: Box, image_size: tuple[int, int]) -> None:
    """Check that a solver is this box's."""
    if (solver.box, solver.image_size) != (box, image_size):
        raise ConfigError(
            f"The solver was made for {solver.box} in {solver.image_size} pixels, but is used for "
            f"{box} in {image_size}; make one for this box and size."
        )


def _fade(source: Tensor, background: Tensor, box: Box, feather_width: float | None) -> Tensor:
    """What the soft edge adds to the pasted box, shape ``(B, 3, h, w)``."""
    height, width = background.shape[-2:]
    over = feather_width or max(1.0, _FEATHER * min(box.height, box.width))
    rows = _ramp(box.top, box.height, height, over).to(background)
    columns = _ramp(box.left, box.width, width, over).to(background)
    matte = rows[:, None] * columns
    return (1.0 - matte) * (box.crop(background) - box.crop(source))


def _ramp(start: int, length: int, side: int, over: float) -> Tensor:
    """How opaque each pixel of one axis is, shape ``(length,)``: a smoothstep from open sides."""
    centers = torch.arange(length, dtype=torch.float64) + 0.5
    depth = torch.full_like(centers, math.inf)
    if start > 0:
        depth = centers
    if start + length < side:
        depth = depth.minimum(length - centers)
    share = (depth / over).clamp(max=1.0)
    return share.square() * (3.0 - 2.0 * share)


def _right_side(pasted: Tensor, background: Tensor, box: Box, mixed: bool) -> Tensor:
    """The right-hand side for the change of the pasted box, shape ``(B, 3, h, w)``.

    The change, not the image, is what is solved for: it is smooth, so the source's detail is
    not rounded, and it has mean 0 where the mean is free.
    """
    turned = Box(box.left, box.top, box.width, box.height)
    vertical = _axis_right_side(pasted, background, box, mixed)
    return vertical + _axis_right_side(pasted.mT, background.mT, turned, mixed).mT


def _axis_right_side(pasted: Tensor, background: Tensor, box: Box, mixed: bool) -> Tensor:
    """The part of the vertical differences, shape ``(B, 3, h, w)``."""
    given, behind = (_differences(images, box) for images in (pasted, background))
    inner, seen = given[..., 1:-1, :], behind[..., 1:-1, :]
    if mixed:
        inner = torch.where(seen.abs() > inner.abs(), seen, inner)
    asked = torch.cat([behind[..., :1, :], inner, behind[..., -1:, :]], dim=-2)
    return -(asked - given).diff(dim=-2)


def _differences(images: Tensor, box: Box) -> Tensor:
    """Vertical differences in the box and across its ends, shape ``(B, 3, h + 1, w)``.

    At the image's border, which has no pixel beyond, the difference is 0.
    """
    columns = images[..., box.left : box.left + box.width]
    # Not F.pad's "replicate", whose gradient is not deterministic on CUDA.
    columns = torch.cat([columns[..., :1, :], columns, columns[..., -1:, :]], dim=-2)
    return columns[..., box.top : box.top + box.height + 2, :].diff(dim=-2)
