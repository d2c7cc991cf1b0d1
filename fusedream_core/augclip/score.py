"""The two scores of the paper: CLIP's cosine, and AugCLIP, its mean over augmented copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..checks import check_shape, check_targets
from ..config.require import require_count
from ..errors import ConfigError
from ..memory import Limit
from ..models.clip.base import ImageTextEncoder
from ..types import Score, Target
from .augment import AugmentParams, apply_params

# What all smooth effects of single changes may have of variance, over what they leave; and how
# strongly ratios near 1 are preferred. On the demo models it is 1.3 on average.
_RATIOS = 2.0 ** torch.arange(-3.0, 7.0)
_PRIOR = 0.1  # of the squared logarithm


def text_features(targets: Sequence[Target], clip: ImageTextEncoder) -> Tensor:
    """Features of targets as one matrix ``(T, D)`` on the encoder's device.

    Raises:
        ConfigError: If there is none, or one was encoded by another CLIP.
    """
    check_targets(targets, clip.clip_id)
    return torch.stack([target.features.to(clip.device) for target in targets])


def _text_of_each(
    images: Tensor, targets: Target | Sequence[Target], clip: ImageTextEncoder
) -> Tensor:
    """The text feature of each picture, shape ``(B, D)``."""
    several = [targets] if isinstance(targets, Target) else targets
    if len(several) not in (1, len(images)):
        raise ConfigError(
            f"There are {len(several)} targets for {len(images)} pictures; "
            "give one for all of them, or one for each."
        )
    return text_features(several, clip).expand(len(images), -1)


def clip_score(
    images: Tensor, targets: Target | Sequence[Target], clip: ImageTextEncoder
) -> Tensor:
    """CLIP similarity of each picture and its text, s_CLIP of the paper.

    Args:
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        targets: One for all pictures, or one for each.
        clip: Frozen encoder; its input size sets the resize.

    Returns:
        Cosines, shape ``(B,)``; CLIP's logit scale is not applied. Differentiable.

    Raises:
        ShapeError: If the pictures are not ``(B, 3, H, W)``.
        ConfigError: If the targets are another CLIP's, or neither one nor B.
    """
    check_shape(images)
    return (clip.encode_images(images) * _text_of_each(images, targets, clip)).sum(dim=-1)


def aug_clip_score(
    images: Tensor,
    targets: Target | Sequence[Target],
    clip: ImageTextEncoder,
    *,
    params: AugmentParams,
    clip_batch: int | None = None,
) -> Score:
    """Mean CLIP similarity between a text and augmented copies of each picture, s_AugCLIP.

    Averaging over augmentations removes the adversarial maxima of the plain score: noise that
    fools CLIP on the picture itself does not survive its changes.

    Args:
        images: Pictures, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        targets: One for all pictures, or one for each.
        clip: Frozen encoder.
        params: The changes, from ``sample_params``: the same for each picture (common random
            numbers, for a fair comparison), or joined from a draw for each.
        clip_batch: Most copies that CLIP sees at once; None means all. Sets the memory, for
            gradients too, and not the result.

    Returns:
        Mean and its standard error over draws like ``params``, shape ``(B,)`` each. The mean is
        differentiable, once if the copies are seen in several batches.

    Raises:
        ShapeError: If the pictures are not ``(B, 3, H, W)``, or the changes were drawn for
            another size.
        ConfigError: If the changes were drawn for another number of pictures, or the targets
            are another CLIP's, or neither one nor B.

    References:
        Liu et al. 2021, section 3.1. Code: gnobitab/FuseDream, ``AugmentLoss``. Differs: draws
        are handed in; the text is encoded once; the resize to CLIP's size is antialiased.
    """
    check_shape(images)
    texts = _text_of_each(images, targets, clip)
    pieces = _pieces(len(images), params.num, clip_batch)

    def score(pictures: Tensor, piece: _Piece) -> Tensor:
        own = params.part(piece.rows).copies(piece.copies)
        return _copy_scores(pictures, texts[piece.rows], clip, own)

    if len(pieces) == 1:
        cosines = score(images, pieces[0])
        means = cosines.mean(dim=1)
    else:
        watched = torch.is_grad_enabled() and images.requires_grad
        means, cosines = _MeanOfPieces.apply(images, params.num, score, pieces, watched)  # type: ignore[no-untyped-call]
    return Score(means, _standard_errors(cosines.detach(), params))


def _standard_errors(cosines: Tensor, params: AugmentParams) -> Tensor:
    """The standard error ``(B,)`` of each picture's mean of cosines ``(B, n)``; NaN if n is 1.

    Over independent draws it is their deviation over the root of n. Stratified draws take what
    single changes do to a score out of the mean's noise, but not out of that deviation, which then
    is some 1.5 times too large: there it is the deviation of what single changes do not explain.

    References:
        Stein 1987: the mean of a Latin hypercube has the variance of what is not additive.
    """
    if params.num == 1:
        return torch.full_like(cosines[:, 0], torch.nan)
    deviations = cosines - cosines.mean(dim=1, keepdim=True)
    if params.stratified and params.drawn():
        variances = _unexplained_variance(deviations, params)
    else:
        variances = deviations.square().sum(dim=1) / (params.num - 1)
    return (variances / params.num).sqrt()


def _unexplained_variance(deviations: Tensor, params: AugmentParams) -> Tensor:
    """Of numbers ``(B, n)`` with mean 0, the variance that no single change explains, ``(B,)``.

    A random-effects model: a linear and a quadratic effect of each change, all of one variance,
    beside noise. For a known ratio of the two variances there are n - 1 degrees of freedom, so few
    copies are enough; the ratios of ``_RATIOS`` count by their restricted likelihood.
    """
    effects = _smooth_effects(params)  # (G, n, p)
    sizes, axes = torch.linalg.eigh(effects @ effects.mT / effects.shape[-1])
    spectrum = (axes.to(deviations) * deviations[..., None]).sum(dim=-2).square()  # (B, n)
    ratios = _RATIOS.to(deviations)[:, None]
    scales = 1.0 + ratios[..., None] * sizes.clamp_min(0.0).to(deviations)  # (R, G, n)
    variances = (spectrum / scales).sum(dim=-1) / (params.num - 1)  # (R, B)
    information = scales.log().sum(dim=-1) + (params.num - 1) * variances.clamp_min(1e-30).log()
    likelihoods = -0.5 * information - _PRIOR * ratios.log().square()
    found: Tensor = (likelihoods.softmax(dim=0) * variances).sum(dim=0)
    return found


def _smooth_effects(params: AugmentParams) -> Tensor:
    """Of each change that was drawn its value and its square, ``(G, n, p)`` on the CPU."""
    drawn = dict(params.drawn())
    if "size" in drawn:
        drawn["size"] = drawn["size"][..., :1]  # one zoom for both axes
    columns = [values.cpu().double().view(*values.shape[:2], -1) for values in drawn.values()]
    values = _standardised(torch.cat(columns, dim=-1))
    return torch.cat([values, _standardised(values.square())], dim=-1)


def _standardised(columns: Tensor) -> Tensor:
    """Columns ``(G, n, p)`` less their means, over their deviations; 0 where these are 0."""
    centred = columns - columns.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(spread > 1e-12, centred / spread, 0.0)


def aug_clip_score_within(
    limit: Limit,
    images: Tensor,
    targets: Target | Sequence[Target],
    clip: ImageTextEncoder,
    *,
    params: AugmentParams,
) -> Score:
    """``aug_clip_score`` without gradients, of as many copies at once as limit and memory allow."""

    def score(copies: int) -> Score:
        with torch.no_grad():
            return aug_clip_score(images, targets, clip, params=params, clip_batch=copies)

    return limit.run(score, most=len(images) * params.num)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some copies of some pictures."""

    rows: slice
    copies: slice


