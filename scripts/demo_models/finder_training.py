"""Train the detector of objects on composites of art that the others never see.

Every object is a peak in its class's map, at the middle of what can be seen of it. One that is at
least half visible is to be found, one of which less than a fifth is left is not; between the two
nothing is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from composites import composed, generated
from finder import Finder
from gan_net import load as load_generator
from judge_training import average, bend, draw_pairs, draw_warp, rounded
from scenes import COLORS, UNKNOWN, SceneMaker, Scenes, distort, join_scenes
from training import Clock, cosine, half_precision, load_checkpoint, save_checkpoint, set_rate
from world import Renderer

PRESENT, ABSENT = 0.5, 0.2  # shares of an object that can be seen


@dataclass
class FinderRun:
    """Settings of the detector's training."""

    minutes: float = 120.0
    batch: int = 64
    single_share: float = 0.3
    double_share: float = 0.2  # the rest are composites, a few placements a batch
    placements: int = 4
    lr: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.998
    seed: int = 5
    start: Path | None = None


def draw_scenes(
    maker: SceneMaker, known: Tensor, run: FinderRun, generator: torch.Generator
) -> Scenes:
    """A batch of training scenes."""
    single, double = (int(run.batch * share) for share in (run.single_share, run.double_share))
    pairs = draw_pairs(known, run.batch, generator)
    parts = [maker.single(pairs[:single, 0], generator)]
    parts.append(maker.double(pairs[single : single + double], generator))
    parts += [
        composed(maker, part, generator) for part in pairs[single + double :].chunk(run.placements)
    ]
    return join_scenes(parts)


def move(points: Tensor, theta: Tensor) -> Tensor:
    """Points ``(B, N, 2)``, shares of the sides, where ``bend`` with ``theta`` takes them."""
    inverse = torch.linalg.inv(theta[:, :, :2])
    return ((points * 2 - 1 - theta[:, None, :, 2]) @ inverse.mT + 1) / 2


def warp(scenes: Scenes, generator: torch.Generator) -> Scenes:
    """The scenes as if other hands had drawn them, what is said of places moved along."""
    theta = draw_warp(len(scenes.images), generator)
    scenes.images = bend(scenes.images, generator, theta)
    ends = move(scenes.boxes.view(len(theta), 4, 2), theta).view(-1, 2, 2, 2)
    ends = torch.cat([ends.amin(2), ends.amax(2)], 2)
    scenes.boxes = ends.clamp(0, 1)
    scenes.centers = move(scenes.centers, theta)
    return scenes


def heat_targets(finder: Finder, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """What the maps are to show, ``(B, classes, cells, cells)``, and where it counts.

    The targets are 1 at an object's middle and fall off over the cells beside it.
    """
    num, cells = len(scenes.images), finder.cells
    shape = (num, len(finder.class_names), cells, cells)
    targets, counts = torch.zeros(shape), torch.ones(shape)
    axis, rows = torch.arange(cells) + 0.5, torch.arange(num)
    for index in range(2):
        classes, share = scenes.objects[:, index].clamp_min(0), scenes.visible[:, index]
        there = (scenes.objects[:, index] != UNKNOWN) & (share >= PRESENT)
        unsure = (scenes.objects[:, index] != UNKNOWN) & (share < PRESENT) & (share > ABSENT)
        # The peak is at the middle of a cell, where it is 1.
        middle = (scenes.centers[:, index] * cells).clamp(0, cells - 1e-3).floor() + 0.5
        distance = (axis - middle[:, :1]).square()[:, None] + (axis - middle[:, 1:]).square()[
            ..., None
        ]
        peak = torch.exp(-distance / 1.2) * there[:, None, None]
        targets[rows, classes] = torch.maximum(targets[rows, classes], peak)
        counts[rows[unsure], classes[unsure]] = 0
    return targets, counts


def loss_fn(finder: Finder, images: Tensor, scenes: Scenes) -> Tensor:
    """Focal loss of the maps, and at the objects' middles L1 of boxes and entropy of colours."""
    heat, place, color = finder(images)
    targets, counts = heat_targets(finder, scenes)
    likely, peaks = heat.sigmoid(), targets == 1
    near = torch.where(peaks, (1 - likely).square(), (1 - targets).pow(4) * likely.square())
    entropy = F.binary_cross_entropy_with_logits(heat, peaks.float(), reduction="none")
    loss = (counts * near * entropy).sum() / peaks.sum().clamp_min(1)
    cells = finder.cells
    rows, columns = scenes.visible.ge(PRESENT).nonzero(as_tuple=True)
    spots = scenes.centers[rows, columns]
    inside = ((spots > 0) & (spots < 1)).all(1)
    rows, columns, spots = rows[inside], columns[inside], spots[inside]
    x, y = (spots * cells).long().unbind(1)
    middle = (torch.stack([x, y, x, y], 1) + 0.5) / cells
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    wanted = (scenes.boxes[rows, columns] - middle) * sign
    colors = scenes.colors[rows, columns]
    loss = loss + 4 * F.l1_loss(place[rows, :, y, x], wanted)
    if (colors != UNKNOWN).any():
        loss = loss + 0.5 * F.cross_entropy(color[rows, :, y, x], colors, ignore_index=UNKNOWN)
    return loss


def art_scenes(
    atlases: list[Tensor], size: int, *, seed: int = 12345, rounds: int = 24
) -> Iterator[Scenes]:
    """New scenes of some art: of one object, and composites of two."""
    maker, generator = SceneMaker(atlases, size), torch.Generator().manual_seed(seed)
    known = maker.exists.any(0).nonzero()[:, 0]
    for _ in range(rounds):
        pairs = draw_pairs(known, 24, generator)
        yield maker.single(pairs[:16, 0], generator)
        yield composed(maker, pairs, generator)


def generator_scenes(
    folder: Path, atlas: Tensor, *, seed: int = 54321, rounds: int = 12
) -> Iterator[Scenes]:
    """Composites of the pictures of a generator that learned the drawings of ``atlas``."""
    model, renderer = load_generator(folder), Renderer.from_atlas(atlas, 128)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rounds):
        pairs = draw_pairs(torch.arange(len(atlas)), 24, generator)
        yield generated(model.draw, renderer, pairs, generator, model.net.config.z_dim)


