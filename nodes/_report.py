"""The short texts that nodes return beside their pictures.

Lists in Markdown, since the frontend's text preview draws them as such and joins plain lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..fusedream_core.types import Basis, OptimizeResult, Score, Target


def search_report(basis: Basis, class_names: Sequence[str]) -> str:
    """One line per kept picture: rank, score, class."""
    lines = [
        f"{rank}. {score:.4f} {class_names[index]}"
        for rank, (score, index) in enumerate(
            zip(basis.scores.tolist(), basis.class_index.tolist(), strict=True), start=1
        )
    ]
    return "\n".join([f"AugCLIP of the {len(lines)} best for: {basis.prompt}\n", *lines])


def ranking_report(score: Score, order: Sequence[int], prompt: str) -> str:
    """One line per picture, best first: rank, score with its standard error, place in the batch."""
    means, errors = score.mean.tolist(), score.stderr.tolist()
    lines = [
        f"{rank}. {means[index]:.4f} +- {errors[index]:.4f} picture {index + 1}"
        for rank, index in enumerate(order, start=1)
    ]
    return "\n".join([f"AugCLIP for: {prompt}\n", *lines])


def optimize_report(result: OptimizeResult, target: Target, basis: Basis, preset: str) -> str:
    """What was aimed at, from where, and how far the score came."""
    mean, error = float(result.score.mean[0]), float(result.score.stderr[0])
    lines = [
        f"AugCLIP {mean:.4f} +- {error:.4f} for: {target.prompt}",
        f"best seed of the search: {float(basis.scores.max()):.4f}",
        f"{len(result.trace)} steps, preset {preset}, from the mix '{result.start[0]}', "
        f"returned: {result.chosen[0]}",
    ]
    return "\n".join(f"- {line}" for line in lines)
