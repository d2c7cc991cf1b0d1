"""The augmentations of AugCLIP: DiffAugment's colour, translation and cutout, and a resize.

Parameters are drawn by ``sample_params`` and applied by ``apply_params``, so that a draw can be
repeated or shared between images. Paper: Liu et al. 2021, section 3.1.
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

NUM_DRAWN = 8  # random numbers per view
Resize = tuple[Tensor, Tensor]  # matrices of both axes, (H', H) and (W', W)


@dataclass(frozen=True, slots=True, eq=False)
class AugmentParams(Record):
    """Parameters of n augmented views for each of G images, or shared by all images (G = 1).

    A parameter that is not in the policy is None. Sizes and positions are in pixels.

    Attributes:
        num: n, the number of views per image.
        image_size: Height and width of the images.
        brightness: Added brightness, shape ``(G, n)``.
        saturation: Factors of the difference from grey, shape ``(G, n)``.
        contrast: Factors of the difference from the image's mean, shape ``(G, n)``.
        shift: Offset of the read rows and columns, shape ``(G, n, 2)``, int64.
        size: Height and width after the zoom, shape ``(G, n, 2)``, int64.
        box: Top and left of the cutout box, shape ``(G, n, 2)``, int64.
        box_size: Height and width of the cutout box.
        stratified: Whether the n views are a Latin hypercube, whose mean has a lower variance than
            that of independent views.
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
        """G, the number of images with separate parameters; 1 if they are shared."""
        return next((len(values) for values in self.drawn().values()), 1)

    def part(self, rows: slice | list[int]) -> AugmentParams:
        """Return the parameters of some images; shared parameters are returned as they are."""
        if self.num_groups == 1:
            return self
        return _replace(self, {name: values[rows] for name, values in self.drawn().items()})

    def views(self, some: slice) -> AugmentParams:
        """Return the parameters of some views of each image, which are not stratified any more."""
        num = len(range(*some.indices(self.num)))
        cut = {name: values[:, some] for name, values in self.drawn().items()}
        return dataclasses.replace(_replace(self, cut), num=num, stratified=False)

    def drawn(self) -> dict[str, Tensor]:
        """Return the drawn tensors by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def sample_params(
    num: int, height: int, width: int, *, config: AugmentConfig, generator: torch.Generator
) -> AugmentParams:
    """Draw the parameters of ``num`` augmented views.

    Args:
        num: Number of views per image.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        config: Policy and strengths (``config.num_augments`` is ignored).
        generator: CPU generator, advanced by this call.

    Returns:
        Parameters with G = 1, on the CPU; ``join_params`` concatenates several.

    References:
        gnobitab/FuseDream, ``DiffAugment_pytorch.py``. Differs: each view has its own
        zoom, where upstream shares one (``config.shared_zoom``); and views are stratified, where
        upstream's are independent (``config.draws``).
    """
    stratified = config.draws == "stratified"
    draw = rng.stratified if stratified else rng.independent
    params = params_at(draw(num, NUM_DRAWN, generator=generator), height, width, config=config)
    return dataclasses.replace(params, stratified=stratified)


def params_at(numbers: Tensor, height: int, width: int, *, config: AugmentConfig) -> AugmentParams:
    """Map uniform random numbers to augmentation parameters.

    Args:
        numbers: Shape ``(num, NUM_DRAWN)``, in ``[0, 1]``: per view brightness, saturation,
            contrast, shift (2), zoom, and position of the box (2).
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        config: Policy and strengths.
    """
    sides, num = (height, width), len(numbers)
    box_size = (int(height * config.cutout + 0.5), int(width * config.cutout + 0.5))
    columns = numbers.T[:, None]  # (NUM_DRAWN, 1, num)

    def factor(column: int, strength: float) -> Tensor:
        return 1.0 + strength * (2.0 * columns[column] - 1.0)

    def per_axis(first: int, ranges: Sequence[tuple[int, int]]) -> Tensor:
        """Integers ``(1, num, 2)``, one range per axis, both ends included."""
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
        # The centre may be on the border, and for an even box one beyond the last pixel.
        centre = per_axis(6, [(0, s - b % 2) for s, b in zip(sides, box_size, strict=True)])
        drawn["box"] = centre - torch.tensor(box_size) // 2
    return _replace(AugmentParams(num=num, image_size=sides, box_size=box_size), drawn)


def join_params(draws: Sequence[AugmentParams]) -> AugmentParams:
    """Concatenate draws of one size and policy along G, one draw per image of a batch."""
    names = draws[0].drawn()
    return _replace(
        draws[0], {name: torch.cat([draw.drawn()[name] for draw in draws]) for name in names}
    )


def _replace(params: AugmentParams, drawn: dict[str, Tensor]) -> AugmentParams:
    """Return the parameters with other tensors."""
    return dataclasses.replace(params, **drawn)  # type: ignore[arg-type]


def apply_params(images: Tensor, params: AugmentParams, *, resize: Resize | None = None) -> Tensor:
    """Return the augmented views of each image; deterministic and differentiable.

    Pixels that a shift, zoom or box leaves uncovered are 0, mid-grey, which CLIP's normalisation
    maps to about 0. Colours are not clamped.

    Translation, zoom, cutout and the final resize are two small matrices per view, so views exist
    only at their final size. Colour augmentations are affine and equal for all pixels, so they are
    applied last, to the resized views. This is exact because the added terms are weighted by the
    coverage of each pixel.

    Args:
        images: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        params: Parameters for this size with G = B, or with G = 1 for all images.
        resize: Matrices ``(H', H)`` and ``(W', W)`` of a final resize.

    Returns:
        Views, shape ``(B, n, 3, H, W)``, or ``(B, n, 3, H', W')`` with a resize.

    Raises:
        ConfigError: If the parameters are for another number of images.
        ShapeError: If the parameters are for another size.

    References:
        Liu et al. 2021, section 3.1; gnobitab/FuseDream, ``DiffAugment_pytorch.py``: colour,
        translation, resize, cutout, in this order.
    """
    if tuple(images.shape[-2:]) != params.image_size:
        raise ShapeError(
            f"The augmentation was drawn for {params.image_size} pixels, but the images are "
            f"{tuple(images.shape[-2:])}; draw it for their size."
        )
    if params.num_groups not in (1, len(images)):
        raise ConfigError(
            f"The augmentation was drawn for {params.num_groups} images, but there are "
            f"{len(images)}; draw one for all of them, or one for each."
        )
    params = params.to(images.device)
    rows, columns = (
        _axis_matrices(params, axis, images, None if resize is None else resize[axis])
        for axis in (0, 1)
    )
    views = _cut_out(_resample(images, rows, columns))
    covered = _cut_out(rows.sum(-1)[..., None, :, None] * columns.sum(-1)[..., None, None, :])
    return _change_colors(views, covered, images, params)


def _change_colors(views: Tensor, covered: Tensor, images: Tensor, params: AugmentParams) -> Tensor:
    """Apply saturation, contrast and brightness to views ``(B, n, 3, H, W)``."""
    if params.saturation is not None:
        grey = views.mean(dim=2, keepdim=True)
        views = torch.lerp(grey, views, _per_view(params.saturation, views))
    added = None
    if params.contrast is not None:
        contrast = _per_view(params.contrast, views)
        mean = images.mean(dim=(1, 2, 3))[:, None, None, None, None]
        views, added = contrast * views, (1.0 - contrast) * mean
    if params.brightness is not None:
        brightness = _per_view(params.brightness, views)
        added = brightness if added is None else added + brightness
    return views if added is None else torch.addcmul(views, added, covered)


def _per_view(values: Tensor, views: Tensor) -> Tensor:
    """Broadcast values ``(G, n)`` to views ``(B, n, 3, H, W)``, in their dtype."""
    return values.to(views.dtype)[:, :, None, None, None]


def _resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply the matrices ``(G, n, p, side', side)`` of both axes: ``(B, n, p, 3, H', W')``."""
    num, channels, height, width = images.shape
    across = images.permute(0, 2, 1, 3).reshape(num, height, channels * width)
    resized = rows.flatten(1, 3) @ across  # (B, n * p * H', 3 * W)
    resized = resized.view(num, *rows.shape[1:3], -1, width)  # (B, n, p, H' * 3, W)
    resized = resized @ columns.mT
    return resized.view(num, *rows.shape[1:4], channels, -1).transpose(3, 4)


def _cut_out(parts: Tensor) -> Tensor:
    """Subtract the box content (p = 1) from the view (p = 0) of a tensor ``(G, n, p, ...)``."""
    return parts[:, :, 0] if parts.shape[2] == 1 else parts[:, :, 0] - parts[:, :, 1]


def _axis_matrices(params: AugmentParams, axis: int, like: Tensor, resize: Tensor | None) -> Tensor:
    """Return the matrices ``(G, n, p, side', side)`` of one axis.

    With cutout, p is 2, and the second matrix selects the content of the box; otherwise p is 1.
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
    """Return the resampling matrix ``(G, n, side, side)`` of one axis; row o is output pixel o.

    The zoom is a bilinear resize, then a crop or pad about the centre. Output pixel o has its
    centre at ``source`` on the input axis, and its bilinear weights are a triangle around it. A
    shift moves the triangle; pixels outside of the image count as 0.
    """
    side = params.image_size[axis]
    precise = torch.promote_types(like.dtype, torch.float32)  # half precision cannot count pixels
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
