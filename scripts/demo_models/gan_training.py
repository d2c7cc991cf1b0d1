"""Train the demo generator: a BigGAN-deep that learns the small world as a regression.

The architecture is that of pytorch_pretrained_biggan. The world is a function of (class,
factors), so no discriminator is needed: the loss is an L1 on pixels and on their gradients. Latents
are drawn close to the origin at first and from the whole radius later: shapes are learned before
colours and places vary. Most of the early steps are at 64 px, with a head of their own; later all
of them are at 128 px. Normalisation uses the batch's statistics until shortly before the end, where
the running ones are frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_pretrained_biggan import BigGANConfig
from torch import Tensor, nn

from gan_net import Trainee, copy_weights, make_config, read_package
from gan_quality import measure
from training import Clock, cosine, half_precision, load_checkpoint, save_checkpoint, set_rate
from world import Renderer, factors_from_z, sample_z


def loss_fn(fake: Tensor, real: Tensor, alpha: Tensor) -> Tensor:
    """L1 on pixels, on their differences and on the means of 8 px squares.

    Objects count more than backgrounds, but for the differences, which make a background even.
    Pictures are ``(B, 3, H, W)`` in [-1, 1], ``alpha`` is ``(B, 1, H, W)`` in [0, 1].
    """
    weight = 1 + 3 * alpha
    weight = weight / weight.mean()
    error = fake - real
    dx, dy = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    return (weight * error.abs()).mean() + 2 * (dx + dy) + F.avg_pool2d(error, 8).abs().mean()


@dataclass
class GanRun:
    """Settings of the generator's training."""

    minutes: float = 240.0
    early_share: float = 0.25  # of the steps are at 128 px from the first on,
    grown_share: float = 0.5  # and all of them in this share of the time, at the end
    width: int = 32
    batch: int = 12
    lr: float = 2e-3
    y_noise: float = 0.1
    seed: int = 0
    start: Path | None = None  # a folder of weights to begin with, instead of random ones


class Ema:
    """Exponential mean of the weights, warmed up."""

    def __init__(self, model: Trainee) -> None:
        self.model = model
        self.shadow = {k: v.clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the mean towards the weights, by more in the first steps."""
        decay = min(0.999, (1 + step) / (10 + step))
        for key, value in self.model.state_dict().items():
            self.shadow[key].lerp_(value, 1 - decay)

    def copy(self) -> Trainee:
        """A network of its own with the mean weights, in evaluation mode."""
        model = Trainee(self.model.net.config).to(memory_format=torch.channels_last)
        copy_weights(model, self.shadow)
        return model.eval()


class Trainer:
    """The generator, its mean, its optimiser and its random stream, from first step to last."""

    def __init__(self, atlas: Tensor, names: list[str], out: Path, run: GanRun) -> None:
        torch.manual_seed(run.seed)
        self.run, self.names, self.path = run, names, out / "gan-checkpoint.pt"
        config = make_config(len(names), run.width)
        if run.start:
            config = BigGANConfig.from_json_file(str(run.start / "config.json"))
        self.model = Trainee(config).to(memory_format=torch.channels_last)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.renderers = {
            False: Renderer.from_atlas(atlas, 64),
            True: Renderer.from_atlas(atlas, 128),
        }
        self.clock, state = Clock(run.minutes), load_checkpoint(self.path)
        if run.start and not state:
            read_package(self.model, run.start)
            self._fit_head()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=run.lr, betas=(0.9, 0.99))
        self.ema = Ema(self.model)
        if state:
            copy_weights(self.model, state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.shadow = state["ema"]
            self.generator.set_state(state["rng"])
            self.clock.resume(state)

    def sample_z(self, num: int) -> Tensor:
        """Latents ``(num, z_dim)`` of the whole radius."""
        return sample_z(num, self.generator, self.model.net.config.z_dim)

    def sample_classes(self, num: int) -> tuple[Tensor, Tensor]:
        """Random classes ``(num,)`` and their embeddings ``(num, class_embed_dim)``."""
        classes = torch.randint(len(self.names), (num,), generator=self.generator)
        return classes, self.model.net.embeddings.weight.t()[classes]

    @torch.no_grad()
    def _fit_head(self, batches: int = 6) -> None:
        """Give the 64 px head its least squares: weights that were read have none."""
        head, targets = self.model.head, self.renderers[False]
        width = head.weight[0].numel() + 1
        square, right = torch.eye(width), torch.zeros(width, 3)
        for _ in range(batches):
            z, (classes, y) = self.sample_z(16), self.sample_classes(16)
            real = targets(classes, factors_from_z(z))[0].clamp(-0.97, 0.97).atanh()
            patches = F.unfold(self.model.features(z, y, grown=False), 3, padding=1)
            rows = F.pad(patches.transpose(1, 2).flatten(0, 1), (0, 1), value=1.0)
            square += rows.t() @ rows
            right += rows.t() @ real.flatten(2).transpose(1, 2).flatten(0, 1)
        solution = torch.linalg.solve(square, right).t()
        head.weight.copy_(solution[:, :-1].view_as(head.weight))
        head.bias.copy_(solution[:, -1])

    def step(self, progress: float) -> float:
        """One step of Adam, ``progress`` of the budget being over; returns the loss."""
        run = self.run
        set_rate(self.optimizer, run.lr * cosine(progress, self.clock.step, warmup=100, floor=0.02))
        chance = torch.rand((), generator=self.generator).item()
        grown = progress > 1 - run.grown_share or chance < run.early_share
        radius = 0.3 + 0.7 * min(max((progress - 0.2) / 0.2, 0.0), 1.0)
        radius = 1.0 if run.start else radius
        self.model.frozen = progress > 0.85
        z, (classes, y) = radius * self.sample_z(run.batch), self.sample_classes(run.batch)
        with torch.no_grad():
            real, alpha = self.renderers[grown](classes, factors_from_z(z))
        y = y + run.y_noise * torch.randn(y.shape, generator=self.generator)
        with half_precision():
            fake = self.model(z, y, grown=grown)
        loss = loss_fn(fake, real.contiguous(memory_format=torch.channels_last), alpha)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.clock.step + 1)
        return loss.item()

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(
            self.path,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            ema=self.ema.shadow,
            rng=self.generator.get_state(),
            **self.clock.state(),
        )


def train(
    atlas: Tensor, names: list[str], out: Path, run: GanRun, log: Callable[[str], None]
) -> Trainee:
    """Train, with a checkpoint each minute; an interrupted run goes on from its last checkpoint."""
    trainer = Trainer(atlas, names, out, run)
    for progress in trainer.clock.steps():
        loss = trainer.step(progress)
        trainer.clock.tick()
        if trainer.clock.due("save", 60):
            trainer.save()
        if trainer.clock.due("log", 180):
            mean, renderer = trainer.ema.copy(), trainer.renderers[True]
            dim = mean.net.config.z_dim
            scores = [
                f"at {radius}: {measure(mean.draw, renderer, radius, dim=dim)}"
                for radius in (0.0, 0.6, 1.0)
            ]
            log(
                f"gan {trainer.clock.spent / 60:5.1f} min step {trainer.clock.step} "
                f"loss {loss:.4f}; dB (object, background) {'; '.join(scores)}"
            )
    return trainer.ema.copy()
