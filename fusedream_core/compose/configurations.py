"""Some configurations of a composition, optimised as one batch under the dynamic barrier.

Paper: Liu et al. 2021, section 3.3: the consistency of the two pictures is lowered only as far as
the score of the composite rises all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor

from .. import rng
from ..augclip.augment import AugmentParams, join_params, sample_params
from ..config import AugmentConfig
from ..optimize.adam import Descent, join_descents
from ..optimize.latent import make_mixture
from ..optimize.runs import Iterates, LatentPair, join_iterates
from ..state import State, stacked
from ..types import Basis, Latent, Score
from .barrier import dynamic_barrier
from .entries import Entry, Run
from .objective import Compositor, Pictures
from .placement import Box, box_masks
from .records import ComposeResult, ComposeTrace

_RECENT = 4  # steps by which configurations are compared

Observer = Callable[[Tensor, Tensor], None]  # scores and composites of a step
Generators = Mapping[Run, torch.Generator]


@dataclass(frozen=True, slots=True, eq=False)
class JudgedIterate:
    """One iterate of B configurations, judged.

    Attributes:
        name: Which one.
        latent: Its latents, ``(2B, ...)``.
        pictures: What they show.
        score: Held-out AugCLIP of the composites, ``(B,)``.
    """

    name: str
    latent: LatentPair
    pictures: Pictures
    score: Score


@dataclass(eq=False)
class Configurations:
    """B configurations, each with two pictures: rows 0 to B - 1 of the mixture, and B to 2B - 1.

    They may be of several runs. No term couples them, and each run draws from its own generator,
    so any of them can go on without the others, or with those of other batches that are as far.

    Attributes:
        compositor: What makes and scores their pictures.
        augment: The changes of AugCLIP.
        entries: Which they are.
        descent: Their mixtures.
        iterates: What may be returned.
        generators: Where the steps of each run stand; may be shared with other batches, so drawn
            from by copies.
        trace: Score, loss, lambda and cosine of each step, ``(4, B)`` each.
    """

    compositor: Compositor
    augment: AugmentConfig
    entries: list[Entry]
    descent: Descent
    iterates: Iterates
    generators: Generators
    trace: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        """B."""
        return len(self.entries)

    @property
    def boxes(self) -> list[Box]:
        """Where the foregrounds lie."""
        return [entry.box for entry in self.entries]

    @property
    def runs(self) -> list[Run]:
        """Whose each configuration is."""
        return [entry.run for entry in self.entries]

    def pick(self, rows: Sequence[int]) -> Configurations:
        """Some of the configurations, which go on just as they would have among all."""
        both = torch.tensor([*rows, *(len(self) + row for row in rows)])
        entries = [self.entries[row] for row in rows]
        return Configurations(
            self.compositor,
            self.augment,
            entries,
            self.descent.pick(both),
            self.iterates.pick(both),
            {entry.run: self.generators[entry.run] for entry in entries},
            [numbers[:, list(rows)] for numbers in self.trace],
        )

    def state_dict(self, runs: Sequence[Run]) -> State:
        """Where the configurations stand, which are of these runs."""
        return {
            "entries": [entry.state(runs) for entry in self.entries],
            "descent": self.descent.state_dict(),
            "iterates": self.iterates.state_dict(),
            "generators": {
                str(runs.index(run)): own.get_state() for run, own in self.generators.items()
            },
            "trace": stacked(self.trace),
        }

    def split(self, size: int) -> list[Configurations]:
        """All of the configurations, at most ``size`` in a batch."""
        rows = range(len(self))
        return [self.pick(rows[first : first + size]) for first in rows[::size]]

    def advance(self, end: int, observe: Observer) -> None:
        """Take steps until ``end`` of them are done.

        A step that fails leaves everything as it was before it, the generators too.
        """
        while self.descent.num_steps_done < end:
            drawn = {run: rng.copy(generator) for run, generator in self.generators.items()}
            score, pictures = self._step(drawn)
            self.generators = drawn
            observe(score, pictures)

    def finish(self) -> None:
        """Take in the last iterate, after all steps."""
        self.iterates.observe(self.descent.num_steps_done, self.descent.mixture.latent())

    def _step(self, generators: Generators) -> tuple[Tensor, Tensor]:
        """One step of all configurations. Returns their scores and composites, without graph.

        A function of its own, so that a step's graph is gone before the next one's is built.
        """
        config = self.compositor.config
        latent = self.descent.mixture.latent()
        pictures = self.compositor.draw(
            *self._add_noise(latent, generators),
            self.boxes,
            num_steps_done=self.descent.num_steps_done,
        )
        params = self._sample(self.augment.num_augments, pictures, generators)
        score = self.compositor.objective(pictures, self.runs, params)
        loss = self.compositor.inconsistency(pictures, self.boxes)
        loss_gradients = self._gradients(loss, keep_graph=True)  # it shares the generator's
        barrier = dynamic_barrier(
            loss_gradients,
            self._gradients(score, keep_graph=False),
            beta=config.beta,
            num_runs=len(self),
            metric=self.descent.metric() if config.metric == "adam" else None,
        )
        done = self.descent.num_steps_done
        self.descent.step(barrier.direction)
        self.iterates.observe(done, latent)  # not before: the step may fail, and be tried again
        numbers = torch.stack([score, loss, barrier.weight, barrier.cosine])
        self.trace.append(numbers.detach())
        return score.detach(), pictures.composite.detach()

    def recent_scores(self) -> list[float]:
        """The objective's mean over the last few steps, for each configuration.

        It costs nothing, and several steps saw more changes than one comparison would.
        """
        recent = torch.stack(self.trace[-_RECENT:])[:, 0]  # (steps, B)
        return [fmean(scores) for scores in recent.T.tolist()]  # rounds alike for every B

    @torch.no_grad()
    def judge(self) -> Iterator[JudgedIterate]:
        """Every iterate that may be returned, under changes that no step met."""
        config = self.compositor.config.optimize
        for name, latent in self.iterates.candidates().items():
            pictures = self.compositor.draw(*latent, self.boxes, num_steps_done=config.num_steps)
            generators = {run: rng.copy(run.judge) for run in self.runs}
            params = self._sample(config.eval_augments, pictures, generators)
            score = self.compositor.judge(pictures, self.runs, params)
            yield JudgedIterate(name, latent, pictures, score)

    def result(self, row: int, judged: JudgedIterate) -> ComposeResult:
        """One configuration's iterate as the record that callers get, without attempts."""
        both, one = torch.tensor([row, len(self) + row]), slice(row, row + 1)
        pictures = judged.pictures
        size, device = pictures.composite.shape[-2:], pictures.composite.device
        z, y = (block[both] for block in judged.latent)
        return ComposeResult(
            images=pictures.composite[one].clone(),  # or the batch would live on
            mask=box_masks([self.entries[row].box], *size, device=device),
            foreground=pictures.foreground[one].clone(),
            background=pictures.background[one].clone(),
            latent=Latent(z, y, self.compositor.truncation),
            score=Score(judged.score.mean[one], judged.score.stderr[one]),
            placement=self.entries[row].placement,
            trace=ComposeTrace(*torch.stack(self.trace)[:, :, row].unbind(dim=1)),
            attempts=(),
            chosen=judged.name,
        )

    def _sample(self, num: int, pictures: Pictures, generators: Generators) -> AugmentParams:
        """Changes for the composites, the same for all of a run."""
        height, width = pictures.composite.shape[-2:]
        draws = {
            run: sample_params(num, height, width, config=self.augment, generator=generator)
            for run, generator in generators.items()
        }
        if len(draws) == 1:  # which all pictures can share
            return draws[self.runs[0]]
        return join_params([draws[run] for run in self.runs])

    def _gradients(self, of: Tensor, *, keep_graph: bool) -> list[Tensor]:
        """Gradients of B numbers, each with respect to its own runs."""
        if not of.requires_grad:
            return [torch.zeros_like(tensor) for tensor in self.descent.parameters]
        # A sum, so that no configuration's gradient depends on B.
        found = torch.autograd.grad(
            of.sum(), self.descent.parameters, retain_graph=keep_graph, materialize_grads=True
        )
        return list(found)

    def _add_noise(self, latent: LatentPair, generators: Generators) -> LatentPair:
        """Latents with noise, if any: one for all foregrounds of a run, one for its backgrounds."""
        std = self.descent.config.latent_noise_std * self.descent.decay
        if std == 0.0:
            return latent

        def noisy(block: Tensor, unit: float) -> Tensor:
            drawn = {
                run: rng.normal((2, block.shape[1]), generator=generator)
                for run, generator in generators.items()
            }
            rows = torch.stack([drawn[run] for run in self.runs], dim=1)  # (2, B, dim)
            return block + rows.flatten(0, 1).to(block) * (std * unit)

        return noisy(latent[0], self.descent.units[0]), noisy(latent[1], self.descent.units[1])


