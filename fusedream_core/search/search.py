"""Seed search: the k best of M random latents, which become the basis of the optimisation.

Paper: Liu et al. 2021, section 3.2. Candidates are streamed: each batch is decoded and scored by
plain CLIP, and only the best few are kept; AugCLIP then ranks those. Where it is to rank all, as in
the paper, it does so as they stream by. So memory does not grow with their number, but for one
class index each. Several prompts can share one stream, which is decoded once. Beyond the paper, a
part of the candidates comes from the classes whose names are near the prompt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from .. import rng
from ..augclip.augment import AugmentParams, sample_params
from ..augclip.score import aug_clip_score_within, text_features
from ..augclip.target import similarities
from ..config import AugmentConfig, SearchConfig
from ..errors import ConfigError
from ..memory import Limit
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..types import Basis, Callback, Latent, StepInfo, Target
from .bank import Bank
from .class_prior import class_weights, named_classes, resolve_classes
from .topk import Pool, Shortlist, lead, shortlist_size, with_named

# Rows of the targets, the class of each candidate, and the generator of their z.
_Stream = tuple[tuple[int, ...], Tensor, torch.Generator]
# Scores (T, N) of pictures (N, 3, H, W) for the targets in some rows, minus infinity in the others.
_Rate = Callable[[Tensor, tuple[int, ...]], Tensor]


def search_basis(
    gan: Gan,
    clip: ImageTextEncoder,
    targets: Sequence[Target],
    *,
    config: SearchConfig,
    augment: AugmentConfig,
    generator: torch.Generator,
    bank: Bank | None = None,
    callback: Callback | None = None,
) -> list[Basis]:
    """Find the best latents among random ones, for each of several prompts.

    Every prompt gets the basis that it would get alone. The result does not depend on
    ``config.batch_size``, but for the rounding of the models.

    With a bank, the candidates are a random half of it, or of its part in the classes asked for
    (more, where half would be fewer than ``num_basis``); ``num_candidates`` is not read, and no
    class need be guessed, as all are looked at.

    Args:
        gan: The generator.
        clip: The encoder.
        targets: The prompts.
        config: How many candidates, how many are kept, from which classes.
        augment: The changes that AugCLIP ranks by; their number is ``config.rerank_augments``.
        generator: CPU generator of the candidates and changes, advanced by this call.
        bank: Candidates that CLIP has seen before, of these models and this truncation.
        callback: Called after each scored batch; it may raise to stop.

    Returns:
        One basis for each target, best latent first.

    Raises:
        ConfigError: If a class is unknown, or a target or the bank is another model's.

    References:
        Liu et al. 2021, section 3.2 (the k best by AugCLIP). gnobitab/FuseDream,
        ``generate_basis``. Differs: upstream ranks by plain CLIP (``config.ranking``), and both
        draw all classes alike (``config.guided_share``).
    """
    named: list[list[int]] = [[] for _ in targets]
    if config.guided_share > 0:
        named = [named_classes(gan.class_names, target) for target in targets]
    search = _Search(gan, clip, targets, named, config, callback)
    by_aug_clip = config.ranking == "aug_clip"
    with torch.no_grad():
        if bank is None and by_aug_clip and config.num_reranked is None:
            pools = search.rank_all(augment, generator)
        else:
            pools = search.scan(generator) if bank is None else search.look_up(bank, generator)
            if by_aug_clip:
                pools = search.rerank(pools, augment, generator)
    return [search.make_basis(*own) for own in zip(pools, named, targets, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """One search: what its two passes share."""

    gan: Gan
    clip: ImageTextEncoder
    targets: Sequence[Target]
    named: Sequence[list[int]]  # classes that each target's prompt names; none without guidance
    config: SearchConfig
    callback: Callback | None
    limit: Limit = field(default_factory=Limit)  # of candidates
    copies: Limit = field(default_factory=Limit)  # of changed copies

    @property
    def truncation(self) -> float:
        """The tau that was asked for, or else the GAN's own."""
        asked = self.config.truncation
        return self.gan.truncation if asked is None else asked

    def scan(self, generator: torch.Generator) -> list[Pool]:
        """First pass, plain CLIP: a pool of the best for each target."""
        texts = text_features(self.targets, self.clip)  # (T, D)

        def rate(images: Tensor, rows: tuple[int, ...]) -> Tensor:
            features = self.limit.map(self.clip.encode_images, images)
            return self._only(rows, similarities(texts, features))

        keep, cap = shortlist_size(self._num_candidates, self.config)
        pools = self._stream(self._streams(texts, generator), rate, keep, cap)
        best = [pool.best(keep, cap) for pool in pools]
        return [with_named(*own) for own in zip(best, pools, self.named, strict=True)]

    def rank_all(self, augment: AugmentConfig, generator: torch.Generator) -> list[Pool]:
        """Both passes in one, where AugCLIP is to rank all: what a basis may be chosen from.

        The changes are those that a second pass would have drawn after all candidates.
        """
        streams = self._streams(text_features(self.targets, self.clip), generator)
        ahead = rng.copy(generator)
        for _ in self._candidates(streams[0][1], ahead):
            pass
        drawn: list[AugmentParams] = []  # once, when the size of the pictures is known

        def rate(images: Tensor, rows: tuple[int, ...]) -> Tensor:
            if not drawn:
                drawn.append(self._sample(images, augment, ahead))
            scores = [self._aug_clip(images, self.targets[row], drawn[0]) for row in rows]
            every = scores[0].new_zeros(len(self.targets), len(images))
            every[list(rows)] = torch.stack(scores)
            return self._only(rows, every)

        pools = self._stream(streams, rate, self.config.num_basis, self.config.max_per_class)
        generator.set_state(ahead.get_state())
        return pools

    def _stream(
        self, streams: Sequence[_Stream], rate: _Rate, keep: int, cap: int | None
    ) -> list[Pool]:
        """Decode and score all candidates; of each target's a shortlist."""
        shortlists = [Shortlist(keep, cap, named) for named in self.named]
        total = sum(math.ceil(len(classes) / self.config.batch_size) for _, classes, _ in streams)
        step, leaders = 0, None
        for rows, classes, stream in streams:
            for z, y, index in self._candidates(classes, stream):
                images = self._draw(z, y)
                scores = rate(images, rows)  # (T, N)
                for row in rows:
                    shortlists[row].add(Pool(z, y, index, scores[row].cpu()))
                step += 1
                if self.callback is not None:
                    leaders = lead(leaders, images, scores)
                    self.callback(StepInfo("search", step, total, *leaders))
        return [shortlist.pool() for shortlist in shortlists]

    def _only(self, rows: tuple[int, ...], scores: Tensor) -> Tensor:
        """Scores ``(T, N)``, minus infinity for all targets but those in ``rows``."""
        others = [row for row in range(len(self.targets)) if row not in rows]
        scores[others] = -torch.inf
        return scores

    def _sample(
        self, images: Tensor, augment: AugmentConfig, generator: torch.Generator
    ) -> AugmentParams:
        """The changes under which candidates are ranked."""
        num, size = self.config.rerank_augments, images.shape[-2:]
        return sample_params(num, *size, config=augment, generator=generator)

    def _aug_clip(self, images: Tensor, target: Target, params: AugmentParams) -> Tensor:
        """AugCLIP ``(N,)`` of some candidates."""
        return aug_clip_score_within(self.copies, images, target, self.clip, params=params).mean

    def _draw(self, z: Tensor, y: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` of candidates."""
        return self.limit.map(partial(self.gan.decode, truncation=self.truncation), z, y)

    def look_up(self, bank: Bank, generator: torch.Generator) -> list[Pool]:
        """First pass over a bank, which is a matrix product."""
        if not bank.fits(self.gan, self.clip, self.truncation):
            raise ConfigError(
                f"The seed bank is of {bank.gan_id}, {bank.clip_id} at truncation "
                f"{bank.truncation:g}, but the search is of {self.gan.gan_id}, "
                f"{self.clip.clip_id} at {self.truncation:g}; search without it, or build another."
            )
        texts = text_features(self.targets, self.clip)  # (T, D)
        index = bank.class_index.cpu()
        bank.check_sizes(len(self.gan.class_names), texts.shape[1])
        rows = torch.isin(index, self._allowed).nonzero()[:, 0]
        if len(rows) < self.config.num_basis:
            raise ConfigError(
                f"The seed bank holds {len(rows)} pictures of the classes asked for, but num_basis "
                f"is {self.config.num_basis}; lower it, take a larger bank, or search without one."
            )
        num = max(self.config.num_basis, (len(rows) + 1) // 2)
        half = rng.permutation(len(rows), generator=generator)[:num]
        rows = rows[half.sort().values]
        classes = index[rows]
        z = bank.sample_z(self.gan)
        z, y = z[rows.to(z.device)], self.gan.embed(classes)
        features = bank.features.cpu()[rows].to(texts)
        scores = similarities(texts, features).cpu()  # (T, N)
        keep, cap = shortlist_size(len(rows), self.config)
        pools = [Pool(z, y, classes, own) for own in scores]
        best = [pool.best(keep, cap) for pool in pools]
        return [with_named(*own) for own in zip(best, pools, self.named, strict=True)]

    @property
    def _allowed(self) -> Tensor:
        """Indices of the classes that are drawn from."""
        names = self.gan.class_names
        return torch.tensor(resolve_classes(names, self.config.classes or range(len(names))))

    @property
    def _num_candidates(self) -> int:
        """M of the paper."""
        return self.config.candidates_on(self.gan.device)

    def _streams(self, texts: Tensor, generator: torch.Generator) -> list[_Stream]:
        """What is drawn: for all targets from all classes, then for each from those it is near to.

        All classes of a stream are drawn at once and z later, row by row: so its random numbers
        are cut into candidates in the same way whatever the batch size is. The guided streams
        start from the same random state, so a target's is the one that it would get alone.
        """
        allowed = self._allowed
        num_guided = int(self._num_candidates * self.config.guided_share) * (len(allowed) > 1)
        num_shared = self._num_candidates - num_guided
        everyone = tuple(range(len(texts)))
        shared = rng.integers((num_shared,), 0, len(allowed) - 1, generator=generator)
        streams = [(everyone, allowed[shared], generator)]
        if num_guided:
            child = rng.fork(generator)
            guidance = class_weights(self.gan, self.clip, texts, self.named, allowed.tolist())
            for row, weights in enumerate(guidance):
                own = rng.copy(child)
                drawn = rng.choices(weights, num_guided, generator=own)
                streams.append(((row,), allowed[drawn], own))
        return streams

    def rerank(
        self, pools: Sequence[Pool], augment: AugmentConfig, generator: torch.Generator
    ) -> list[Pool]:
        """Second pass: the pools with AugCLIP scores, under the same changes for all."""
        total = sum(math.ceil(len(pool) / self.config.batch_size) for pool in pools)
        step, params = 0, None
        ranked = []
        for pool, target in zip(pools, self.targets, strict=True):
            parts = []
            leaders = None
            for rows in torch.arange(len(pool)).split(self.config.batch_size):
                some = pool.pick(rows)
                images = self._draw(some.z, some.y)
                if params is None:
                    params = self._sample(images, augment, generator)
                scores = self._aug_clip(images, target, params)
                parts.append(scores.cpu())
                step += 1
                if self.callback is not None:
                    leaders = lead(leaders, images, scores[None])
                    self.callback(StepInfo("rerank", step, total, *leaders))
            ranked.append(dataclasses.replace(pool, scores=torch.cat(parts)))
        return ranked

    def make_basis(self, pool: Pool, named: list[int], target: Target) -> Basis:
        """The best of a pool."""
        config = self.config
        best = with_named(pool.best(config.num_basis, config.max_per_class), pool, named)
        latent = Latent(best.z, best.y, self.truncation)
        return Basis(
            latent,
            best.scores,
            best.class_index,
            self.gan.gan_id,
            target.prompt,
            config.ranking,
        )

    def _candidates(
        self, classes: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of z, y and class index."""
        for part in classes.split(self.config.batch_size):
            z = self.gan.sample_z(len(part), truncation=self.truncation, generator=generator)
            yield z, self.gan.embed(part), part
