"""Some configurations of a composition, optimised as one batch under the dynamic barrier.

Paper: Liu et al. 2021, section 3.3: the consistency of the two pictures is lowered only as far as
the score of the composite rises all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import rng
from ..augment import AugmentParams, sample_params
from ..barrier import dynamic_barrier
from ..config import AugmentConfig
from ..descent import Descent
from ..mixing import make_mixture
from ..placement import Box, Placement
from ..runs import Iterates, LatentPair
from ..types import Basis, Score
from .compositor import Compositor, Pictures

_RECENT = 4  # steps by which configurations are compared

Observer = Callable[[Tensor, Tensor], None]  # scores and composites of a step


@dataclass(eq=False)
class Configurations:
    """B configurations, each with two pictures: rows 0 to B - 1 of the mixture, and B to 2B - 1.

    Attributes:
        compositor: What makes and scores their pictures.
        augment: The changes of AugCLIP.
        placements: Their scales and positions.
        boxes: The same in pixels.
        descent: Their mixtures.
        iterates: What may be returned.
        trace: Score, loss, lambda and cosine of each step, ``(4, B)`` each.
    """

    compositor: Compositor
    augment: AugmentConfig
    placements: list[Placement]
    boxes: list[Box]
    descent: Descent
    iterates: Iterates
    trace: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        """B."""
        return len(self.placements)

    def pick(self, rows: list[int]) -> Configurations:
        """Some of the configurations, which go on just as they would have among all."""
        both = torch.tensor(rows + [len(self) + row for row in rows])
        return Configurations(
            self.compositor,
            self.augment,
            [self.placements[row] for row in rows],
            [self.boxes[row] for row in rows],
            self.descent.pick(both),
            self.iterates.pick(both),
            [numbers[:, rows] for numbers in self.trace],
        )

    def advance(self, end: int, generator: torch.Generator, observe: Observer) -> None:
        """Take steps until ``end`` of them are done, all under the changes that are drawn here.

        A step that fails leaves everything as it was before it, the generator too.
        """
        while self.descent.num_steps_done < end:
            drawn = rng.copy(generator)
            score, pictures = self._step(drawn)
            generator.set_state(drawn.get_state())
            observe(score, pictures)

    def finish(self) -> None:
        """Take in the last iterate, after all steps."""
        self.iterates.observe(self.descent.num_steps_done, self.descent.mixture.latent())

    def _step(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One step of all configurations. Returns their scores and composites, without graph.

        A function of its own, so that a step's graph is gone before the next one's is built.
        """
        config = self.compositor.config
        latent = self.descent.mixture.latent()
        pictures = self.compositor.draw(
            *self._add_noise(latent, generator),
            self.boxes,
            num_steps_done=self.descent.num_steps_done,
        )
        params = self._sample(self.augment.num_augments, pictures, generator)
        score = self.compositor.objective(pictures, params)
        loss = self.compositor.inconsistency(pictures, self.boxes)
        loss_gradients = self._gradients(loss, keep_graph=True)  # it shares the generator's
        barrier = dynamic_barrier(
            loss_gradients,
            self._gradients(score, keep_graph=False),
            beta=config.beta,
            num_runs=len(self),
            metric=self.descent.metric() if config.metric == "adam" else None,
        )
        self.iterates.observe(self.descent.num_steps_done, latent)
        self.descent.step(barrier.direction)
        numbers = torch.stack([score, loss, barrier.weight, barrier.cosine])
        self.trace.append(numbers.detach())
        return score.detach(), pictures.composite.detach()

    def recent_score(self) -> Tensor:
        """The objective's mean over the last few steps, ``(B,)`` on the CPU.

        It costs nothing, and several steps saw more changes than one comparison would.
        """
        return torch.stack(self.trace[-_RECENT:])[:, 0].mean(dim=0).cpu()

    @torch.no_grad()
    def judge(
        self, generator: torch.Generator
    ) -> Iterator[tuple[str, LatentPair, Pictures, Score]]:
        """Every iterate that may be returned: its name, latents, pictures and held-out score."""
        num = self.compositor.config.optimize.eval_augments
        for name, latent in self.iterates.candidates().items():
            end = self.compositor.config.optimize.num_steps
            pictures = self.compositor.draw(*latent, self.boxes, num_steps_done=end)
            params = self._sample(num, pictures, rng.copy(generator))
            yield name, latent, pictures, self.compositor.judge(pictures, params)

    def _sample(self, num: int, pictures: Pictures, generator: torch.Generator) -> AugmentParams:
        """Changes for the composites, the same for all of them."""
        height, width = pictures.composite.shape[-2:]
        return sample_params(num, height, width, config=self.augment, generator=generator)

    def _gradients(self, of: Tensor, *, keep_graph: bool) -> list[Tensor]:
        """Gradients of B numbers, each with respect to its own runs."""
        if not of.requires_grad:
            return [torch.zeros_like(tensor) for tensor in self.descent.parameters]
        # A sum, so that no configuration's gradient depends on B.
        found = torch.autograd.grad(
            of.sum(), self.descent.parameters, retain_graph=keep_graph, materialize_grads=True
        )
        return list(found)

    def _add_noise(self, latent: LatentPair, generator: torch.Generator) -> LatentPair:
        """Latents with one noise for all foregrounds and one for all backgrounds, if any."""
        std = self.descent.config.latent_noise_std * self.descent.decay
        if std == 0.0:
            return latent

        def noisy(block: Tensor, unit: float) -> Tensor:
            drawn = rng.normal((2, block.shape[1]), generator=generator).to(block)
            return block + drawn.repeat_interleave(len(self), dim=0) * (std * unit)

        return noisy(latent[0], self.descent.units[0]), noisy(latent[1], self.descent.units[1])


def make_configurations(
    compositor: Compositor,
    augment: AugmentConfig,
    places: Sequence[tuple[Placement, Box]],
    foregrounds: Sequence[Basis],
    backgrounds: Sequence[Basis],
    generator: torch.Generator,
) -> Configurations:
    """Configurations at their start, one basis each for foreground and background.

    The start's random numbers, if it takes any, are those of ``generator`` for all of them.
    """
    config, gan = compositor.config.optimize, compositor.gan
    bases = [*foregrounds, *backgrounds]
    mixture = make_mixture(
        bases,
        config.start,
        mixing=config.mixing,
        z_clamp=config.z_clamp,
        device=gan.device,
        generators=[rng.copy(generator) for _ in bases],
    )
    descent = Descent(mixture, gan, config, truncation=compositor.truncation)
    placements, boxes = [list(column) for column in zip(*places, strict=True)]
    return Configurations(compositor, augment, placements, boxes, descent, Iterates(config))
