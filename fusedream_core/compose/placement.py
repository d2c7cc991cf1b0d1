"""Where the foreground goes on the background: nine positions, two scales, one box each.

Paper: Liu et al. 2021, section 3.3. Nothing is drawn here and nothing is blended: the foreground
is resized into its box and covers what lies under it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError

SCALES = (0.65, 0.5)
POSITIONS: Mapping[str, tuple[float, float]] = {
    "top left": (0.0, 0.0),
    "top": (0.5, 0.0),
    "top right": (1.0, 0.0),
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "right": (1.0, 0.5),
    "bottom left": (0.0, 1.0),
    "bottom": (0.5, 1.0),
    "bottom right": (1.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of an image, in pixels.

    Attributes:
        top: Rows above it.
        left: Columns left of it.
        height: Its rows.
        width: Its columns.
    """

    top: int
    left: int
    height: int
    width: int

    def crop(self, images: Tensor) -> Tensor:
        """The part of images ``(..., H, W)`` that it covers, ``(..., height, width)``."""
        rows = slice(self.top, self.top + self.height)
        return images[..., rows, self.left : self.left + self.width]

    def check_inside(self, height: int, width: int) -> None:
        """Check that it holds a pixel and lies within an image of this size.

        Raises:
            ConfigError: If not.
        """
        spans = ((self.top, self.height, height), (self.left, self.width, width))
        if any(start < 0 or length < 1 or start + length > side for start, length, side in spans):
            raise ConfigError(
                f"The box of {self.height} x {self.width} pixels at row {self.top} and column "
                f"{self.left} does not fit into an image of {height} x {width}; make it with "
                "Placement.box for an image of this size."
            )


@dataclass(frozen=True, slots=True)
class Placement:
    """Size and place of the foreground, for an image of any size; (alpha, t) of the paper.

    Attributes:
        scale: Sides of the box as a share of the image's, above 0 and at most 1; alpha.
        x: Share of the free columns that lie left of the box: 0 is flush left, 1 flush right.
        y: Share of the free rows that lie above the box: 0 is flush with the top, 1 with the
            bottom.
    """

    scale: float
    x: float
    y: float

    def __post_init__(self) -> None:
        if not 0.0 < self.scale <= 1.0:
            raise ConfigError(f"scale is {self.scale!r}, but it must be above 0 and at most 1.")
        for name, share in (("x", self.x), ("y", self.y)):
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"{name} is {share!r}, but it must be a number from 0 to 1.")

    @classmethod
    def named(cls, position: str, scale: float) -> Placement:
        """The placement at one of ``POSITIONS``.

        Raises:
            ConfigError: If the name is none of them, or the scale is out of range.
        """
        if position not in POSITIONS:
            known = ", ".join(POSITIONS)
            raise ConfigError(f"position is {position!r}, but it must be one of {known}.")
        return cls(scale, *POSITIONS[position])

    @property
    def name(self) -> str:
        """What a person calls it: "top left 0.65", or "x 0.30 y 0.80 0.65" between positions."""
        names = {place: position for position, place in POSITIONS.items()}
        position = names.get((self.x, self.y), f"x {self.x:.2f} y {self.y:.2f}")
        return f"{position} {self.scale:g}"

    def box(self, height: int, width: int, aspect: float | None = None) -> Box:
        """The box in an image of a given size.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
            aspect: Width over height of what is pasted, which the box then has as well: the
                largest such box within ``scale`` of both sides. None means ``scale`` of both.

        Returns:
            A box of at least one pixel.

        Raises:
            ConfigError: If the aspect is not a number above 0.

        References:
            Liu et al. 2021, section 3.3, names the positions without their pixels. That the ends
            are flush with the border, and that sides are rounded and offsets rounded down, is
            the natural reading. Differs: any place between the nine, and any aspect.
        """
        rows, columns = (max(1, round(self.scale * side)) for side in (height, width))
        if aspect is not None:
            if not 0.0 < aspect < math.inf:
                raise ConfigError(f"aspect is {aspect!r}, but it must be a number above 0.")
            narrow, low = max(1, round(rows * aspect)), max(1, round(columns / aspect))
            rows, columns = min(rows, low), min(columns, narrow)
        return Box(int((height - rows) * self.y), int((width - columns) * self.x), rows, columns)


def all_placements(
    scales: Sequence[float] = SCALES, positions: Sequence[str] = tuple(POSITIONS)
) -> tuple[Placement, ...]:
    """Every position at every scale: by default the 18 that the paper tries one by one.

    Raises:
        ConfigError: If a name is none of ``POSITIONS``, or a scale is out of range.
    """
    return tuple(Placement.named(position, scale) for scale in scales for position in positions)


