"""The peers whose work ours is timed against: the package's generator, the reference code's copies.

The copies are written from the reference code's description, and none of its lines are here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UP, SAME = True, False
_TO_16 = [(SAME, 16, 16), (UP, 16, 16), (SAME, 16, 16), (UP, 16, 8), (SAME, 8, 8)]
_LAST = [(SAME, 4, 4), (UP, 4, 2), (SAME, 2, 2), (UP, 2, 1)]
LAYERS = {  # of the released BigGAN-deep, in units of 128 channels
    128: [*_TO_16, (UP, 8, 4), *_LAST],
    256: [*_TO_16, (UP, 8, 8), (SAME, 8, 8), (UP, 8, 4), *_LAST],
    512: [*_TO_16, (UP, 8, 8), (SAME, 8, 8), (UP, 8, 4), *_LAST, (SAME, 1, 1), (UP, 1, 1)],
}


def package_generator(resolution: int, channel_width: int = 128) -> nn.Module:
    """The package's network at a released shape, or a narrower one, with all tensors set."""
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig

    layers = [list(layer) for layer in LAYERS[resolution]]
    torch.manual_seed(0)
    config = BigGANConfig(output_dim=resolution, layers=layers, attention_layer_position=8)
    config.channel_width = channel_width
    network = BigGAN(config).eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_vars"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_means", "bias")):
            tensor.normal_(0, 0.1)
        elif name.endswith(("bn.weight", "gamma")):
            tensor.fill_(0.5)
    network.train()  # so that spectral normalisation finds its vectors
    with torch.no_grad():
        network(torch.randn(1, 128), torch.eye(1000)[:1], 1.0)
    return network.eval().requires_grad_(False)


def reference_copies(image: Tensor, num: int, side: int, generator: torch.Generator) -> Tensor:
    """The reference code's changed copies at CLIP's size (method: repeat, change, shrink).

    Colours, shift by an index, one zoom for all, a box of zeros; then a bilinear resize without
    antialias. ``generator`` is of the picture's device.
    """
    height, device = image.shape[-1], generator.device

    def rand(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(num, 1, 1, 1, generator=generator, device=device)

    copies = image.repeat(num, 1, 1, 1) + rand(-0.5, 0.5)
    grey = copies.mean(dim=1, keepdim=True)
    copies = (copies - grey) * rand(0.0, 2.0) + grey
    mean = copies.mean(dim=(1, 2, 3), keepdim=True)
    copies = (copies - mean) * rand(0.5, 1.5) + mean
    reach = int(height * 0.125 + 0.5)
    shifts = torch.randint(-reach, reach + 1, (2, num, 1, 1), generator=generator, device=device)
    index = torch.arange(height, device=device)
    rows = (index[None, :, None] + shifts[0] + 1).clamp(0, height + 1).expand(num, height, height)
    columns = (index[None, None] + shifts[1] + 1).clamp(0, height + 1).expand(num, height, height)
    padded = F.pad(copies, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    each = torch.arange(num, device=device)[:, None, None]
    copies = padded[each, rows, columns].permute(0, 3, 1, 2)
    size = int(height * (0.8 + 0.4 * float(torch.rand(1, generator=generator, device=device))))
    copies = F.interpolate(copies, (size, size), mode="bilinear", align_corners=False)
    before = (height - size) // 2
    after = height - size - before
    copies = F.pad(copies, (before, after, before, after))
    centers = torch.randint(0, height + 1, (2, num, 1), generator=generator, device=device)
    inside = [(index - center + height // 4).abs() <= height // 4 for center in centers]
    mask = ~(inside[0][:, :, None] & inside[1][:, None])
    return F.interpolate(copies * mask[:, None], (side, side), mode="bilinear", align_corners=False)
