"""The demo generator's network, and its files in pytorch_pretrained_biggan's format."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_pretrained_biggan import BigGAN, BigGANConfig
from pytorch_pretrained_biggan.model import BigGANBatchNorm
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from world import Z_DIM

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


@torch.no_grad()
def copy_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a state into the model by hand.

    The removed spectral norm leaves a hook behind that makes ``load_state_dict`` ask for its
    tensors.
    """
    for key, value in model.state_dict().items():
        value.copy_(state[key])


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


def load(folder: Path) -> Trainee:
    """The network of weights that :func:`export` wrote, in evaluation mode."""
    config = BigGANConfig.from_json_file(str(folder / "config.json"))
    model = Trainee(config).to(memory_format=torch.channels_last)
    read_package(model, folder)
    return model.eval().requires_grad_(False)


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
