"""Train the demo generator: a BigGAN-deep that learns the small world as a regression.

The architecture is that of pytorch_pretrained_biggan. The world is a function of (class,
factors), so no discriminator is needed: the loss is an L1 on pixels and on their gradients. Latents
are drawn close to the origin at first and from the whole radius later: shapes are learned before
colours and places vary. Most of the early steps are at 64 px, with a head of their own; later all
of them are at 128 px. Normalisation uses the batch's statistics until shortly before the end, where
the running ones are frozen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_pretrained_biggan import BigGAN, BigGANConfig
from pytorch_pretrained_biggan.model import BigGANBatchNorm
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gan_quality import measure
from training import Clock, cosine, half_precision, load_checkpoint, save_checkpoint, set_rate
from world import Z_DIM, Renderer, factors_from_z, sample_z

LAYERS = [
    (False, 16, 16),
    (True, 16, 16),
    (False, 16, 16),
    (False, 16, 16),
    (True, 16, 8),
    (False, 8, 8),
    (True, 8, 4),
    (False, 4, 4),
    (True, 4, 2),
    (True, 2, 1),
]

TRUNCATION = 0.8  # recommended: nearer to the middle, drawings are crisper and colors still full
Y_SPREAD = 0.067  # of one coordinate of BigGAN-deep's class embeddings


def make_config(num_classes: int, width: int) -> BigGANConfig:
    """The package's configuration of the demo generator.

    There is one set of statistics, stored for both ends of truncation.
    """
    return BigGANConfig(
        output_dim=128,
        z_dim=Z_DIM,
        class_embed_dim=Z_DIM,
        channel_width=width,
        num_classes=num_classes,
        layers=LAYERS,
        attention_layer_position=6,
        eps=1e-4,
        n_stats=2,
    )


class Trainee(nn.Module):
    """The package's network with plain weights, batch statistics and a temporary 64 px head.

    Attributes:
        frozen: Normalise by the running statistics also in training.
    """

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        self.net = BigGAN(config)
        for module in self.net.modules():
            if hasattr(module, "weight_orig"):
                nn.utils.remove_spectral_norm(module)
            if isinstance(module, BigGANBatchNorm):
                module.register_buffer("mean", torch.zeros(module.num_features))
                module.register_buffer("var", torch.ones(module.num_features))
        self.frozen = False
        width = config.channel_width
        self.head = nn.Conv2d(2 * width, 3, 3, padding=1)
        self.num_classes = config.num_classes
        self._init_weights()

    def _init_weights(self) -> None:
        """Draw the first weights; residual branches and picture heads start small."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.endswith("conv_3"):  # residual branches start small
                    module.weight.data *= 0.3
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.3 / math.sqrt(module.in_features))
        generator = self.net.generator
        nn.init.normal_(self.net.embeddings.weight)
        nn.init.normal_(generator.gen_z.weight, std=1 / math.sqrt(generator.gen_z.in_features))
        self._ramp(generator.gen_z.bias)
        nn.init.ones_(generator.bn.weight)
        nn.init.zeros_(generator.bn.bias)
        nn.init.zeros_(self.head.bias)
        for conv in (self.head, generator.conv_to_rgb):
            conv.weight.data *= 0.3

    @staticmethod
    @torch.no_grad()
    def _ramp(bias: Tensor) -> None:
        """Start the 4 x 4 features from slopes across the picture.

        They tell later layers where they are.
        """
        slopes = 0.7 * torch.randn(2, 1, 1, bias.numel() // 16)
        axis = torch.linspace(-1, 1, 4)
        bias.copy_((axis[None, :, None] * slopes[0] + axis[:, None, None] * slopes[1]).flatten())

    def _norm(self, bn: BigGANBatchNorm, x: Tensor, cond: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)`` features, scale and shift them by ``cond``, then ReLU."""
        batch = self.training and not self.frozen
        x = F.batch_norm(x, bn.mean, bn.var, None, None, batch, 0.02, 1e-4)
        scale, offset = (
            (1 + bn.scale(cond), bn.offset(cond))
            if bn.conditional
            else (bn.weight[None], bn.bias[None])
        )
        return F.relu(
            torch.addcmul(
                offset[..., None, None].to(x.dtype), x, scale[..., None, None].to(x.dtype)
            )
        )

    def _block(self, block: nn.Module, x: Tensor, cond: Tensor) -> Tensor:
        """The package's residual block, with the normalisation above."""
        h = block.conv_0(self._norm(block.bn_0, x, cond))
        h = self._norm(block.bn_1, h, cond)
        h = F.interpolate(h, scale_factor=2) if block.up_sample else h
        h = block.conv_1(h)
        h = block.conv_2(self._norm(block.bn_2, h, cond))
        h = block.conv_3(self._norm(block.bn_3, h, cond))
        x = x[:, : h.shape[1]]
        return h + (F.interpolate(x, scale_factor=2) if block.up_sample else x)

    def features(self, z: Tensor, y: Tensor, *, grown: bool) -> Tensor:
        """What a head makes into a picture: ``(B, C, size, size)``, 128 px when ``grown``."""
        generator = self.net.generator
        cond = torch.cat([z, y], 1)
        x = (
            generator.gen_z(cond)
            .view(len(z), 4, 4, -1)
            .permute(0, 3, 1, 2)
            .contiguous(memory_format=torch.channels_last)
        )
        blocks = list(generator.layers)
        for block in blocks if grown else blocks[:-1]:
            x = self._block(block, x, cond) if hasattr(block, "bn_0") else block(x)
        return self._norm(generator.bn, x, cond) if grown else F.relu(x)

    def draw(self, z: Tensor, classes: Tensor) -> Tensor:
        """Pictures ``(B, 3, 128, 128)`` of latents and classes ``(B,)``."""
        return self(z, self.net.embeddings.weight.t()[classes], grown=True)

    def forward(self, z: Tensor, y: Tensor, *, grown: bool) -> Tensor:
        """Pictures ``(B, 3, size, size)`` in [-1, 1], 128 px when ``grown`` and 64 px else."""
        head = self.net.generator.conv_to_rgb if grown else self.head
        x = self.features(z, y, grown=grown)  # of the package's head only three rows are used
        return torch.tanh(F.conv2d(x, head.weight[:3], head.bias[:3], padding=1)).float()


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


@torch.no_grad()
def copy_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a state into the model by hand.

    The removed spectral norm leaves a hook behind that makes ``load_state_dict`` ask for its
    tensors.
    """
    for key, value in model.state_dict().items():
        value.copy_(state[key])


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


def with_y_spread(state: dict[str, Tensor], spread: float) -> dict[str, Tensor]:
    """The weights of the same function, with class embeddings of another standard deviation.

    The layers that read the embeddings are scaled the other way.
    """
    state = {key: value.clone() for key, value in state.items()}
    factor = spread / state["embeddings.weight"].std()
    state["embeddings.weight"] *= factor
    for key, value in state.items():
        if key.endswith(("gen_z.weight", "scale.weight", "offset.weight")):
            value[:, len(state["embeddings.weight"]) :] /= factor
    return state


@torch.no_grad()
def read_package(model: Trainee, folder: Path) -> None:
    """Take what :func:`export` wrote; class embeddings get the spread that training wants."""
    kept = load_file(folder / "model.safetensors")
    plain = {}
    for key in model.net.state_dict():
        stem, _, last = key.rpartition(".")
        stored = {"mean": "running_means", "var": "running_vars"}.get(last, last)
        source = f"{stem}.{stored}"
        value = kept[source if source in kept else f"{source}_orig"].float()
        plain[key] = value[0] if last in ("mean", "var") else value
    copy_weights(model.net, with_y_spread(plain, 1.0))


def export(model: Trainee, names: list[str], folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the package's own names, half precision.

    The package's layers divide by u^T W v in every forward; v constant and u = W v / |W v|^2 make
    that 1. Class embeddings get the spread of the released BigGAN-deep's, so that settings mean the
    same on both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain, package = with_y_spread(model.net.state_dict(), Y_SPREAD), BigGAN(model.net.config)
    state = {}
    for key, value in package.state_dict().items():
        stem = key.rsplit(".", 1)[0]
        if "running_" in key:  # one set of statistics for every truncation
            state[key] = plain[f"{stem}.{'mean' if key.endswith('means') else 'var'}"].expand_as(
                value
            )
        elif key.endswith(("weight_u", "weight_v")):
            weight = plain[f"{stem}.weight"].half().float().flatten(1)
            v = torch.full((weight.shape[1],), weight.shape[1] ** -0.5)
            image = weight @ v
            state[key] = v if key.endswith("weight_v") else image / image.square().sum()
        else:
            source = plain[key.replace("weight_orig", "weight")]
            state[key] = source.half() if value.ndim > 1 else source
        state[key] = state[key].contiguous()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.net.config.to_dict() | {"class_names": names, "truncation": TRUNCATION}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