def _pieces(num_images: int, num_copies: int, clip_batch: int | None) -> list[_Piece]:
    """All copies of all pictures, in even pieces of at most ``clip_batch`` copies each."""
    size = num_images * num_copies if clip_batch is None else clip_batch
    require_count("clip_batch", size, 1)
    rows, copies = max(1, size // num_copies), min(size, num_copies)
    return [
        _Piece(tall, wide)
        for tall in _spans(num_images, rows)
        for wide in _spans(num_copies, copies)
    ]


def _spans(num: int, most: int) -> list[slice]:
    """As few spans of at most ``most`` as cover ``num``, none smaller than another by over one."""
    count = math.ceil(num / most)
    return [slice(num * i // count, num * (i + 1) // count) for i in range(count)]


class _MeanOfPieces(torch.autograd.Function):
    """Mean cosines ``(B,)`` and all of them ``(B, n)``, with the memory of one piece.

    Each piece is followed back to the pictures as soon as it is scored, where gradients add up;
    what is kept for the backward pass is one picture-sized gradient instead of CLIP's activations.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        images: Tensor,
        num_copies: int,
        score: Callable[[Tensor, _Piece], Tensor],
        pieces: Sequence[_Piece],
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        """Score all pieces; and their gradients, if these will be asked for."""
        gradient = torch.zeros_like(images) if wanted else None
        cosines: Tensor | None = None
        for piece in pieces:
            with torch.set_grad_enabled(wanted):
                leaf = images[piece.rows].detach().requires_grad_(wanted)
                found = score(leaf, piece)
                if gradient is not None:
                    gradient[piece.rows] += torch.autograd.grad(found.sum(), leaf)[0]
            if cosines is None:
                cosines = found.new_empty(len(images), num_copies)
            cosines[piece.rows, piece.copies] = found.detach()
        assert cosines is not None  # noqa: S101 - there is a piece
        if gradient is not None:
            ctx.save_for_backward(gradient / num_copies)
        ctx.mark_non_differentiable(cosines)
        return cosines.mean(dim=1), cosines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_means: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Each picture's gradient, as much as its mean counts."""
        (gradient,) = ctx.saved_tensors
        return gradient * of_means[:, None, None, None], None, None, None, None


def _copy_scores(
    images: Tensor, texts: Tensor, clip: ImageTextEncoder, params: AugmentParams
) -> Tensor:
    """Cosine of every copy with its picture's text, shape ``(B, n)``.

    An encoder that says how it resizes gets copies of its own size.
    """
    resizing = getattr(clip, "resizing", None)
    resize = None if resizing is None else resizing(*images.shape[-2:])
    copies = apply_params(images, params, resize=resize)  # (B, n, 3, H', W')
    features = clip.encode_images(copies.flatten(0, 1))  # (B * n, D)
    features = features.reshape(*copies.shape[:2], -1)  # (B, n, D)
    return (features * texts[:, None]).sum(dim=-1)
