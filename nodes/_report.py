"""Short reports that nodes return beside their images.

They are Markdown lists, since the frontend's text preview joins plain lines.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..fusedream_core.compose import Attempt, ComposeResult
    from ..fusedream_core.config import ComposeConfig
    from ..fusedream_core.types import Basis, OptimizeResult, Score, Target

SCORE_NAMES = {"aug_clip": "AugCLIP", "clip": "CLIP"}

# Heading of the reports whose lines are labels, and the start of such a line.
_HEADING = re.compile(r"(AugCLIP|CLIP)( of the \d+ best)? for: ")
_RANKED = re.compile(r"\d+\. -?\d+\.\d{4}( |$)")


def search_report(basis: Basis, class_names: Sequence[str]) -> str:
    """Return one line per basis image: rank, score, class."""
    lines = [
        f"{rank}. {score:.4f} {class_names[index]}"
        for rank, (score, index) in enumerate(
            zip(basis.scores.tolist(), basis.class_index.tolist(), strict=True), start=1
        )
    ]
    score = SCORE_NAMES[basis.ranking]
    return "\n".join([f"{score} of the {len(lines)} best for: {basis.prompt}\n", *lines])


def ranking_lines(score: Score, order: Sequence[int]) -> list[str]:
    """Return one line per image, best first: rank, score with standard error, batch index."""
    return [
        f"{rank}. {with_error(score, index)} picture {index + 1}"
        for rank, index in enumerate(order, start=1)
    ]


def ranking_report(lines: Sequence[str], prompt: str) -> str:
    """Return the prompt and the lines of the ranking."""
    return "\n".join([f"AugCLIP for: {prompt}\n", *lines])


def with_error(score: Score, index: int = 0) -> str:
    """Return a score with its standard error, if more than one augmentation was used."""
    mean, error = float(score.mean[index]), float(score.stderr[index])
    return f"{mean:.4f} +- {error:.4f}" if math.isfinite(error) else f"{mean:.4f}"


def labels_of(text: str) -> list[str]:
    """Return the labels in a text: the ranking of a report, or all lines of any other text.

    Saved workflows link whole reports of :func:`search_report` and :func:`ranking_report`. These
    are detected by their heading and the lines below the last empty one.
    """
    heading, _, block = text.rpartition("\n\n")
    lines = block.splitlines()
    numbered = [
        bool(_RANKED.match(line)) and line.startswith(f"{rank}. ")
        for rank, line in enumerate(lines, start=1)
    ]
    if _HEADING.match(heading) and lines and all(numbered):
        return lines
    return [line.strip() for line in text.splitlines() if line.strip()]


def optimize_report(result: OptimizeResult, target: Target, basis: Basis, preset: str) -> str:
    """Return a summary of an optimisation: prompt, score, start, returned checkpoint."""
    lines = [f"AugCLIP {with_error(result.score)} for: {target.prompt}"]
    if basis.ranking == "aug_clip":  # plain CLIP's scores are not to be compared with AugCLIP's
        lines.append(f"best seed of the search: AugCLIP {float(basis.scores.max()):.4f}")
    lines.append(
        f"{len(result.trace)} steps, preset {preset}, from {_start(result.start[0])}, "
        f"returned: {result.chosen[0]}"
    )
    return "\n".join(f"- {line}" for line in lines)


def compose_report(
    result: ComposeResult, target: Target, config: ComposeConfig, preset: str
) -> str:
    """Return a summary of a composition, and the score of each placement."""
    trace = result.trace
    blending = f"blend {config.blend}"
    if config.blend != "none":
        blending += f" at {config.blend_strength:g}"
    lines = [
        f"AugCLIP {with_error(result.score)} for: {target.prompt}",
        f"{result.placement.name}, of {len(result.attempts)} tried; {blending}",
        f"{len(trace.score)} steps, preset {preset}, returned: {result.chosen}",
    ]
    if config.consistency != "none":
        lines.append(
            f"consistency {config.consistency}: distance {float(trace.loss[0]):.4f} before, "
            f"{float(trace.loss[-1]):.4f} in the last step; "
            f"lambda {float(trace.weight.mean()):.2f} on average"
        )
    tried = [f"{rank}. {_attempt(one)}" for rank, one in enumerate(result.attempts, start=1)]
    return "\n".join([*(f"- {line}" for line in lines), "\nPlacements, best first:\n", *tried])


def latent_notes(target: Target, clip_name: str, **settings: object) -> dict[str, str]:
    """Return the metadata of a latent's file: prompt, CLIP and settings."""
    return {
        "prompt": target.prompt,
        "clip": clip_name,
        "clip_id": target.clip_id,
        "settings": json.dumps(settings),
    }


def _start(start: str) -> str:
    """Return the start of a run: the name of its mix, or its rank, as in "rival 2"."""
    rank = start.split()[-1]
    if not rank.isdigit():
        return f"the mix '{start}'"
    suffix = {"2": "nd", "3": "rd"}.get(rank, "th")
    return f"the {rank}{suffix} start"


def _attempt(attempt: Attempt) -> str:
    """Return the score of one placement, and after how many steps."""
    if attempt.num_steps == 0:
        return f"{attempt.placement.name}: CLIP {attempt.score:.4f} before any step"
    steps = f"{attempt.num_steps} step" + "s" * (attempt.num_steps > 1)
    return f"{attempt.placement.name}: AugCLIP {attempt.score:.4f} after {steps}"
