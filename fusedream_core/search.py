"""Seed search: the k best of M random latents, which become the basis of the optimisation.

Paper: Liu et al. 2021, section 3.2. Candidates are streamed, so memory does not grow with their
number: each batch is decoded and scored by plain CLIP, and only the best few per cent are kept;
AugCLIP then ranks those. Several prompts can share one stream, which is decoded once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from . import rng
from .augment import AugmentParams, sample_params
from .classes import resolve_classes
from .clip.base import ImageTextEncoder
from .config import AugmentConfig, SearchConfig
from .errors import ConfigError
from .gan.base import Gan
from .pool import Pool
from .score import aug_clip_score, text_features
from .types import Basis, Callback, Latent, StepInfo, Target


def search_basis(
    gan: Gan,
    clip: ImageTextEncoder,
    targets: Sequence[Target],
    *,
    config: SearchConfig,
    augment: AugmentConfig,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> list[Basis]:
    """Find the best latents among random ones, for each of several prompts.

    Every prompt meets the same candidates and gets the basis that it would get alone. The result
    does not depend on ``config.batch_size``, but for the rounding of the models.

    Args:
        gan: The generator.
        clip: The encoder.
        targets: The prompts.
        config: How many candidates, how many are kept, from which classes.
        augment: The changes that AugCLIP ranks by; their number is ``config.rerank_augments``.
        generator: CPU generator of the candidates and changes, advanced by this call.
        callback: Called after each scored batch; it may raise to stop.

    Returns:
        One basis for each target, best latent first.

    Raises:
        ConfigError: If a class is unknown, a target is another CLIP's, or ``max_per_class``
            leaves too few candidates.

    References:
        Liu et al. 2021, section 3.2 (the k best by AugCLIP). gnobitab/FuseDream,
        ``generate_basis``. Differs: upstream ranks by plain CLIP (``config.ranking``).
    """
    truncation = gan.truncation if config.truncation is None else config.truncation
    candidates = _sample_candidates(gan, config, truncation, generator)
    texts = text_features(targets, clip)
    with torch.no_grad():
        pools, size = _scan(gan, clip, texts, candidates, truncation, config, callback)
        if config.ranking == "aug_clip":
            params = sample_params(
                config.rerank_augments, *size, config=augment, generator=generator
            )
            rerank = _Rerank(gan, clip, params, truncation, config.batch_size, callback)
            pools = rerank(pools, targets)
    return [
        _make_basis(gan, target, pool, truncation, config)
        for target, pool in zip(targets, pools, strict=True)
    ]


def _sample_candidates(
    gan: Gan, config: SearchConfig, truncation: float, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of z, y and class index.

    All classes are drawn first, and then z row by row: so the stream of random numbers is cut
    into candidates in the same way whatever the batch size is.
    """
    allowed = torch.tensor(_allowed_classes(gan, config))
    num = config.candidates_on(gan.device)
    draws = rng.integers((num,), 0, len(allowed) - 1, generator=generator)
    for classes in allowed[draws].split(config.batch_size):
        z = gan.sample_z(len(classes), truncation=truncation, generator=generator)
        yield z, gan.embed(classes), classes


def _allowed_classes(gan: Gan, config: SearchConfig) -> list[int]:
    """The classes to draw from, checked against the diversity limit."""
    everything = range(len(gan.class_names))
    classes = resolve_classes(gan.class_names, config.classes or everything)
    cap = config.max_per_class
    if cap is not None and cap * len(classes) < config.num_basis:
        raise ConfigError(
            f"max_per_class is {cap} and there are {len(classes)} classes to draw from, which "
            f"cannot give a basis of {config.num_basis}; raise max_per_class or allow more classes."
        )
    return classes