def join_configurations(several: Sequence[Configurations]) -> Configurations:
    """The configurations of several batches that are equally far, as one batch."""
    counts = [len(some) for some in several]
    # Each batch has its foregrounds before its backgrounds, and so has the whole.
    halves = torch.arange(2 * sum(counts)).split([count for count in counts for _ in range(2)])
    order = torch.cat([*halves[::2], *halves[1::2]])
    traces = zip(*(some.trace for some in several), strict=True)
    return Configurations(
        several[0].compositor,
        several[0].augment,
        [entry for some in several for entry in some.entries],
        join_descents([some.descent for some in several]).pick(order),
        join_iterates([some.iterates for some in several]).pick(order),
        {run: own for some in several for run, own in some.generators.items()},
        [torch.cat(numbers, dim=1) for numbers in traces],
    )


def make_configurations(
    compositor: Compositor,
    augment: AugmentConfig,
    entries: list[Entry],
    foregrounds: Sequence[Basis],
    backgrounds: Sequence[Basis],
) -> Configurations:
    """Configurations at their start, one basis each for foreground and background.

    The start's random numbers, if it takes any, are the same for all of a run.
    """
    config, gan = compositor.config.optimize, compositor.gan
    mixture = make_mixture(
        [*foregrounds, *backgrounds],
        config.start,
        mixing=config.mixing,
        z_clamp=config.z_clamp,
        device=gan.device,
        generators=[rng.copy(entry.run.start) for entry in [*entries, *entries]],
    )
    descent = Descent(mixture, gan, config, truncation=compositor.truncation)
    generators = {entry.run: entry.run.steps for entry in entries}
    return Configurations(compositor, augment, entries, descent, Iterates(config), generators)
