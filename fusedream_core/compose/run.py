"""The placements of several compositions: where each starts, how far it came, what is returned.

No part of the paper, which optimises all of its 18 placements to the end. One that stays ends where
it would have ended alone. Placements compete with those of their own problem only, and are one
batch with all.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from .. import rng
from ..config import ComposeConfig
from ..errors import ConfigError
from ..optimize.evaluate import Best, best_checkpoints
from ..optimize.latent import LatentPair, make_latent
from ..optimize.trials import Trials, start_trials
from ..state import State, restoring
from ..types import Basis, Callback, Latent, Score
from .candidates import PlacementCandidate, make_candidate
from .objective import FuseObjective
from .pairs import PairSearch, best_members
from .placement import Placement, box_masks
from .result import Attempt, ComposeResult, ComposeTrace, Progress

_RECENT_STEPS = 4  # by whose mean score placements are compared


class PlacementRun:
    """The placements of all problems: the pre-search, how far each was optimised, the results."""

    def __init__(
        self,
        objective: FuseObjective,
        placements: Sequence[Placement],
        callback: Callback | None,
    ) -> None:
        if not placements:
            raise ConfigError("There is no placement to try; give at least one scale and position.")
        self._objective, self._callback = objective, callback
        self._config, self._problems = objective.config, objective.problems
        self._placements = placements
        self._attempts: list[dict[Placement, Attempt]] = [{} for _ in self._problems]
        self._progress = Progress("compose", 0, callback)

    def begin(self) -> Trials[PlacementCandidate]:
        """The first rung's placements after the pre-search, each at its best pair of latents."""
        search = PairSearch(self._objective, self._placements, self._callback)
        candidates, fronts, backs = list[PlacementCandidate](), list[Basis](), list[Basis]()
        for index, problem in enumerate(self._problems):
            own, scores = search.score(index)
            tops = scores.flatten(1).amax(dim=1)  # (P,)
            for candidate, top in zip(own, tops.tolist(), strict=True):
                self._note(candidate, top, 0)
            order = tops.argsort(descending=True, stable=True)[: self._config.rungs[0][0]]
            for row in order.tolist():
                num = problem.num_members(self._config.num_basis)
                front, back = best_members(scores[row], num)
                candidates.append(own[row])
                fronts.append(problem.foreground.pick(front))
                backs.append(problem.background.pick(back))
        self._progress.total = self._num_reports(len(candidates) // len(self._problems))
        return self._trials(candidates, fronts, backs)

    def restored(self, state: State) -> Trials[PlacementCandidate]:
        """The trials as ``state_dict`` saved them.

        Raises:
            CheckpointError: If the state is damaged, or of other settings.
        """
        with restoring():
            for own, saved in zip(self._attempts, state["attempts"], strict=True):
                attempts = [Attempt(Placement(*place), *rest) for place, *rest in saved]
                own.update((attempt.placement, attempt) for attempt in attempts)
            self._progress.done, self._progress.total = state["progress"]
            problem = self._problems[0]
            rows = torch.arange(problem.num_members(self._config.num_basis))
            both = ([basis.pick(rows)] for basis in (problem.foreground, problem.background))
            trials = self._trials([], *both)  # of the same form
            return trials.restored(state["trials"], make_candidate)

    def state_dict(self, trials: Trials[PlacementCandidate]) -> State:
        """The trials, how far each placement was optimised, and the progress."""
        attempts = [
            [dataclasses.astuple(attempt) for attempt in own.values()] for own in self._attempts
        ]
        progress = [self._progress.done, self._progress.total]
        return {"trials": trials.state_dict(), "attempts": attempts, "progress": progress}

    def report(self, scores: Tensor, composites: Tensor) -> None:
        """Report a step of some candidates."""
        self._progress.report(scores, composites, num=len(scores))

    def recent_scores(self, trials: Trials[PlacementCandidate]) -> list[float]:
        """The objective's mean over the last few steps, for each candidate.

        It costs nothing, and several steps have more augmentations than one comparison would.
        """
        recent = torch.stack(trials.trace[-_RECENT_STEPS:])[:, 0]  # (steps, C)
        scores = [fmean(own) for own in recent.T.tolist()]  # rounds alike for every C
        for candidate, score in zip(trials.candidates, scores, strict=True):
            self._note(candidate, score, trials.num_steps)
        return scores

    @torch.no_grad()
    def results(self, trials: Trials[PlacementCandidate]) -> list[ComposeResult]:
        """The best checkpoint of the best placement of each problem, by held-out AugCLIP."""
        objective, candidates = self._objective, trials.candidates
        named = trials.checkpoints.named()
        total = len(named) * len(objective.groups(len(candidates)))
        progress = Progress("select", total, self._callback)
        scores = objective.evaluate_held_out(trials, [*named.values()], progress.report)
        for candidate, top in zip(candidates, scores.mean.amax(dim=0).tolist(), strict=True):
            self._note(candidate, top, trials.num_steps)
        best = best_checkpoints([*named], scores, trials.problems)
        return [
            self._result(
                trials,
                own,
                named[own.checkpoint],
                Score(
                    scores.mean[own.index, own.candidate][None],
                    scores.stderr[own.index, own.candidate][None],
                ),
            )
            for own in best
        ]

    def _result(
        self, trials: Trials[PlacementCandidate], best: Best, latent: LatentPair, score: Score
    ) -> ComposeResult:
        """One checkpoint as the record that callers get."""
        candidate, objective = trials.candidates[best.candidate], self._objective
        rows = trials.rows([best.candidate])
        z, y = (block[rows] for block in latent)
        images = objective.draw(z, y, [candidate.box], num_steps=trials.num_steps)
        trace = torch.stack(trials.trace)[:, :, best.candidate]
        last = {own.placement for own in trials.candidates if own.problem == candidate.problem}
        height, width = images.composite.shape[-2:]
        return ComposeResult(
            images=images.composite,
            mask=box_masks([candidate.box], height, width, device=images.composite.device),
            foreground=images.foreground,
            background=images.background,
            latent=Latent(z, y, objective.truncation),
            score=score,
            placement=candidate.placement,
            trace=ComposeTrace(*trace.unbind(dim=1)),
            attempts=tuple(
                sorted(
                    self._attempts[candidate.problem].values(),
                    key=lambda own: (own.placement not in last, -own.num_steps, -own.score),
                )
            ),
            chosen=best.checkpoint,
        )

    def _note(self, candidate: PlacementCandidate, score: float, num_steps: int) -> None:
        """Note how far a candidate was optimised and its score, in place of the note before."""
        attempt = Attempt(candidate.placement, score, num_steps)
        self._attempts[candidate.problem][candidate.placement] = attempt

    def _num_reports(self, num_placements: int) -> int:
        """Steps of all candidates together, as the halving has it."""
        counts = [min(count, num_placements) for count, _ in self._config.rungs]
        spans = [end - begin for begin, end in itertools.pairwise([0, *rung_ends(self._config)])]
        each = sum(count * span for count, span in zip(counts, spans, strict=True))
        return each * len(self._problems)

    def _trials(
        self,
        candidates: list[PlacementCandidate],
        foregrounds: Sequence[Basis],
        backgrounds: Sequence[Basis],
    ) -> Trials[PlacementCandidate]:
        """Candidates before their first step, one basis each for foreground and background."""
        config, objective = self._config.optimize, self._objective
        of = [self._problems[candidate.problem] for candidate in candidates] or self._problems[:1]
        fronts = [rng.copy(problem.start) for problem in of]
        backs = [rng.fork(rng.copy(problem.start)) for problem in of]
        latent = make_latent(
            [*foregrounds, *backgrounds],
            config.start,
            mixing=config.mixing,
            device=objective.gan.device,
            generators=[*fronts, *backs],
        )
        return start_trials(
            latent,
            candidates,
            objective.gan,
            config,
            truncation=objective.truncation,
            generators=[rng.copy(problem.steps) for problem in self._problems],
        )


def rung_ends(config: ComposeConfig) -> list[int]:
    """The step that each rung ends with."""
    return [max(1, round(share * config.optimize.num_steps)) for _, share in config.rungs]