def _scan(
    gan: Gan,
    clip: ImageTextEncoder,
    texts: Tensor,
    candidates: Iterator[tuple[Tensor, Tensor, Tensor]],
    truncation: float,
    config: SearchConfig,
    callback: Callback | None,
) -> tuple[list[Pool], tuple[int, int]]:
    """First pass, plain CLIP: the best for each text ``(T, D)``, and the pictures' size."""
    num = config.candidates_on(gan.device)
    total = math.ceil(num / config.batch_size)
    keep, cap = _pool_size(num, config)
    pools: list[Pool] = []
    leaders = _Leaders()
    for step, (z, y, classes) in enumerate(candidates, start=1):
        images = gan.decode(z, y, truncation=truncation)
        scores = texts @ clip.encode_images(images).T  # (T, N)
        fresh = [Pool(z, y, classes, row) for row in scores.cpu()]
        grown = [a.join(b) for a, b in zip(pools, fresh, strict=True)] if pools else fresh
        pools = [pool.best(keep, cap) for pool in grown]
        if callback is not None:
            leaders.update(images, scores)
            callback(StepInfo("search", step, total, leaders.scores, leaders.images))
    return pools, (images.shape[-2], images.shape[-1])


def _pool_size(num_candidates: int, config: SearchConfig) -> tuple[int, int | None]:
    """How many candidates the first pass keeps, and how many of one class at most.

    Both are the same multiple of what the basis needs. A pool so limited always holds a basis
    within the limit, if the candidates do.
    """
    share = config.rerank_fraction if config.ranking == "aug_clip" else 0.0
    factor = max(1, math.ceil(num_candidates * share / config.num_basis))
    cap = None if config.max_per_class is None else factor * config.max_per_class
    return factor * config.num_basis, cap


@dataclasses.dataclass(frozen=True, slots=True)
class _Rerank:
    """Second pass: AugCLIP on the pools, with the same changes for every candidate."""

    gan: Gan
    clip: ImageTextEncoder
    params: AugmentParams
    truncation: float
    batch_size: int
    callback: Callback | None

    def __call__(self, pools: Sequence[Pool], targets: Sequence[Target]) -> list[Pool]:
        """The pools with their new scores."""
        total = sum(math.ceil(len(pool) / self.batch_size) for pool in pools)
        done = 0
        ranked = []
        for pool, target in zip(pools, targets, strict=True):
            parts, leaders = [], _Leaders()
            for rows in torch.arange(len(pool)).split(self.batch_size):
                images, scores = self._score(pool.pick(rows), target)
                parts.append(scores.cpu())
                done += 1
                if self.callback is not None:
                    leaders.update(images, scores[None])
                    self.callback(StepInfo("rerank", done, total, leaders.scores, leaders.images))
            ranked.append(dataclasses.replace(pool, scores=torch.cat(parts)))
        return ranked

    def _score(self, pool: Pool, target: Target) -> tuple[Tensor, Tensor]:
        """Pictures of some candidates, and their scores."""
        images = self.gan.decode(pool.z, pool.y, truncation=self.truncation)
        return images, aug_clip_score(images, target, self.clip, params=self.params).mean


class _Leaders:
    """The best picture so far of each of T targets, for the preview."""

    scores: Tensor  # (T,)
    images: Tensor  # (T, 3, H, W)

    def update(self, images: Tensor, scores: Tensor) -> None:
        """Take in a batch of pictures ``(N, 3, H, W)`` with their scores ``(T, N)``."""
        best = scores.max(dim=1)
        contenders = images[best.indices.to(images.device)]
        if not hasattr(self, "scores"):
            self.scores, self.images = best.values, contenders
            return
        better = best.values > self.scores
        self.scores = torch.where(better, best.values, self.scores)
        there = better.to(images.device)[:, None, None, None]
        self.images = torch.where(there, contenders, self.images)


def _make_basis(
    gan: Gan, target: Target, pool: Pool, truncation: float, config: SearchConfig
) -> Basis:
    """The best of a pool as a basis."""
    best = pool.best(config.num_basis, config.max_per_class)
    if len(best) < config.num_basis:
        raise ConfigError(
            f"Only {len(best)} of the {config.num_basis} latents of the basis were found within "
            f"max_per_class = {config.max_per_class}; raise it, or draw more candidates."
        )
    return Basis(
        Latent(best.z, best.y, truncation), best.scores, best.class_index, gan.gan_id, target.prompt
    )
