"""Settings of text to image: augmentation, search and optimisation."""

from __future__ import annotations

import dataclasses
import enum
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from ..errors import ConfigError
from .plain import to_plain
from .require import require, require_choice, require_count, require_range

Objective = Literal["aug_clip", "clip"]
Mixing = Literal["scalar", "softmax"]
Start = Literal["best", "alone", "uniform", "random", "preserving"]

CANDIDATES_ON_ACCELERATOR = 10_000
CANDIDATES_ON_CPU = 400


class Augment(enum.Enum):
    """The random augmentations of AugCLIP, in the order of their application."""

    BRIGHTNESS = "brightness"
    SATURATION = "saturation"
    CONTRAST = "contrast"
    TRANSLATION = "translation"
    RESIZE = "resize"
    CUTOUT = "cutout"


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """Augmentations of AugCLIP. The default strengths are the reference code's.

    Attributes:
        num_augments: Augmented views per image (50 in the reference code).
        policy: Augmentations, applied in the order of ``Augment``.
        brightness: Largest added brightness, on images in [-1, 1].
        saturation: Saturation factors are within 1 -/+ this.
        contrast: Contrast factors are within 1 -/+ this.
        translation: Largest shift, as a fraction of the side.
        resize: Zoom factors are within 1 -/+ this.
        cutout: Side of the grey box, as a fraction of the image's side.
        shared_zoom: Whether all views of a draw share one zoom, as in the reference code.
        draws: "stratified" is a Latin hypercube over the parameters, with lower variance;
            "independent" draws each view independently, as the reference code.
    """

    num_augments: int = 6
    policy: tuple[Augment, ...] = tuple(Augment)
    brightness: float = 0.5
    saturation: float = 1.0
    contrast: float = 0.5
    translation: float = 0.125
    resize: float = 0.2
    cutout: float = 0.5
    shared_zoom: bool = False
    draws: Literal["stratified", "independent"] = "stratified"

    def __post_init__(self) -> None:
        require_count("num_augments", self.num_augments, 1)
        known = isinstance(self.policy, tuple) and all(isinstance(m, Augment) for m in self.policy)
        require(known, "policy", self.policy, "a tuple of Augment members")
        require_range("brightness", self.brightness, 0.0, 2.0)
        for name in ("saturation", "contrast", "translation", "cutout"):
            require_range(name, getattr(self, name), 0.0, 1.0)
        require_range("resize", self.resize, 0.0, 0.9)
        require_choice("draws", self.draws, ("stratified", "independent"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """Settings of the seed search among random latents.

    Attributes:
        num_candidates: Number of random latents (M of the paper, 10,000 there). None means 10,000
            on an accelerator and 400 on a CPU.
        num_basis: Number of latents that are kept (k of the paper, 5 there).
        batch_size: Images per decoded batch; changes memory, not the result.
        ranking: Score of the candidates: AugCLIP as in the paper, or plain CLIP as in the
            reference code.
        num_reranked: Number of candidates, the best by plain CLIP, that AugCLIP ranks. None means
            all.
        rerank_augments: Augmented views per ranked candidate.
        truncation: Above 0 and at most 1. None means the GAN's recommendation.
        guided_share: Share of the candidates drawn from the class prior: classes that the prompt
            names or that are near it in CLIP. Each named class is then in the basis. The other
            candidates are drawn from all classes uniformly, as in the paper.
        classes: Names or indices of the allowed classes. None means all.
        max_per_class: Largest number of basis members of one class, where other classes can fill
            the rest. None means unlimited.
    """

    num_candidates: int | None = None
    num_basis: int = 5
    batch_size: int = 10
    ranking: Objective = "aug_clip"
    num_reranked: int | None = 40
    rerank_augments: int = 16
    truncation: float | None = None
    guided_share: float = 0.5
    classes: tuple[str | int, ...] | None = None
    max_per_class: int | None = 2

    def __post_init__(self) -> None:
        require_count("num_basis", self.num_basis, 1)
        require_count("batch_size", self.batch_size, 1)
        require_count("rerank_augments", self.rerank_augments, 1)
        require_choice("ranking", self.ranking, ("aug_clip", "clip"))
        require_range("guided_share", self.guided_share, 0.0, 0.9)
        if self.num_reranked is not None:
            require_count("num_reranked", self.num_reranked, 1)
        if self.num_candidates is not None:
            require_count("num_candidates", self.num_candidates, 1)
            if self.num_basis > self.num_candidates:
                raise ConfigError(
                    f"num_basis is {self.num_basis}, but only {self.num_candidates} candidates "
                    "are drawn; lower num_basis or raise num_candidates."
                )
        if self.truncation is not None:
            within = 0.0 < self.truncation <= 1.0
            require(within, "truncation", self.truncation, "above 0 and at most 1")
        if self.classes is not None:
            require(len(self.classes) > 0, "classes", self.classes, "None or at least one class")
        if self.max_per_class is not None:
            require_count("max_per_class", self.max_per_class, 1)

    def candidates_on(self, device: torch.device) -> int:
        """Return the number of candidates for a GAN on a device."""
        if self.num_candidates is not None:
            return self.num_candidates
        default = CANDIDATES_ON_CPU if device.type == "cpu" else CANDIDATES_ON_ACCELERATOR
        return max(default, self.num_basis)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamConfig:
    """Settings of Adam on over-parameterised latents, and of the returned checkpoint.

    Attributes:
        num_steps: Steps of Adam.
        mixing: "scalar" is the paper's form, one free weight per basis member; "softmax" is the
            reference code's, weights per coordinate that sum to 1.
        start: Initial mixing weights. "uniform" is the paper's 1/k, "random" the reference code's
            softmax of noise, "alone" the best member only, "preserving" a mix with the standard
            deviation of one member.
        units: Units of the next three settings: the standard deviations of z and y ("spread"; that
            of y is about 15 times smaller), or plain numbers as in the reference code ("absolute").
        lr_z: Learning rate of the basis z.
        lr_y: Learning rate of the basis y.
        latent_noise_std: Standard deviation of the noise added to z and y at each step.
        lr_w: Learning rate of the mixing weights (of their logits under "softmax").
        schedule: "cosine" decays the learning rates to a tenth and the noise to 0; "constant"
            keeps both.
        selection: "best" returns the best of the checkpoints, the moving average and the last
            latent by held-out AugCLIP; "last" returns the last latent.
        num_snapshots: Number of checkpoints, evenly spaced, including the start.
        eval_augments: Fixed held-out augmented views of the returned score.
    """

    num_steps: int = 100
    mixing: Mixing = "scalar"
    start: Start = "alone"
    units: Literal["spread", "absolute"] = "spread"
    lr_z: float = 0.1
    lr_y: float = 0.04
    latent_noise_std: float = 0.0
    lr_w: float = 0.02
    schedule: Literal["cosine", "constant"] = "cosine"
    selection: Literal["best", "last"] = "best"
    num_snapshots: int = 4
    eval_augments: int = 64

    def __post_init__(self) -> None:
        require_count("num_steps", self.num_steps, 1)
        require_count("num_snapshots", self.num_snapshots, 0)
        require_count("eval_augments", self.eval_augments, 2)
        require_choice("mixing", self.mixing, ("scalar", "softmax"))
        require_choice("start", self.start, get_args(Start))
        require_choice("units", self.units, ("spread", "absolute"))
        require_choice("schedule", self.schedule, ("cosine", "constant"))
        require_choice("selection", self.selection, ("best", "last"))
        for name in ("lr_z", "lr_y", "lr_w", "latent_noise_std"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, name, value, "a number of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeConfig(AdamConfig):
    """Settings of Algorithm 1, which optimises the basis and its mixing weights.

    Attributes:
        start: As in ``AdamConfig``; "best" is the one of these with the highest score.
        objective: Score to maximise: AugCLIP, or plain CLIP for comparison.
        num_starts: Number of starts: the one above, and the best member alone of other classes of
            the basis, named classes first. The best by AugCLIP is kept, or one of a named class
            within two standard errors of it.
        trial_share: Share of the steps after which only one start is kept.
        first_augments: Share of the augmented views at the first step. Their number grows linearly
            to all of them at the last step; early steps tolerate noise.
    """

    start: Start = "best"
    objective: Objective = "aug_clip"
    num_starts: int = 3
    trial_share: float = 0.2
    first_augments: float = 0.5

    def __post_init__(self) -> None:
        AdamConfig.__post_init__(self)  # slots replace the class, which super() would miss
        require_choice("objective", self.objective, ("aug_clip", "clip"))
        require_count("num_starts", self.num_starts, 1)
        require_range("trial_share", self.trial_share, 0.0, 1.0)
        require_range("first_augments", self.first_augments, 0.0, 1.0)

    def adam(self) -> AdamConfig:
        """Return the settings that composition and inversion share."""
        names = [field.name for field in dataclasses.fields(AdamConfig)]
        return AdamConfig(**{name: getattr(self, name) for name in names})


def adam_only(config: AdamConfig) -> AdamConfig:
    """Return the settings of a stage with one start, without those of an ``OptimizeConfig``."""
    if not isinstance(config, OptimizeConfig):
        return config
    warnings.warn(
        "This stage takes an AdamConfig; of an OptimizeConfig it does not read the settings of "
        "several starts. Give OptimizeConfig.adam().",
        DeprecationWarning,
        stacklevel=4,
    )
    return config.adam()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of all stages of text-to-image generation."""

    search: SearchConfig = SearchConfig()
    optimize: OptimizeConfig = OptimizeConfig()
    augment: AugmentConfig = AugmentConfig()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, for an image's metadata."""
        return dict(to_plain(self))
