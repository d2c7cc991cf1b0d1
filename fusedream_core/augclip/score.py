"""The two scores of the paper: CLIP's cosine, and AugCLIP, its mean over augmented views."""

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
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..types import Score, Target
from .augment import AugmentParams, apply_params

# Grid of ratios of the variance of smooth single-parameter effects to the residual variance, and a
# log-normal prior on the ratio. It is 1.3 on average on the demo models.
_VARIANCE_RATIOS = 2.0 ** torch.arange(-3.0, 7.0)
_LOG_RATIO_PENALTY = 0.1  # of the squared log ratio


def text_features(targets: Sequence[Target], clip: ImageTextEncoder) -> Tensor:
    """Stack the features of targets to ``(T, D)`` on the encoder's device.

    Raises:
        ConfigError: If there is no target, or one was encoded by another CLIP.
    """
    check_targets(targets, clip.clip_id)
    return torch.stack([target.features.to(clip.device) for target in targets])


def _texts_per_image(
    images: Tensor, targets: Target | Sequence[Target], clip: ImageTextEncoder
) -> Tensor:
    """Return one text feature per image, shape ``(B, D)``."""
    several = [targets] if isinstance(targets, Target) else targets
    if len(several) not in (1, len(images)):
        raise ConfigError(
            f"There are {len(several)} targets for {len(images)} images; "
            "give one for all of them, or one for each."
        )
    return text_features(several, clip).expand(len(images), -1)


def clip_score(
    images: Tensor, targets: Target | Sequence[Target], clip: ImageTextEncoder
) -> Tensor:
    """Cosine of each image and its text in CLIP, s_CLIP of the paper.

    Args:
        images: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        targets: One for all images, or one per image.
        clip: Frozen encoder; images are resized to its input size.

    Returns:
        Cosines, shape ``(B,)``; CLIP's logit scale is not applied. Differentiable.

    Raises:
        ShapeError: If the images are not ``(B, 3, H, W)``.
        ConfigError: If a target is of another CLIP, or their number is neither 1 nor B.
    """
    check_shape(images)
    return (clip.encode_images(images) * _texts_per_image(images, targets, clip)).sum(dim=-1)


def aug_clip_score(
    images: Tensor,
    targets: Target | Sequence[Target],
    clip: ImageTextEncoder,
    *,
    params: AugmentParams,
    clip_batch: int | None = None,
) -> Score:
    """Mean cosine of a text and the augmented views of each image, s_AugCLIP of the paper.

    Averaging over augmentations removes adversarial maxima of the plain score: noise that fools
    CLIP on the image itself does not survive augmentation.

    Args:
        images: Images, shape ``(B, 3, H, W)``, in ``[-1, 1]``.
        targets: One for all images, or one per image.
        clip: Frozen encoder.
        params: Augmentations from ``sample_params``: shared by all images (common random numbers),
            or one draw per image from ``join_params``.
        clip_batch: Views per micro-batch of CLIP; None means all. Changes memory, with gradients
            too, not the result.

    Returns:
        Mean, and its standard error over draws like ``params``, shape ``(B,)`` each. The mean is
        differentiable; with micro-batches only once.

    Raises:
        ShapeError: If the images are not ``(B, 3, H, W)``, or of another size than ``params``.
        ConfigError: If ``params`` are for another number of images, a target is of another CLIP,
            or the number of targets is neither 1 nor B.

    References:
        Liu et al. 2021, section 3.1. Code: gnobitab/FuseDream, ``AugmentLoss``. Differs: the
        augmentations are an argument; the text is encoded once; the resize is antialiased.
    """
    check_shape(images)
    texts = _texts_per_image(images, targets, clip)
    batches = _micro_batches(len(images), params.num, clip_batch)

    def score(images: Tensor, batch: _MicroBatch) -> Tensor:
        own = params.part(batch.rows).views(batch.views)
        return _view_scores(images, texts[batch.rows], clip, own)

    if len(batches) == 1:
        cosines = score(images, batches[0])
        means = cosines.mean(dim=1)
    else:
        differentiated = torch.is_grad_enabled() and images.requires_grad
        means, cosines = _MicroBatchedMean.apply(images, params.num, score, batches, differentiated)  # type: ignore[no-untyped-call]
    return Score(means, _standard_errors(cosines.detach(), params))


