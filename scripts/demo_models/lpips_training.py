"""Train the demo's perceptual distance: LPIPS over a small SqueezeNet, on the demo's own world.

As with LPIPS itself the trunk learns to name what it sees, here object, colour and ground of the
scenes that CLIP learns from. There are no human judgements of this world to fit heads to: every
layer's heads are one number, such that each layer counts alike and two unrelated scenes are 0.7
apart, as they roughly are in LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from fusedream_core.models.lpips import Lpips, make_lpips
from scenes import BACKGROUNDS, COLORS, UNKNOWN, SceneMaker, Scenes, distort, join_scenes
from training import Clock, cosine, half_precision, load_checkpoint, save_checkpoint, set_rate
from world import place

IMAGE_SIZE = 64
WIDTH = 512  # channels of the trunk's last layer
_APART = 0.7  # mean distance of two unrelated scenes


@dataclass
class LpipsRun:
    """Settings of the trunk's training."""

    minutes: float = 16.0
    batch: int = 96
    single_share: float = 0.7  # the rest are two objects: half side by side, half pasted
    lr: float = 1e-3
    weight_decay: float = 0.02
    seed: int = 3


class Namer(nn.Module):
    """SqueezeNet 1.1's features and a linear head each for objects, colours and grounds."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = squeezenet1_1(weights=None).features
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.heads = nn.ModuleList(
            nn.Linear(WIDTH, num) for num in (num_classes, len(COLORS), len(BACKGROUNDS))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of pictures in [-1, 1]."""
        features = self.features(normalize(images)).float()
        pooled = F.layer_norm(features.mean((2, 3)), (WIDTH,))
        return [head(pooled) for head in self.heads]


def normalize(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] as LPIPS's own scaling layer hands them to its trunk."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


