"""The augmentations of AugCLIP: DiffAugment's colour, translation and cutout, and a resize.

Drawing (``sample_params``) is apart from applying (``apply_params``), so that a draw can be
replayed, shared between pictures or replaced. Paper: Liu et al. 2021, section 3.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import rng
from ..config import Augment, AugmentConfig
from ..errors import ConfigError, ShapeError
from ..types import Record

NUM_DRAWN = 8  # random numbers for each copy
Resize = tuple[Tensor, Tensor]  # what makes the rows and the columns of a new size, (side', side)


@dataclass(frozen=True, slots=True, eq=False)
class AugmentParams(Record):
    """A draw of n changes for each of G pictures, or (G = 1) for any number of pictures alike.

    A change that the policy leaves out is None. Sizes and places are in pixels.

    Attributes:
        num: n, the number of copies of each picture.
        image_size: Height and width of the pictures it was drawn for.
        brightness: What is added, shape ``(G, n)``.
        saturation: Factors on the distance from grey, shape ``(G, n)``.
        contrast: Factors on the distance from the picture's mean, shape ``(G, n)``.
        shift: Rows and columns that the picture is read further on, shape ``(G, n, 2)``, int64.
        size: Height and width after the zoom, shape ``(G, n, 2)``, int64.
        box: Top and left of the box that is cut out, shape ``(G, n, 2)``, int64.
        box_size: Height and width of that box.
        stratified: Whether the n changes of each picture are spread evenly over their ranges, so
            that their mean has less noise than that of independent ones.
    """

    num: int
    image_size: tuple[int, int]
    box_size: tuple[int, int]
    brightness: Tensor | None = None
    saturation: Tensor | None = None
    contrast: Tensor | None = None
    shift: Tensor | None = None
    size: Tensor | None = None
    box: Tensor | None = None
    stratified: bool = False

    @property
    def num_groups(self) -> int:
        """G: how many pictures have a draw of their own, or 1 if all share one."""
        return next((len(values) for values in self.drawn().values()), 1)

    def part(self, rows: slice | list[int]) -> AugmentParams:
        """The draws of some of the pictures; of all of them, if they share one."""
        if self.num_groups == 1:
            return self
        return _replace(self, {name: values[rows] for name, values in self.drawn().items()})

    def copies(self, some: slice) -> AugmentParams:
        """The draws of some of each picture's copies, which are not spread evenly any more."""
        num = len(range(*some.indices(self.num)))
        cut = {name: values[:, some] for name, values in self.drawn().items()}
        return dataclasses.replace(_replace(self, cut), num=num, stratified=False)

    def drawn(self) -> dict[str, Tensor]:
        """The tensors of the draw, by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def sample_params(
    num: int, height: int, width: int, *, config: AugmentConfig, generator: torch.Generator
) -> AugmentParams:
    """Draw ``num`` changes for pictures of a given size.

    Args:
        num: Number of copies that will be made of each picture.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        config: Which changes, and how strong (``config.num_augments`` is not read).
        generator: CPU generator, advanced by this call.

    Returns:
        The draw, G = 1, on the CPU; ``join_params`` puts several together.

    References:
        gnobitab/FuseDream, ``DiffAugment_pytorch.py``. Differs: the zoom is drawn for each copy,
        where upstream has one for all (``config.shared_zoom``); and the copies are spread evenly
        over the range of each change, where upstream's are independent (``config.draws``).
    """
    stratified = config.draws == "stratified"
    draw = rng.stratified if stratified else rng.independent
    params = params_at(draw(num, NUM_DRAWN, generator=generator), height, width, config=config)
    return dataclasses.replace(params, stratified=stratified)


def params_at(numbers: Tensor, height: int, width: int, *, config: AugmentConfig) -> AugmentParams:
    """The changes that uniform random numbers stand for.

    Args:
        numbers: Shape ``(num, NUM_DRAWN)``, in ``[0, 1]``: for each copy brightness, saturation,
            contrast, shift, zoom, and place of the box.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        config: Which changes, and how strong.
    """
    sides, num = (height, width), len(numbers)
    box_size = (int(height * config.cutout + 0.5), int(width * config.cutout + 0.5))
    columns = numbers.T[:, None]  # (NUM_DRAWN, 1, num)

    def factor(column: int, strength: float) -> Tensor:
        return 1.0 + strength * (2.0 * columns[column] - 1.0)

    def per_axis(first: int, ranges: Sequence[tuple[int, int]]) -> Tensor:
        """Whole numbers of each axis, both ends of its range included, ``(1, num, 2)``."""
        axes = [
            (low + (values * (high - low + 1)).long()).clamp(max=high)
            for values, (low, high) in zip(columns[first : first + 2], ranges, strict=True)
        ]
        return torch.stack(axes, dim=-1)

    drawn: dict[str, Tensor] = {}
    if Augment.BRIGHTNESS in config.policy:
        drawn["brightness"] = config.brightness * (2.0 * columns[0] - 1.0)
    if Augment.SATURATION in config.policy:
        drawn["saturation"] = factor(1, config.saturation)
    if Augment.CONTRAST in config.policy:
        drawn["contrast"] = factor(2, config.contrast)
    if Augment.TRANSLATION in config.policy:
        steps = [int(side * config.translation + 0.5) for side in sides]
        drawn["shift"] = per_axis(3, [(-step, step) for step in steps])
    if Augment.RESIZE in config.policy:
        zoom = factor(5, config.resize)
        zoom = zoom[:, :1].expand(1, num) if config.shared_zoom else zoom
        drawn["size"] = (zoom[..., None] * torch.tensor(sides)).long().clamp(min=1)
    if Augment.CUTOUT in config.policy:
        # The centre may lie on the border, and for an even box one beyond the last pixel.
        centre = per_axis(6, [(0, s - b % 2) for s, b in zip(sides, box_size, strict=True)])
        drawn["box"] = centre - torch.tensor(box_size) // 2
    return _replace(AugmentParams(num=num, image_size=sides, box_size=box_size), drawn)


def join_params(draws: Sequence[AugmentParams]) -> AugmentParams:
    """Put draws of one size and policy together along G, one for each picture of a batch."""
    names = draws[0].drawn()
    return _replace(
        draws[0], {name: torch.cat([draw.drawn()[name] for draw in draws]) for name in names}
    )


def _replace(params: AugmentParams, drawn: dict[str, Tensor]) -> AugmentParams:
    """The same draw with other tensors."""
    return dataclasses.replace(params, **drawn)  # type: ignore[arg-type]


def apply_params(images: Tensor, params: AugmentParams, *, resize: Resize | None = None) -> Tensor:
    """Make the changed copies of each picture; deterministic and differentiable.

    What a shift, zoom or box leaves uncovered is 0, mid-grey, which CLIP's normalisation maps to
    about 0. Colours are not clamped.

    All changes of place are two small matrices for each copy, and so is a resize after them: the
    copies are made at their last size, and none is ever there at the picture's. Colours change
    alike in all pixels, so they are changed last, on the few pixels that are left; exactly so, as
    long as what is added is weighted by how much of a pixel is covered.

    Args:
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        params: A draw for this size with G = B, or G = 1 for the same changes on each picture.
        resize: Matrices ``(H', H)`` and ``(W', W)`` that change the copies' size at the end.

    Returns:
        Copies, shape ``(B, n, 3, H, W)``, or ``(B, n, 3, H', W')`` after a resize.

    Raises:
        ConfigError: If the draw is for another number of pictures.
        ShapeError: If it is for another size.

    References:
        Liu et al. 2021, section 3.1; gnobitab/FuseDream, ``DiffAugment_pytorch.py``: colour,
        translation, resize, cutout, in this order.
    """
    if tuple(images.shape[-2:]) != params.image_size:
        raise ShapeError(
            f"The augmentation was drawn for {params.image_size} pixels, but the pictures are "
            f"{tuple(images.shape[-2:])}; draw it for their size."
        )
    if params.num_groups not in (1, len(images)):
        raise ConfigError(
            f"The augmentation was drawn for {params.num_groups} pictures, but there are "
            f"{len(images)}; draw one for all of them, or one for each."
        )
    params = params.to(images.device)
    rows, columns = (
        _axis_matrices(params, axis, images, None if resize is None else resize[axis])
        for axis in (0, 1)
    )
    copies = _less_box(_resample(images, rows, columns))
    covered = _less_box(rows.sum(-1)[..., None, :, None] * columns.sum(-1)[..., None, None, :])
    return _change_colors(copies, covered, images, params)


def _change_colors(
    copies: Tensor, covered: Tensor, images: Tensor, params: AugmentParams
) -> Tensor:
    """Brightness, saturation and contrast of copies ``(B, n, 3, H, W)`` that were moved before."""
    if params.saturation is not None:
        grey = copies.mean(dim=2, keepdim=True)
        copies = torch.lerp(grey, copies, _per_copy(params.saturation, copies))
    added = None
    if params.contrast is not None:
        contrast = _per_copy(params.contrast, copies)
        mean = images.mean(dim=(1, 2, 3))[:, None, None, None, None]
        copies, added = contrast * copies, (1.0 - contrast) * mean
    if params.brightness is not None:
        brightness = _per_copy(params.brightness, copies)
        added = brightness if added is None else added + brightness
    return copies if added is None else torch.addcmul(copies, added, covered)


def _per_copy(values: Tensor, copies: Tensor) -> Tensor:
    """Numbers ``(G, n)`` in the type of the copies and ready to meet ``(B, n, 3, H, W)``."""
    return values.to(copies.dtype)[:, :, None, None, None]


def _resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """All axes' matrices ``(G, n, p, side', side)`` on all pictures: ``(B, n, p, 3, H', W')``."""
    num, channels, height, width = images.shape
    across = images.permute(0, 2, 1, 3).reshape(num, height, channels * width)
    tall = rows.flatten(1, 3) @ across  # (B, n * p * H', 3 * W)
    tall = tall.view(num, *rows.shape[1:3], -1, width)  # (B, n, p, H' * 3, W)
    small = tall @ columns.mT
    return small.view(num, *rows.shape[1:4], channels, -1).transpose(3, 4)


def _less_box(parts: Tensor) -> Tensor:
    """The picture less what is in its box: both are parts of one tensor, ``(G, n, p, ...)``."""
    return parts[:, :, 0] if parts.shape[2] == 1 else parts[:, :, 0] - parts[:, :, 1]


def _axis_matrices(params: AugmentParams, axis: int, like: Tensor, resize: Tensor | None) -> Tensor:
    """The matrices ``(G, n, p, side', side)`` of one axis.

    p is 1, or 2 where something is cut out: the second are those of what the box shows.
    """
    matrix = _axis_matrix(params, axis, like)
    parts = [matrix]
    if params.box is not None:
        offset = torch.arange(params.image_size[axis], device=like.device)
        offset = offset - params.box[..., axis, None]  # (G, n, side)
        inside = (offset >= 0) & (offset < params.box_size[axis])
        parts.append(matrix * inside[..., None])
    matrices = torch.stack(parts, dim=2)
    matrices = matrices if resize is None else resize.to(matrices) @ matrices
    return matrices.to(like.dtype)


def _axis_matrix(params: AugmentParams, axis: int, like: Tensor) -> Tensor:
    """The matrix ``(G, n, side, side)`` that moves one axis; row o says what makes pixel o.

    Zooming is bilinear to a new size, then cropped or padded about the centre. Output pixel o is
    pixel ``o + offset`` of the zoomed axis, whose centre lies at ``source`` on the old one, and
    bilinear weights are a triangle around it. Shifting moves that triangle on, to pixels that
    may lie outside the picture and then count as 0.
    """
    side = params.image_size[axis]
    precise = torch.promote_types(like.dtype, torch.float32)  # half a precision cannot count pixels
    pixels = torch.arange(side, device=like.device)
    source = pixels.to(precise).expand(params.num_groups, params.num, side)
    inside = torch.ones_like(pixels, dtype=torch.bool)
    if params.size is not None:
        size = params.size[..., axis, None]  # (G, n, 1)
        margin = torch.where(size < side, side - size, size - side) // 2
        zoomed = pixels + torch.where(size < side, -margin, margin)  # (G, n, side)
        inside = (zoomed >= 0) & (zoomed < size)
        source = ((zoomed + 0.5) * (side / size.to(precise)) - 0.5).clamp(0.0, side - 1.0)
    if params.shift is not None:
        source = source + params.shift[..., axis, None]
    triangle = (1.0 - (source[..., None] - pixels).abs()).clamp(min=0.0)
    return triangle * inside[..., None]
