"""Train the judge: a classifier that names object, colour and ground.

It is never optimised against. It has another architecture and seed than CLIP, another task (naming,
no text), and learns from art that neither the generator nor CLIP has seen. Pictures are bent,
flipped and flattened in training, because it has to recognise drawings of a hand it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from judge import Judge
from scenes import UNKNOWN, SceneMaker, Scenes, distort, join_scenes
from training import Clock, cosine, half_precision, load_checkpoint, save_checkpoint, set_rate


@dataclass
class JudgeRun:
    """Settings of the judge's training."""

    minutes: float = 55.0
    batch: int = 96
    single_share: float = 0.8  # the rest are two objects: half side by side, half pasted
    lr: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.998
    seed: int = 2
    start: Path | None = None


def draw_warp(num: int, generator: torch.Generator) -> Tensor:
    """Flips, shears and stretches ``(num, 2, 3)``, as ``F.affine_grid`` takes them."""

    def rand() -> Tensor:
        return 2 * torch.rand(num, generator=generator) - 1

    theta = torch.zeros(num, 2, 3)
    flip = torch.where(rand() < 0, -1.0, 1.0)
    theta[:, 0, 0], theta[:, 1, 1] = flip * (1 + 0.15 * rand()), 1 + 0.15 * rand()
    theta[:, 0, 1], theta[:, 1, 0] = 0.15 * rand(), 0.15 * rand()
    return theta


def bend(images: Tensor, generator: torch.Generator, theta: Tensor | None = None) -> Tensor:
    """Warp ``(B, 3, H, W)`` pictures in [-1, 1] by ``theta`` (or at random) and flatten them.

    The result looks as if another hand had drawn the same thing; it may leave the range a little.
    """
    num = len(images)

    def rand(*shape: int) -> Tensor:
        return 2 * torch.rand(num, *shape, generator=generator) - 1

    theta = draw_warp(num, generator) if theta is None else theta
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    coarse = 0.05 * rand(2, 5, 5)
    grid = grid + F.interpolate(coarse, size=images.shape[-2:], mode="bicubic").permute(0, 2, 3, 1)
    images = F.grid_sample(images, grid, align_corners=False, padding_mode="border")
    levels = 3 + 5 * torch.rand(num, 1, 1, 1, generator=generator)
    flat = torch.round((images + 1) * levels) / levels - 1
    images = torch.where(rand(1, 1, 1) > 0.6, flat, images)
    shadow = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    sharper = images + 1.5 * (images - shadow)  # a darker contour, as other sets draw it
    return torch.where(rand(1, 1, 1) > 0.6, sharper, images)


def loss_fn(judge: Judge, images: Tensor, scenes: Scenes) -> Tensor:
    """Cross-entropy of the three heads; a colour or ground that has no word is left out.

    Two objects share the probability, and have no colour, which would be that of either.
    """
    object_logits, color_logits, ground_logits = judge.logits(images)
    two = scenes.objects[:, 1] != UNKNOWN
    others = torch.where(two, scenes.objects[:, 1], scenes.objects[:, 0])
    shares = torch.zeros_like(object_logits)
    for objects in (scenes.objects[:, 0], others):
        shares.scatter_add_(1, objects[:, None], torch.full_like(shares[:, :1], 0.5))
    color, ground = scenes.colors[:, 0].masked_fill(two, UNKNOWN), scenes.background
    return (
        F.cross_entropy(object_logits, shares, label_smoothing=0.05)
        + 0.5 * F.cross_entropy(color_logits, color, ignore_index=UNKNOWN)
        + 0.5 * F.cross_entropy(ground_logits, ground, ignore_index=UNKNOWN)
    )