def draw_scenes(maker: SceneMaker, run: LpipsRun, generator: torch.Generator) -> Scenes:
    """A batch of training scenes; an object that is covered does not count."""
    one = int(run.batch * run.single_share)
    order = torch.rand(run.batch, maker.num_classes, generator=generator).topk(2, 1)[1]
    single, double, pasted = order.split([one, (run.batch - one) // 2, (run.batch - one + 1) // 2])
    return join_scenes(
        [
            maker.single(single[:, 0], generator),
            maker.double(double, generator),
            maker.pasted(pasted, generator),
        ]
    ).seen()


def loss_fn(namer: Namer, images: Tensor, scenes: Scenes) -> Tensor:
    """Cross-entropy of the heads; of two objects each is half the answer, and has no colour."""
    objects, colors, grounds = namer(images)
    two = scenes.objects[:, 1] != UNKNOWN
    second = torch.where(two, scenes.objects[:, 1], scenes.objects[:, 0])
    loss = F.cross_entropy(objects, scenes.objects[:, 0]) + F.cross_entropy(objects, second)
    color = scenes.colors[:, 0].masked_fill(two, UNKNOWN)
    for logits, truth in ((colors, color), (grounds, scenes.background)):
        loss = loss + F.cross_entropy(logits, truth, ignore_index=UNKNOWN)
    return loss / 2


def train(atlases: list[Tensor], out: Path, run: LpipsRun, log: Callable[[str], None]) -> Lpips:
    """Train, with a checkpoint each minute; an interrupted run goes on from its last checkpoint."""
    torch.manual_seed(run.seed)
    maker, generator = SceneMaker(atlases, IMAGE_SIZE), torch.Generator().manual_seed(run.seed)
    namer = Namer(maker.num_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(namer.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    clock, path = Clock(run.minutes), out / "lpips-checkpoint.pt"
    if state := load_checkpoint(path):
        namer.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["rng"])
        clock.resume(state)
    for progress in clock.steps():
        set_rate(optimizer, run.lr * cosine(progress, clock.step, warmup=300, floor=0.01))
        scenes = draw_scenes(maker, run, generator)
        with half_precision():
            loss = loss_fn(namer, distort(scenes.images, generator, 0.7), scenes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(namer.parameters(), 1.0)
        optimizer.step()
        clock.tick()
        if clock.due("save", 60):
            save_checkpoint(
                path,
                model=namer.state_dict(),
                optimizer=optimizer.state_dict(),
                rng=generator.get_state(),
                **clock.state(),
            )
        if clock.due("log", 120):
            told = " ".join(f"{k} {v:.3f}" for k, v in accuracy(namer, maker).items())
            log(
                f"lpips {clock.spent / 60:5.1f} min step {clock.step} loss {loss.item():.3f} {told}"
            )
    distance = assemble(namer.eval(), maker)
    for kind, shares in agreement(distance, maker).items():
        told = " ".join(f"{name} {share:.3f}" for name, share in shares.items())
        log(f"lpips, the nearer picture found, {kind}: {told}")
    return distance


@torch.no_grad()
def accuracy(namer: Namer, maker: SceneMaker) -> dict[str, float]:
    """Share of new scenes of one object that the trunk names right."""
    generator = torch.Generator().manual_seed(12345)
    scenes = maker.single(torch.arange(maker.num_classes).repeat(5), generator)
    truths = (scenes.objects[:, 0], scenes.colors[:, 0], scenes.background)
    found = {}
    for name, logits, truth in zip(
        ("object", "color", "ground"), namer(scenes.images), truths, strict=True
    ):
        found[name] = (logits.argmax(1) == truth)[truth >= 0].float().mean().item()
    return found


@torch.no_grad()
def assemble(namer: Namer, maker: SceneMaker) -> Lpips:
    """The trunk in the package's form, with heads that let every layer count alike."""
    network = make_lpips("squeeze")
    trunk = list(namer.features.state_dict().values())
    network.net.load_state_dict(dict(zip(network.net.state_dict(), trunk, strict=True)))
    for head in network.lins:
        head.model[-1].weight.fill_(1.0)
    generator = torch.Generator().manual_seed(54321)
    classes = torch.randperm(maker.num_classes, generator=generator)
    scenes = maker.single(classes, generator).images
    _, layers = network(scenes, scenes.roll(1, 0), retPerLayer=True)
    for head, layer in zip(network.lins, layers, strict=True):
        head.model[-1].weight.fill_(_APART / len(layers) / layer.mean())
    return Lpips(network)


@torch.no_grad()
def agreement(distance: Lpips, maker: SceneMaker, rounds: int = 6) -> dict[str, dict[str, float]]:
    """How often the picture that a person would call nearer is the nearer one.

    "shifted": the same scene a little shifted and scaled, against another object in its place on
    the same ground. "stronger": a weak distortion against a stronger one of the same kind.
    Beside the distance stands the mean squared difference of pixels.
    """
    generator = torch.Generator().manual_seed(777)
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "lpips": lambda a, b: distance.distance_map(a, b).mean((1, 2, 3)),
        "pixels": lambda a, b: (a - b).square().mean((1, 2, 3)),
    }
    hits: dict[str, dict[str, list[Tensor]]] = {
        kind: {name: [] for name in measures} for kind in ("shifted", "stronger")
    }
    for _ in range(rounds):
        classes = torch.randperm(maker.num_classes, generator=generator)
        twin = torch.Generator()
        twin.set_state(generator.get_state())
        images = maker.single(classes, generator).images
        others = maker.single(classes.roll(1), twin).images  # the same place, colours and ground
        num = len(classes)
        shift = 0.25 * (2 * torch.rand(num, 2, generator=generator) - 1)
        size = 1 + 0.15 * (2 * torch.rand(num, generator=generator) - 1)
        one = torch.cat([images + 1, torch.ones(num, 1, *images.shape[2:])], 1)
        moved = place(one, shift, size, torch.zeros(num), IMAGE_SIZE)
        moved = torch.where(moved[:, 3:] > 0.999, moved[:, :3] - 1, images)
        soft = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)
        weak, strong = torch.lerp(images, soft, 0.3), torch.lerp(images, soft, 0.9)
        for name, measure in measures.items():
            hits["shifted"][name].append(measure(images, moved) < measure(images, others))
            hits["stronger"][name].append(measure(images, weak) < measure(images, strong))
    return {
        kind: {name: torch.cat(found).float().mean().item() for name, found in by_name.items()}
        for kind, by_name in hits.items()
    }


def export(distance: Lpips, folder: Path) -> None:
    """Write the state dict of a whole ``lpips.LPIPS``, trunk in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if value.ndim == 4 and "net." in name else value).contiguous().clone()
        for name, value in distance.network.state_dict().items()
        if not name.startswith("lins.")  # the same heads a second time
    }
    save_file(state, folder / "squeeze.safetensors", metadata={"format": "pt"})
