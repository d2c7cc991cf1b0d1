"""Which iterate a run returns, and whether it is worth going on in search of a better one.

No part of the paper, which returns the last iterate after a fixed number of steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from . import rng
from .config import OptimizeConfig
from .runs import Iterates, LatentPair, Runs, put_rows
from .state import State
from .types import Callback, StepInfo

_WORTH = 0.15  # standard errors; under the same changes a difference has 0.15 to 0.3 of one's


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """An iterate of one run, judged. Its tensors are without the dimension of the runs.

    Attributes:
        name: Which one.
        image: What it shows, ``(3, H, W)``.
        z: Its latent noise, ``(dim_z,)``.
        y: Its class embedding, ``(dim_y,)``.
        mean: Its held-out AugCLIP score, ``()``.
        stderr: The standard error of that.
    """

    name: str
    image: Tensor
    z: Tensor
    y: Tensor
    mean: Tensor
    stderr: Tensor


class Selection:
    """Judges the iterates of B runs, each once, and remembers the best of each run.

    All iterates of a run meet the same changes, which no step of it met.
    """

    def __init__(
        self,
        runs: Runs,
        config: OptimizeConfig,
        generators: Sequence[torch.Generator],
        callback: Callback | None,
    ) -> None:
        """Judge as ``runs`` see it, by changes from each run's generator, which stays as it is."""
        self._runs, self._config, self._callback = runs, config, callback
        self._generators = generators
        self._reviewed: set[str] = set()  # names of snapshots
        self._going = list(range(len(generators)))  # runs that have not stopped
        self._best: list[Judged | None] = [None] * len(generators)
        self._marks: list[float | None] = [None] * len(generators)  # what a score is to beat
        self._waits = [0] * len(generators)  # reviews since a score did

    def state_dict(self) -> State:
        """What the reviews found so far."""
        return {
            "reviewed": sorted(self._reviewed),
            "going": self._going,
            "best": [None if best is None else _saved(best) for best in self._best],
            "marks": self._marks,
            "waits": self._waits,
        }

    def restore(self, state: State) -> None:
        """Go on from what was found before."""
        device = self._runs.gan.device
        everyone = range(len(self._generators))
        self._going = [everyone[run] for run in state["going"]]
        self._reviewed = set(state["reviewed"])
        self._marks, self._waits = list(state["marks"]), list(state["waits"])
        self._best = [None if own is None else _judged(own, device) for own in state["best"]]

    def review(self, iterates: Iterates, running: Sequence[int]) -> list[int]:
        """Judge the snapshots that are new, and say which runs are to go on.

        All but those of which ``patience`` reviews in a row found none that is better by 0.15
        of its standard error. Scores under the same changes differ by no chance of the draw, so
        the margin is small: it only keeps rises from counting that nobody would see. What the next
        score has to beat is the last one that counted, so that many small rises add up.

        Args:
            iterates: The iterates of all B runs.
            running: Indices of the runs that have not stopped.
        """
        self._judge(self._new(iterates.snapshots()), running, "review")
        self._reviewed.update(iterates.snapshots())
        self._going = [run for run in running if self._is_worth_it(run)]
        stopping = [run for run in running if run not in self._going]
        if stopping:  # whose last iterate is the snapshot just judged
            self._judge({"average": iterates.candidates()["average"]}, stopping, "review")
        return self._going

    def choose(self, iterates: Iterates) -> list[Judged]:
        """Judge what is not judged yet, and return the best iterate of each run."""
        if self._going:
            self._judge(self._new(iterates.candidates()), self._going, "select")
        return [best for best in self._best if best is not None]  # all have one by now

    def _new(self, latents: Mapping[str, LatentPair]) -> dict[str, LatentPair]:
        """Those that no review has met."""
        return {name: pair for name, pair in latents.items() if name not in self._reviewed}

    def _is_worth_it(self, run: int) -> bool:
        """Whether a run is to go on after the review under way."""
        best, mark, patience = self._best[run], self._marks[run], self._config.patience
        if best is not None and (mark is None or best.mean > mark + _WORTH * best.stderr):
            self._marks[run], self._waits[run] = float(best.mean), 0
        else:
            self._waits[run] += 1
        return patience is None or self._waits[run] < patience

    def _judge(
        self,
        latents: Mapping[str, LatentPair],
        rows: Sequence[int],
        stage: Literal["review", "select"],
    ) -> None:
        """Judge those of some runs among latents of all B."""
        which, callback = list(rows), self._callback
        images, scores = self._runs.pick(which).judge(
            [(z[which], y[which]) for z, y in latents.values()],
            self._config.eval_augments,
            [rng.copy(self._generators[row]) for row in which],
            stage=stage,
            callback=None if callback is None else self._among_all(callback, which),
        )
        for index, (name, (z, y)) in enumerate(latents.items()):
            for place, run in enumerate(which):
                mean, stderr = scores.mean[index, place], scores.stderr[index, place]
                best = self._best[run]
                if best is None or mean > best.mean:
                    self._best[run] = Judged(
                        name, images[index, place], z[run], y[run], mean, stderr
                    )

    def _among_all(self, callback: Callback, rows: list[int]) -> Callback:
        """A callback for some runs that tells of all: of the others, the best that they have."""
        if len(rows) == len(self._best):
            return callback
        found = [best for best in self._best if best is not None]
        others = torch.stack([best.mean for best in found]), torch.stack([b.image for b in found])

        def tell(info: StepInfo) -> None:
            score, preview = put_rows(others, rows, (info.score, info.preview))
            callback(dataclasses.replace(info, score=score, preview=preview))

        return tell


def _saved(judged: Judged) -> State:
    """A judged iterate as plain data."""
    return {field.name: getattr(judged, field.name) for field in dataclasses.fields(judged)}


def _judged(saved: State, device: torch.device) -> Judged:
    """A judged iterate as it was saved."""
    tensors = {name: own.to(device) for name, own in saved.items() if name != "name"}
    return Judged(saved["name"], **tensors)