def draw_pairs(known: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """``(num, 2)`` different classes of the known ones."""
    return known[torch.rand(num, len(known), generator=generator).topk(2, 1)[1]]


def draw_scenes(
    maker: SceneMaker, known: Tensor, run: JudgeRun, generator: torch.Generator
) -> Scenes:
    """A batch of training scenes; an object that is covered does not count."""
    num_single = int(run.batch * run.single_share)
    classes = known[torch.randint(len(known), (num_single,), generator=generator)]
    pairs = draw_pairs(known, run.batch - num_single, generator)
    double, pasted = pairs.split([len(pairs) // 2, len(pairs) - len(pairs) // 2])
    return join_scenes(
        [
            maker.single(classes, generator),
            maker.double(double, generator),
            maker.pasted(pasted, generator),
        ]
    ).seen()


@torch.no_grad()
def accuracy(
    judge: Judge, atlases: list[Tensor], *, seed: int = 12345, num: int = 1760
) -> dict[str, float]:
    """Share of new scenes that the judge names right, by head.

    Of scenes with two objects: in which share both are found, and how many others on average.
    """
    maker, generator = SceneMaker(atlases, judge.image_size), torch.Generator().manual_seed(seed)
    hits: dict[str, list[Tensor]] = {"object": [], "color": [], "ground": []}
    known = maker.exists.any(0).nonzero()[:, 0]
    both, others = [], []
    for draw in (maker.double, maker.pasted) * 3:
        scenes = draw(draw_pairs(known, 44, generator), generator)
        for names, truth in zip(judge.find(scenes.images), scenes.objects.tolist(), strict=True):
            right = {judge.class_names[index] for index in truth}
            both.append(torch.tensor([float(right <= names)]))
            others.append(torch.tensor([float(len(names - right))]))
    for classes in (torch.arange(num) % maker.num_classes).split(176):
        classes = classes[maker.exists.any(0)[classes]]
        scenes = maker.single(classes, generator)
        guesses = [part.argmax(1) for part in judge.logits(scenes.images)]
        for key, guess, truth in zip(
            hits, guesses, (classes, scenes.colors[:, 0], scenes.background), strict=True
        ):
            hits[key].append((guess == truth)[truth >= 0].float())
    return {
        key: torch.cat(parts).mean().item()
        for key, parts in (hits | {"both": both, "others": others}).items()
    }


def train(
    atlases: list[Tensor],
    unseen: list[Tensor],
    names: list[str],
    out: Path,
    run: JudgeRun,
    log: Callable[[str], None],
) -> Judge:
    """Train on ``atlases``; ``unseen`` (the generator's own art) is only ever measured.

    The first run of all begins with the weights in ``run.start``, if that is a folder.
    """
    torch.manual_seed(run.seed)
    judge = Judge.load(run.start).requires_grad_(True) if run.start else Judge(names)
    mean = Judge(names)
    mean.load_state_dict(judge.state_dict())
    generator = torch.Generator().manual_seed(run.seed)
    maker = SceneMaker(atlases, judge.image_size)
    known = maker.exists.any(0).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(judge.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    clock, path = Clock(run.minutes), out / "judge-checkpoint.pt"
    if state := load_checkpoint(path):
        judge.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["rng"])
        clock.resume(state)
    for progress in clock.steps():
        set_rate(optimizer, run.lr * cosine(progress, clock.step, warmup=200, floor=0.01))
        scenes = draw_scenes(maker, known, run, generator)
        images = distort(bend(scenes.images, generator), generator, 0.7)
        judge.train()
        with half_precision():
            loss = loss_fn(judge, images.contiguous(memory_format=torch.channels_last), scenes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        average(mean, judge, min(run.ema, (1 + clock.step) / (10 + clock.step)))
        clock.tick()
        if clock.due("save", 60):
            save_checkpoint(
                path,
                model=judge.state_dict(),
                mean=mean.state_dict(),
                optimizer=optimizer.state_dict(),
                rng=generator.get_state(),
                **clock.state(),
            )
        if clock.due("log", 180):
            mean.eval()
            seen, other = accuracy(mean, atlases), accuracy(mean, unseen)
            log(
                f"judge {clock.spent / 60:5.1f} min step {clock.step} loss {loss.item():.3f} "
                f"own sets {rounded(seen)} generator's set {rounded(other)}"
            )
    return mean.eval()


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """The scores to three decimals, for the log."""
    return {key: round(value, 3) for key, value in scores.items()}


@torch.no_grad()
def average(mean: Judge, judge: Judge, decay: float) -> None:
    """Move ``mean`` towards the judge's weights and statistics, in place."""
    for kept, new in zip(mean.state_dict().values(), judge.state_dict().values(), strict=True):
        kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)


def export(judge: Judge, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        k: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous()
        for k, v in judge.state_dict().items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({"class_names": judge.class_names}, indent=1) + "\n", encoding="utf-8"
    )
