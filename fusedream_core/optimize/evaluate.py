"""Which checkpoint of each problem is returned, by its held-out AugCLIP score.

No part of the paper, which returns the latent after the last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import Score


@dataclass(frozen=True, slots=True)
class Best:
    """The best checkpoint of one problem.

    Attributes:
        checkpoint: Its name.
        index: Its index among the checkpoints.
        candidate: The index of the candidate that it is of.
    """

    checkpoint: str
    index: int
    candidate: int


def best_checkpoints(names: Sequence[str], scores: Score, problems: Sequence[int]) -> list[Best]:
    """The best checkpoint of each problem, over all of its candidates; of equals the first.

    Args:
        names: The names of N checkpoints.
        scores: Held-out AugCLIP scores of all candidates at all of them, ``(N, C)``.
        problems: The problem of each candidate.
    """
    means, best = scores.mean.tolist(), dict[int, Best]()
    for index, name in enumerate(names):
        for candidate, problem in enumerate(problems):
            now, top = means[index][candidate], best.get(problem)
            if top is None or now > means[top.index][top.candidate]:
                best[problem] = Best(name, index, candidate)
    return [best[problem] for problem in sorted(best)]