def _standard_errors(cosines: Tensor, params: AugmentParams) -> Tensor:
    """Return the standard error ``(B,)`` of the means of cosines ``(B, n)``; NaN if n is 1.

    For independent draws it is the sample standard deviation over sqrt(n). Stratification removes
    the additive effects of single parameters from the variance of the mean, so that estimate would
    be about 1.5 times too large. For stratified draws, only the residual variance counts.

    References:
        Stein 1987: the mean over a Latin hypercube has the variance of the non-additive part.
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
    """Return the residual variance ``(B,)`` of deviations ``(B, n)`` under a random-effects model.

    The model has a linear and a quadratic effect of each parameter, of one variance, plus noise.
    For a known ratio of the two variances there are n - 1 degrees of freedom, so few views are
    enough. The ratios of ``_VARIANCE_RATIOS`` are averaged by their restricted likelihood.
    """
    effects = _smooth_effects(params)  # (G, n, p)
    sizes, axes = torch.linalg.eigh(effects @ effects.mT / effects.shape[-1])
    spectrum = (axes.to(deviations) * deviations[..., None]).sum(dim=-2).square()  # (B, n)
    ratios = _VARIANCE_RATIOS.to(deviations)[:, None]
    scales = 1.0 + ratios[..., None] * sizes.clamp_min(0.0).to(deviations)  # (R, G, n)
    variances = (spectrum / scales).sum(dim=-1) / (params.num - 1)  # (R, B)
    information = scales.log().sum(dim=-1) + (params.num - 1) * variances.clamp_min(1e-30).log()
    likelihoods = -0.5 * information - _LOG_RATIO_PENALTY * ratios.log().square()
    found: Tensor = (likelihoods.softmax(dim=0) * variances).sum(dim=0)
    return found


def _smooth_effects(params: AugmentParams) -> Tensor:
    """Return each drawn parameter and its square, standardised, ``(G, n, p)`` on the CPU."""
    drawn = dict(params.drawn())
    if "size" in drawn:
        drawn["size"] = drawn["size"][..., :1]  # one zoom for both axes
    columns = [values.cpu().double().view(*values.shape[:2], -1) for values in drawn.values()]
    values = _standardised(torch.cat(columns, dim=-1))
    return torch.cat([values, _standardised(values.square())], dim=-1)


def _standardised(columns: Tensor) -> Tensor:
    """Standardise columns ``(G, n, p)``; constant columns become 0."""
    centred = columns - columns.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(spread > 1e-12, centred / spread, 0.0)


def aug_clip_score_within(
    batch_size: AutoBatchSize,
    images: Tensor,
    targets: Target | Sequence[Target],
    clip: ImageTextEncoder,
    *,
    params: AugmentParams,
) -> Score:
    """``aug_clip_score`` without gradients, in micro-batches that fit in memory."""

    def score(size: int) -> Score:
        with torch.no_grad():
            return aug_clip_score(images, targets, clip, params=params, clip_batch=size)

    return batch_size.run(score, most=len(images) * params.num)


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    """Some views of some images."""

    rows: slice
    views: slice


def _micro_batches(num_images: int, num_views: int, clip_batch: int | None) -> list[_MicroBatch]:
    """Split all views into even micro-batches of at most ``clip_batch`` views."""
    size = num_images * num_views if clip_batch is None else clip_batch
    require_count("clip_batch", size, 1)
    most_rows, most_views = max(1, size // num_views), min(size, num_views)
    return [
        _MicroBatch(rows, views)
        for rows in _spans(num_images, most_rows)
        for views in _spans(num_views, most_views)
    ]


def _spans(num: int, most: int) -> list[slice]:
    """Split ``range(num)`` into the fewest even slices of at most ``most``."""
    count = math.ceil(num / most)
    return [slice(num * i // count, num * (i + 1) // count) for i in range(count)]


class _MicroBatchedMean(torch.autograd.Function):
    """Mean cosines ``(B,)`` and all cosines ``(B, n)``, with the memory of one micro-batch.

    The backward pass of each micro-batch follows its forward pass, and gradients accumulate at the
    images. Only this gradient is saved for the outer backward pass, not CLIP's activations.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        images: Tensor,
        num_views: int,
        score: Callable[[Tensor, _MicroBatch], Tensor],
        batches: Sequence[_MicroBatch],
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        """Score all micro-batches, with their gradients if these are needed."""
        gradient = torch.zeros_like(images) if wanted else None
        cosines: Tensor | None = None
        for batch in batches:
            with torch.set_grad_enabled(wanted):
                leaf = images[batch.rows].detach().requires_grad_(wanted)
                found = score(leaf, batch)
                if gradient is not None:
                    gradient[batch.rows] += torch.autograd.grad(found.sum(), leaf)[0]
            if cosines is None:
                cosines = found.new_empty(len(images), num_views)
            cosines[batch.rows, batch.views] = found.detach()
        assert cosines is not None  # noqa: S101 - there is a micro-batch
        if gradient is not None:
            ctx.save_for_backward(gradient / num_views)
        ctx.mark_non_differentiable(cosines)
        return cosines.mean(dim=1), cosines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_means: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Scale each image's saved gradient by the gradient of its mean."""
        (gradient,) = ctx.saved_tensors
        return gradient * of_means[:, None, None, None], None, None, None, None


def _view_scores(
    images: Tensor, texts: Tensor, clip: ImageTextEncoder, params: AugmentParams
) -> Tensor:
    """Return the cosine of every view and its image's text, shape ``(B, n)``.

    Views are made at the encoder's input size if it has ``resizing``.
    """
    resizing = getattr(clip, "resizing", None)
    resize = None if resizing is None else resizing(*images.shape[-2:])
    views = apply_params(images, params, resize=resize)  # (B, n, 3, H', W')
    features = clip.encode_images(views.flatten(0, 1))  # (B * n, D)
    features = features.reshape(*views.shape[:2], -1)  # (B, n, D)
    return (features * texts[:, None]).sum(dim=-1)
