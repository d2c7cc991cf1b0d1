"""Dynamic-barrier gradient descent: a second objective that may not cost the first anything.

Paper: Liu et al. 2021, section 3.3; the method is Gong, Liu & Liu, "Bi-objective trade-off with
dynamic barrier gradient descent", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Barrier:
    """The direction of one step, for B runs.

    Attributes:
        direction: v, to be descended; shaped like the gradients.
        lambda_: lambda, how much of the score's gradient it holds, shape ``(B,)``.
        cosine: Of the angle between the two gradients, shape ``(B,)``; above 0 where the score
            cannot rise without the loss.
    """

    direction: list[Tensor]
    lambda_: Tensor
    cosine: Tensor


def dynamic_barrier(
    loss_gradients: Sequence[Tensor],
    score_gradients: Sequence[Tensor],
    *,
    beta: float,
    num_runs: int,
    metric: Sequence[Tensor] | None = None,
) -> Barrier:
    """Combine the gradients of a loss and of a score that comes before it.

    ``v = grad l - lambda grad s`` with ``lambda = max(beta + <grad l, grad s> / |grad s|^2, 0)``:
    of all directions in which the score rises at the rate of ``beta |grad s|^2`` or faster, the
    nearest to the loss's own gradient. The sign before the inner product is plus, since s is to
    be maximised.

    Args:
        loss_gradients: Gradients of the loss l, which is to fall, one for each tensor that is
            moved. The first dimension of each is a multiple of B, and row r belongs to run r % B.
        score_gradients: Gradients of the score s, which is to rise, of the same shapes.
        beta: How fast the score must rise, relative to ascending it alone; at least 0.
        num_runs: B.
        metric: Diagonal of P for a step of ``-P v``, of the same shapes and positive; then inner
            products are taken in it, and the promise holds for that step. None means P = 1.

    Returns:
        The direction; ``-<grad s, P v> >= beta <grad s, P grad s>`` for each run, exactly for a
        step of ``-P v``. Adam's own step differs from that by its momentum, and by the change of
        its metric since the step before.

    References:
        Liu et al. 2021, section 3.3. The printed formula of lambda is not in what is public; this
        is the lexicographic form of Gong et al. with ``phi = beta |grad s|^2``, which agrees with
        the paper's prose. The metric is an addition: under Adam's scaling the plain inner product
        promises nothing.
    """

    def inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        scales = metric if metric is not None else [torch.ones_like(a) for a in left]
        parts = [
            (a * b * scale).flatten(1).sum(dim=1).view(-1, num_runs).sum(dim=0)
            for a, b, scale in zip(left, right, scales, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)  # (B,)

    both = inner(loss_gradients, score_gradients)
    score_norm, loss_norm = (inner(own, own) for own in (score_gradients, loss_gradients))
    lambda_ = (beta + _ratio(both, score_norm)).clamp_min(0.0)
    direction = [
        of_loss - _per_row(lambda_, of_score) * of_score
        for of_loss, of_score in zip(loss_gradients, score_gradients, strict=True)
    ]
    return Barrier(direction, lambda_, _ratio(both, score_norm.sqrt() * loss_norm.sqrt()))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """The quotient, or 0 where there is nothing to divide by: a gradient that is 0."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    """Numbers ``(B,)`` of the runs, ready to meet a tensor whose rows are theirs in turn."""
    rows = values.repeat(len(like) // len(values))
    return rows.view(-1, *[1] * (like.ndim - 1))