@torch.no_grad()
def scores(finder: Finder, scenes: Iterable[Scenes]) -> dict[str, float]:
    """How well it finds what is in scenes, at its threshold.

    Returns:
        Shares: single objects found; composites with both objects half visible of which both are
        found; covered objects that are not; colours right of what is found; and the number of
        names a picture that are not in it.
    """
    hits: dict[str, list[float]] = {k: [] for k in ("one", "both", "covered", "color", "others")}
    for part in scenes:
        for index, found in enumerate(finder.find(part.images)):
            count(hits, finder, part, index, {item.name: item.color for item in found})
    return {key: sum(values) / max(1, len(values)) for key, values in hits.items()}


def count(
    hits: dict[str, list[float]], finder: Finder, scenes: Scenes, index: int, found: dict[str, str]
) -> None:
    """Add what was found in one scene to the hits."""
    pair = [
        (finder.class_names[name], share, color)
        for name, share, color in zip(
            scenes.objects[index].tolist(),
            scenes.visible[index].tolist(),
            scenes.colors[index].tolist(),
            strict=True,
        )
        if name != UNKNOWN
    ]
    clear = [name for name, share, _ in pair if share >= PRESENT]
    if len(pair) == 1:
        hits["one"].append(float(pair[0][0] in found))
    elif len(clear) == 2:
        hits["both"].append(float(all(name in found for name in clear)))
    hits["covered"] += [float(name not in found) for name, share, _ in pair if share <= ABSENT]
    hits["color"] += [
        float(found[name] == COLORS[color])
        for name, _, color in pair
        if color != UNKNOWN and name in found
    ]
    hits["others"].append(float(len(set(found) - {name for name, _, _ in pair})))


@torch.no_grad()
def choose_threshold(finder: Finder, atlases: list[Tensor]) -> float:
    """The threshold at which both objects of composites of its own art are found most often.

    Of those that name at most 0.15 things a picture that are not there.
    """
    best = (0.0, 0.5)
    for threshold in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5):
        finder.threshold = threshold
        result = scores(finder, art_scenes(atlases, finder.image_size, seed=777, rounds=12))
        value = min(result["both"], result["covered"])
        if result["others"] <= 0.15 and value > best[0]:
            best = (value, threshold)
    finder.threshold = best[1]
    return best[1]


def train(
    atlases: list[Tensor],
    unseen: list[Tensor],
    names: list[str],
    out: Path,
    run: FinderRun,
    log: Callable[[str], None],
) -> Finder:
    """Train on ``atlases``; ``unseen`` (the generator's own art) is only ever measured.

    The first run of all begins with the weights in ``run.start``, if that is a folder.
    """
    torch.manual_seed(run.seed)
    finder = Finder.load(run.start).requires_grad_(True) if run.start else Finder(names)
    mean = Finder(names)
    mean.load_state_dict(finder.state_dict())
    generator = torch.Generator().manual_seed(run.seed)
    maker = SceneMaker(atlases, finder.image_size)
    known = maker.exists.any(0).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(finder.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    clock, path = Clock(run.minutes), out / "finder-checkpoint.pt"
    if state := load_checkpoint(path):
        finder.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["rng"])
        clock.resume(state)
    for progress in clock.steps():
        set_rate(optimizer, run.lr * cosine(progress, clock.step, warmup=200, floor=0.01))
        scenes = warp(draw_scenes(maker, known, run, generator), generator)
        images = distort(scenes.images, generator, 0.7)
        finder.train()
        with half_precision():
            loss = loss_fn(finder, images.contiguous(memory_format=torch.channels_last), scenes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(finder.parameters(), 5.0)
        optimizer.step()
        average(mean, finder, min(run.ema, (1 + clock.step) / (10 + clock.step)))
        clock.tick()
        if clock.due("save", 60):
            save_checkpoint(
                path,
                model=finder.state_dict(),
                mean=mean.state_dict(),
                optimizer=optimizer.state_dict(),
                rng=generator.get_state(),
                **clock.state(),
            )
        if clock.due("log", 300):
            mean.eval()
            seen, other = (
                scores(mean, art_scenes(sets, mean.image_size, rounds=8))
                for sets in (atlases, unseen)
            )
            log(
                f"finder {clock.spent / 60:5.1f} min step {clock.step} loss {loss.item():.3f} "
                f"own sets {rounded(seen)} generator's set {rounded(other)}"
            )
    mean.eval()
    log(f"finder's threshold, chosen on its own sets: {choose_threshold(mean, atlases)}")
    return mean


def export(finder: Finder, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        k: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous()
        for k, v in finder.state_dict().items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"class_names": finder.class_names, "threshold": finder.threshold}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
