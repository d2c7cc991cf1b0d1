"""Seed search: the k best of M random latents, which become the basis of the optimisation.

Paper: Liu et al. 2021, section 3.2. Candidates are streamed: each batch is decoded and scored with
plain CLIP, and AugCLIP ranks a shortlist of the best. If AugCLIP ranks all, as in the paper, it
does so in the stream. Memory is constant except for one class index per candidate. Several prompts
share one stream. Beyond the paper, a share of the candidates is drawn from a class prior.
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
from ..determinism import deterministic
from ..errors import ConfigError
from ..memory import AutoBatchSize
from ..models.clip.base import ImageTextEncoder
from ..models.gan.base import Gan
from ..types import Basis, Callback, Latent, StepInfo, Target
from .bank import Bank
from .class_prior import class_weights, named_classes, resolve_classes
from .topk import Pool, Shortlist, shortlist_size, update_best, with_named

# Indices of the targets, classes of the candidates, and the generator of their z.
_Stream = tuple[tuple[int, ...], Tensor, torch.Generator]
# Scores (T, N) of images (N, 3, H, W) for the targets in some rows; -inf in the other rows.
_Scorer = Callable[[Tensor, tuple[int, ...]], Tensor]


@deterministic()
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
    """Return the best of many random latents, for each of several prompts.

    The basis of a prompt does not depend on the other prompts, nor, up to rounding of the models,
    on ``config.batch_size``.

    With a bank, the candidates are a random half of its members in the allowed classes, but at
    least ``num_basis``; ``num_candidates`` and the class prior are not used.

    Args:
        gan: The generator.
        clip: The encoder.
        targets: The prompts.
        config: Settings of the search.
        augment: Augmentations of the ranking; their number is ``config.rerank_augments``.
        generator: CPU generator of candidates and augmentations, advanced by this call.
        bank: Precomputed candidates of these models at this truncation.
        callback: Called after each scored batch; it may raise to stop.

    Returns:
        One basis for each target, best latent first.

    Raises:
        ConfigError: If a class is unknown, or a target or the bank is of another model.

    References:
        Liu et al. 2021, section 3.2 (the k best by AugCLIP). gnobitab/FuseDream,
        ``generate_basis``. Differs: upstream ranks by plain CLIP (``config.ranking``), and both
        draw classes uniformly (``config.guided_share``).
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
    """State shared by the two stages of one search."""

    gan: Gan
    clip: ImageTextEncoder
    targets: Sequence[Target]
    named: Sequence[list[int]]  # named classes of each target; empty without the class prior
    config: SearchConfig
    callback: Callback | None
    num_images: AutoBatchSize = field(default_factory=AutoBatchSize)
    num_views: AutoBatchSize = field(default_factory=AutoBatchSize)

    @property
    def truncation(self) -> float:
        """The truncation of the settings, or the GAN's recommendation."""
        asked = self.config.truncation
        return self.gan.truncation if asked is None else asked

    def scan(self, generator: torch.Generator) -> list[Pool]:
        """First stage: the best candidates of each target by plain CLIP."""
        texts = text_features(self.targets, self.clip)  # (T, D)

        def score(images: Tensor, rows: tuple[int, ...]) -> Tensor:
            features = self.num_images.map(self.clip.encode_images, images)
            return self._masked(rows, similarities(texts, features))

        keep, cap = shortlist_size(self._num_candidates, self.config)
        pools = self._stream(self._streams(texts, generator), score, keep, cap)
        best = [pool.best(keep, cap) for pool in pools]
        return [with_named(*own) for own in zip(best, pools, self.named, strict=True)]

    def rank_all(self, augment: AugmentConfig, generator: torch.Generator) -> list[Pool]:
        """Both stages in one, where AugCLIP ranks all candidates.

        The augmentations are those that a second stage would draw after all candidates.
        """
        streams = self._streams(text_features(self.targets, self.clip), generator)
        ahead = rng.copy(generator)
        for _ in self._candidates(streams[0][1], ahead):
            pass
        drawn: list[AugmentParams] = []  # once, when the image size is known

        def score(images: Tensor, rows: tuple[int, ...]) -> Tensor:
            if not drawn:
                drawn.append(self._sample(images, augment, ahead))
            scores = [self._aug_clip(images, self.targets[row], drawn[0]) for row in rows]
            every = scores[0].new_zeros(len(self.targets), len(images))
            every[list(rows)] = torch.stack(scores)
            return self._masked(rows, every)

        pools = self._stream(streams, score, self.config.num_basis, self.config.max_per_class)
        generator.set_state(ahead.get_state())
        return pools

    def _stream(
        self, streams: Sequence[_Stream], score: _Scorer, keep: int, cap: int | None
    ) -> list[Pool]:
        """Decode and score all candidates. Returns a shortlist per target."""
        shortlists = [Shortlist(keep, cap, named) for named in self.named]
        total = sum(math.ceil(len(classes) / self.config.batch_size) for _, classes, _ in streams)
        step, best_so_far = 0, None
        for rows, classes, stream in streams:
            for z, y, index in self._candidates(classes, stream):
                images = self._decode(z, y)
                scores = score(images, rows)  # (T, N)
                for row in rows:
                    shortlists[row].add(Pool(z, y, index, scores[row].cpu()))
                step += 1
                if self.callback is not None:
                    best_so_far = update_best(best_so_far, images, scores)
                    self.callback(StepInfo("search", step, total, *best_so_far))
        return [shortlist.pool() for shortlist in shortlists]

    def _masked(self, rows: tuple[int, ...], scores: Tensor) -> Tensor:
        """Set scores ``(T, N)`` to -inf for targets that are not in ``rows``."""
        others = [row for row in range(len(self.targets)) if row not in rows]
        scores[others] = -torch.inf
        return scores

    def _sample(
        self, images: Tensor, augment: AugmentConfig, generator: torch.Generator
    ) -> AugmentParams:
        """Draw the augmentations of the ranking."""
        return sample_params(
            self.config.rerank_augments, *images.shape[-2:], config=augment, generator=generator
        )

    def _aug_clip(self, images: Tensor, target: Target, params: AugmentParams) -> Tensor:
        """Return AugCLIP scores ``(N,)``."""
        return aug_clip_score_within(self.num_views, images, target, self.clip, params=params).mean

    def _decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Decode candidates to images ``(N, 3, H, W)``."""
        return self.num_images.map(partial(self.gan.decode, truncation=self.truncation), z, y)

    def look_up(self, bank: Bank, generator: torch.Generator) -> list[Pool]:
        """First stage with a bank: one matrix product."""
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
                f"The seed bank holds {len(rows)} images of the allowed classes, but num_basis "
                f"is {self.config.num_basis}; lower it, take a larger bank, or search without one."
            )
        num = max(self.config.num_basis, (len(rows) + 1) // 2)
        half = rng.permutation(len(rows), generator=generator)[:num]
        rows = rows[half.sort().values]
        classes = index[rows]
        z, y = bank.sample_z(self.gan)[rows.to(self.gan.device)], self.gan.embed(classes)
        features = bank.features.cpu()[rows].to(texts)
        scores = similarities(texts, features).cpu()  # (T, N)
        keep, cap = shortlist_size(len(rows), self.config)
        pools = [Pool(z, y, classes, own) for own in scores]
        best = [pool.best(keep, cap) for pool in pools]
        return [with_named(*own) for own in zip(best, pools, self.named, strict=True)]

    @property
    def _allowed(self) -> Tensor:
        """Indices of the allowed classes."""
        names = self.gan.class_names
        return torch.tensor(resolve_classes(names, self.config.classes or range(len(names))))

    @property
    def _num_candidates(self) -> int:
        """M of the paper."""
        return self.config.candidates_on(self.gan.device)

    def _streams(self, texts: Tensor, generator: torch.Generator) -> list[_Stream]:
        """Draw the classes: one uniform stream for all targets, one prior stream per target.

        All classes of a stream are drawn first and z later, row by row, so candidates do not depend
        on the batch size. The prior streams start from the same random state, so a target's stream
        does not depend on the other targets.
        """
        allowed = self._allowed
        num_prior = int(self._num_candidates * self.config.guided_share) * (len(allowed) > 1)
        num_shared = self._num_candidates - num_prior
        everyone = tuple(range(len(texts)))
        shared = rng.integers((num_shared,), 0, len(allowed) - 1, generator=generator)
        streams = [(everyone, allowed[shared], generator)]
        if num_prior:
            child = rng.fork(generator)
            priors = class_weights(self.gan, self.clip, texts, self.named, allowed.tolist())
            for row, weights in enumerate(priors):
                own = rng.copy(child)
                drawn = rng.choices(weights, num_prior, generator=own)
                streams.append(((row,), allowed[drawn], own))
        return streams

    def rerank(
        self, pools: Sequence[Pool], augment: AugmentConfig, generator: torch.Generator
    ) -> list[Pool]:
        """Second stage: AugCLIP scores of the pools, under the same augmentations for all."""
        total = sum(math.ceil(len(pool) / self.config.batch_size) for pool in pools)
        step, params = 0, None
        ranked = []
        for pool, target in zip(pools, self.targets, strict=True):
            parts = []
            best_so_far = None
            for rows in torch.arange(len(pool)).split(self.config.batch_size):
                some = pool.pick(rows)
                images = self._decode(some.z, some.y)
                if params is None:
                    params = self._sample(images, augment, generator)
                scores = self._aug_clip(images, target, params)
                parts.append(scores.cpu())
                step += 1
                if self.callback is not None:
                    best_so_far = update_best(best_so_far, images, scores[None])
                    self.callback(StepInfo("rerank", step, total, *best_so_far))
            ranked.append(dataclasses.replace(pool, scores=torch.cat(parts)))
        return ranked

    def make_basis(self, pool: Pool, named: list[int], target: Target) -> Basis:
        """Return the best of a pool as a basis."""
        config = self.config
        best = with_named(pool.best(config.num_basis, config.max_per_class), pool, named)
        return Basis(
            Latent(best.z, best.y, self.truncation),
            best.scores,
            best.class_index,
            self.gan.gan_id,
            target.prompt,
            config.ranking,
        )

    def _candidates(
        self, classes: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield batches of z, y and class index."""
        for part in classes.split(self.config.batch_size):
            z = self.gan.sample_z(len(part), truncation=self.truncation, generator=generator)
            yield z, self.gan.embed(part), part