def box_masks(
    boxes: Sequence[Box],
    height: int,
    width: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Masks that are 1 in the box and 0 elsewhere, M of the paper.

    Args:
        boxes: B boxes.
        height: Height of the masks in pixels.
        width: Width of the masks in pixels.
        device: Where to.
        dtype: Their type.

    Returns:
        Masks, shape ``(B, 1, H, W)``.

    Raises:
        ConfigError: If a box does not lie within the image.
    """
    vertical, horizontal = _spans(boxes, height, width, torch.device(device))
    rows, columns = _inside(vertical, height), _inside(horizontal, width)
    # (B, H), (B, W) -> (B, 1, H, W)
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(dtype)


def place(foreground: Tensor, boxes: Sequence[Box], height: int, width: int) -> Tensor:
    """Resize each image into its own box on an empty canvas; deterministic, differentiable.

    Args:
        foreground: Images, shape ``(B, 3, h0, w0)``.
        boxes: One for each image; all may differ.
        height: Height of the canvas in pixels.
        width: Width of the canvas in pixels.

    Returns:
        Canvases, shape ``(B, 3, H, W)``; 0 outside the box.

    Raises:
        ShapeError: If the images are not ``(B, 3, h0, w0)`` with one box each.
        ConfigError: If a box does not lie within the canvas.

    References:
        Liu et al. 2021, section 3.3. The resize, which the paper leaves open, is bilinear with
        antialiasing: that of ``F.interpolate(..., antialias=True)``.
    """
    _check_images(foreground, boxes)
    vertical, horizontal = _spans(boxes, height, width, foreground.device)
    rows = _resampling(vertical, height, foreground.shape[-2], foreground.dtype)
    columns = _resampling(horizontal, width, foreground.shape[-1], foreground.dtype)
    return rows[:, None] @ foreground @ columns[:, None].mT


def paste(foreground: Tensor, background: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Resize each foreground into its box and lay it over the background, I of the paper.

    ``I = M * place(foreground) + (1 - M) * background``, differentiable in both.

    Args:
        foreground: Images, shape ``(B, 3, h0, w0)``, in ``[-1, 1]``.
        background: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        boxes: One for each pair; all may differ.

    Returns:
        Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.

    Raises:
        ShapeError: If the images are not RGB, with one foreground, background and box each.
        ConfigError: If a box does not lie within the background.

    References:
        Liu et al. 2021, section 3.3, in prose; the formula is reconstructed from it.
    """
    _check_images(background, boxes)
    height, width = background.shape[-2:]
    placed = place(foreground, boxes, height, width)
    masks = box_masks(boxes, height, width, device=background.device, dtype=background.dtype)
    return placed + (1.0 - masks) * background  # M * placed is placed itself


def _check_images(images: Tensor, boxes: Sequence[Box]) -> None:
    """Check that there is one RGB image for each box."""
    if images.ndim != 4 or images.shape[:2] != (len(boxes), 3) or 0 in images.shape:
        raise ShapeError(
            f"The images have the shape {tuple(images.shape)} and there are {len(boxes)} boxes, "
            "but (B, 3, height, width) and B boxes are needed; give one RGB image for each box."
        )


def _spans(boxes: Sequence[Box], height: int, width: int, device: torch.device) -> Tensor:
    """Start and length of each box on either axis, shape ``(2, B, 2)``, int64; checks the boxes."""
    for box in boxes:
        box.check_inside(height, width)
    vertical = [(box.top, box.height) for box in boxes]
    horizontal = [(box.left, box.width) for box in boxes]
    return torch.tensor([vertical, horizontal], device=device)


def _inside(spans: Tensor, side: int) -> Tensor:
    """Which pixels of an axis lie in the spans ``(B, 2)``, shape ``(B, side)``."""
    pixels = torch.arange(side, device=spans.device) - spans[:, :1]
    return (pixels >= 0) & (pixels < spans[:, 1:])


def _resampling(spans: Tensor, side: int, old_side: int, dtype: torch.dtype) -> Tensor:
    """The matrices ``(B, side, old_side)`` that resample one axis into the spans ``(B, 2)``.

    Row o says what makes pixel o; it sums to 1 inside the span and is 0 outside. Bilinear weights
    are a triangle about the point of the old axis under the pixel's centre, one old pixel to each
    side or, where that is more, one new pixel (the antialiasing). In units of ``1 / (2 * length)``
    old pixels every distance is a whole number, so that nothing is rounded before the division.
    """
    starts, lengths = spans[:, :1, None], spans[:, 1:, None]  # (B, 1, 1)
    old = torch.arange(old_side, device=spans.device)
    new = torch.arange(side, device=spans.device)[:, None] - starts  # (B, side, 1)
    distance = ((2 * old + 1) * lengths - (2 * new + 1) * old_side).abs()  # (B, side, old_side)
    triangle = (2 * lengths.clamp(min=old_side) - distance).clamp(min=0)
    weights = triangle * _inside(spans, side)[..., None]
    return weights.to(dtype) / weights.sum(dim=-1, keepdim=True).clamp(min=1)
