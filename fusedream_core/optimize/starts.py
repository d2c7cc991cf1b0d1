"""Multi-start: several starts of each problem, of which the best goes on.

The paper has one start, and so have ``PAPER`` and ``REFERENCE_CODE``. Several are an addition:
which class fits a prompt best is clearer after some steps than from the scores of the seeds.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import OptimizeConfig, Start
from ..errors import CheckpointError
from ..search.class_prior import named_classes
from ..state import State, restore_generators
from ..types import Basis, Callback, Score
from .latent import OverparameterizedLatent, join_latents, make_latent
from .problems import Problems
from .trials import Trials, keep_best, start_trials

logger = logging.getLogger(__name__)

_STARTS: tuple[Start, ...] = ("alone", "uniform", "random", "preserving")
_NAMED_CLASS_MARGIN = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class StartCandidate:
    """One start of a problem.

    Attributes:
        problem: The index of the problem.
        kind: How its weights start; "rival n" (n from 2) where another member leads, the best of
            another class while there is one.
        is_named: Whether its leading member is of a class that the prompt names.
    """

    problem: int
    kind: str
    is_named: bool


def make_candidate(problem: int, kind: str, is_named: bool) -> StartCandidate:
    """A candidate of its fields as plain data."""
    return StartCandidate(int(problem), str(kind), bool(is_named))


class MultiStart:
    """The S starts of B problems, and the choice among them.

    Candidates are ordered by start: the first starts of all problems, then the second.
    """

    def __init__(
        self,
        problems: Problems,
        bases: Sequence[Basis],
        config: OptimizeConfig,
        generators: Sequence[torch.Generator],
        callback: Callback | None,
    ) -> None:
        """``generators`` (one for each problem) draw the starts, and the views that choose."""
        self._problems, self._config, self._callback = problems, config, callback
        self._generators = generators
        self.num_starts = min(config.num_starts, len(bases[0].scores))
        names = problems.gan.class_names
        self._named = [set(named_classes(names, target)) for target in problems.targets]
        leading = [
            _leaders(basis, own, self.num_starts)
            for basis, own in zip(bases, self._named, strict=True)
        ]
        self._bases = [  # (S, B)
            [basis.pick(order[rank]) for basis, order in zip(bases, leading, strict=True)]
            for rank in range(self.num_starts)
        ]

    def begin(self, generators: Sequence[torch.Generator]) -> Trials[StartCandidate]:
        """Each problem's first start as the settings have it, and S - 1 others.

        Args:
            generators: One for each problem, for the steps.
        """
        first, kinds = self._choose_weights()
        others = [self._make(bases, "alone") for bases in self._bases[1:]]
        rivals = [f"rival {rank}" for rank in range(2, self.num_starts + 1) for _ in kinds]
        candidates = [
            StartCandidate(problem, kind, int(basis.class_index[0]) in self._named[problem])
            for kind, (problem, basis) in zip(
                [*kinds, *rivals],
                [pair for bases in self._bases for pair in enumerate(bases)],
                strict=True,
            )
        ]
        return self._trials(join_latents([first, *others]), candidates, generators)

    def restored(
        self, state: State, generators: Sequence[torch.Generator]
    ) -> Trials[StartCandidate]:
        """The trials as ``state_dict`` saved them.

        Raises:
            CheckpointError: If the state is of other settings.
        """
        template = self._trials(self._make(self._bases[0], "alone"), [], generators)  # no draw
        trials = template.restored(state["trials"], make_candidate)
        if len(trials.candidates) % len(self._problems):
            raise CheckpointError("The saved run is damaged: a start is missing.")
        restore_generators(self._generators, state["generators"])
        return trials

    def state_dict(self, trials: Trials[StartCandidate]) -> State:
        """The trials, and the generators of the starts."""
        generators = [own.get_state() for own in self._generators]
        return {"trials": trials.state_dict(), "generators": generators}

    def keep_best(self, trials: Trials[StartCandidate], count: int) -> Trials[StartCandidate]:
        """All starts of each problem, or (``count`` 1) the best under views of their own."""
        return keep_best(trials, count, self._wins)

    def _wins(self, trials: Trials[StartCandidate]) -> list[float]:
        """1 for the start of each problem that goes on, else 0."""
        num = len(self._problems)
        z, y = (block.detach() for block in trials.optimizer.latent.mixed())
        scores = self._problems.evaluate(
            list(zip(z.split(num), y.split(num), strict=True)),
            self._problems.augment.num_augments,
            self._generators,
            stage="race",
            callback=self._callback,
        )
        named = torch.tensor([own.is_named for own in trials.candidates]).view(-1, num)
        winners = _winners(scores, named)
        return [float(winners[row % num] == row // num) for row in range(len(trials.candidates))]

    def _choose_weights(self) -> tuple[OverparameterizedLatent, list[Start]]:
        """The first start of each problem; for "best", the best of all kinds by AugCLIP."""
        config, bases = self._config, self._bases[0]
        kinds = _STARTS if config.start == "best" else (config.start,)
        latents = [self._make(bases, kind) for kind in kinds]
        if len(kinds) == 1:
            return latents[0], [*kinds] * len(bases)
        scores = self._problems.evaluate(
            [latent.mixed() for latent in latents],
            self._problems.augment.num_augments,
            self._generators,
            stage="start",
            callback=self._callback,
        )
        choice = scores.mean.argmax(dim=0)  # (S, B) -> (B,)
        starts = [kinds[index] for index in choice.tolist()]
        logger.debug("starts chosen by score: %s", starts)
        return choose_weights(latents, choice), starts

    def _make(self, bases: Sequence[Basis], kind: Start) -> OverparameterizedLatent:
        """The latents of some bases at one kind of start."""
        return make_latent(
            bases,
            kind,
            mixing=self._config.mixing,
            device=self._problems.gan.device,
            generators=self._generators,
        )

    def _trials(
        self,
        latent: OverparameterizedLatent,
        candidates: list[StartCandidate],
        generators: Sequence[torch.Generator],
    ) -> Trials[StartCandidate]:
        problems = self._problems
        return start_trials(
            latent,
            candidates,
            problems.gan,
            self._config,
            truncation=problems.truncation,
            generators=generators,
        )


def choose_weights(
    latents: Sequence[OverparameterizedLatent], choice: Tensor
) -> OverparameterizedLatent:
    """For each of R rows the weights of one of S latents, which share their bases."""

    def take(name: str) -> Tensor:
        stacked = torch.stack([getattr(latent, name) for latent in latents])  # (S, R, ...)
        chosen = choice.to(stacked.device)
        return stacked[chosen, torch.arange(len(chosen), device=chosen.device)]

    z_mix = y_mix = take("z_mix")
    if latents[0].mixing == "softmax":
        y_mix = take("y_mix")
    return dataclasses.replace(latents[0], z_mix=z_mix, y_mix=y_mix)


def _winners(scores: Score, named: Tensor) -> list[int]:
    """The best of S starts of each problem, B indices.

    The best start whose leading member is of a class that the prompt names goes on, unless another
    is better by two of its standard errors. Less is no evidence after few steps, and the name is
    a better guess than chance.

    Args:
        scores: Of all starts, ``(S, B)``.
        named: Which of them have such a leading member, ``(S, B)``.
    """
    means, errors = scores.mean.cpu(), scores.stderr.cpu().nan_to_num(0.0)
    top, first = means.max(dim=0)
    best, own = means.masked_fill(~named, -torch.inf).max(dim=0)
    margin = _NAMED_CLASS_MARGIN * errors.gather(0, own[None])[0]
    return torch.where(best + margin >= top, own, first).tolist()


def _leaders(basis: Basis, named: set[int], num: int) -> list[Tensor]:
    """Orders of a basis's members, each with another member first.

    The best of all is first; then the best of each other class in turn, those of the ``named``
    classes before the rest; then the others. All that are not first keep the order.
    """
    classes = basis.class_index.tolist()
    everyone = range(len(classes))
    first = [index for index in everyone if index and classes[index] not in classes[:index]]
    first = [0, *sorted(first, key=lambda index: classes[index] not in named)]
    others = [index for index in everyone if index not in first]
    return [
        torch.tensor([lead, *(index for index in everyone if index != lead)])
        for lead in [*first, *others][:num]
    ]
