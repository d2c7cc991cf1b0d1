"""A detector that names every object of a picture, where it is and what colour it has.

It judges composites: two objects may be pasted, blended and partly covered. Nothing is optimised
against it. ``finder_training.py`` trains it on art that neither the generator nor CLIP knows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from scenes import COLORS

CHANNELS = (40, 80, 160, 288)


@dataclass(frozen=True)
class Found:
    """One object of a picture.

    Attributes:
        name: Its word.
        probability: That it is there, as far as the detector is calibrated.
        color: The likeliest colour word.
        box: Left, top, right and bottom, as shares of the picture's sides.
    """

    name: str
    probability: float
    color: str
    box: tuple[float, float, float, float]


class Finder(nn.Module):
    """A residual network whose features, at an eighth of 96 px, carry a map for each object.

    Attributes:
        class_names: The words.
        threshold: An object is found from this probability on.
    """

    image_size = 96
    cells = 12

    def __init__(self, class_names: list[str], threshold: float = 0.3) -> None:
        super().__init__()
        self.class_names, self.threshold = list(class_names), threshold
        self.body = ResNet(
            BasicBlock,
            layers=(1, 1, 2, 1),
            channels=CHANNELS,
            stem_type="deep",
            stem_width=20,
            replace_stem_pool=True,
            avg_down=True,
            num_classes=0,
        )
        width = 128
        self.sides = nn.ModuleList(nn.Conv2d(c, width, 1) for c in CHANNELS[1:])
        self.mix = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.heat = nn.Conv2d(width, len(class_names), 1)
        self.place = nn.Conv2d(width, 4, 1)
        self.color = nn.Conv2d(width, len(COLORS), 1)
        nn.init.constant_(self.heat.bias, -4.0)  # hardly anything is anywhere
        self.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, folder: Path) -> Finder:
        """Read what :func:`finder_training.export` wrote."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        finder = cls(config["class_names"], config["threshold"])
        state = load_file(folder / "model.safetensors")
        finder.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
        return finder.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of ``(B, 3, 96, 96)`` pictures in [-1, 1], each ``(B, C, 12, 12)``.

        Returns:
            Logits of every object's centre, of which the C are the classes; its box's left, top,
            right and bottom from the cell's middle, in shares; logits of its colour.
        """
        body = self.body
        x = body.maxpool(body.act1(body.bn1(body.conv1(images))))
        x = body.layer1(x)
        levels = [x := layer(x) for layer in (body.layer2, body.layer3, body.layer4)]
        out = self.sides[2](levels[2])
        for side, level in zip(self.sides[1::-1], levels[1::-1], strict=True):
            out = side(level) + F.interpolate(out, scale_factor=2)
        out = self.mix(out)
        return self.heat(out).float(), self.place(out).float(), self.color(out).float()

    @torch.no_grad()
    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, boxes in shares and colour probabilities of pictures of any size.

        They are the mean over the picture and its mirror image.
        """
        size = (self.image_size, self.image_size)
        small = images.float()
        if small.shape[-2:] != size:
            small = F.interpolate(small, size=size, mode="bicubic", antialias=True)
        views = [self(view.clamp(-1, 1)) for view in (small, small.flip(-1))]
        heat, place, color = (
            torch.stack([part, mirrored.flip(-1)]) for part, mirrored in zip(*views, strict=True)
        )
        place[1] = place[1, :, [2, 1, 0, 3]]
        axis = (torch.arange(self.cells) + 0.5) / self.cells
        middle = torch.stack(
            [axis.expand(self.cells, -1), axis[:, None].expand(-1, self.cells)] * 2
        )
        sign = torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None, None]
        boxes = (middle + sign * place.mean(0)).clamp(0, 1)
        return heat.sigmoid().mean(0), boxes, color.softmax(2).mean(0)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`forward`."""
        return super().__call__(images)

    def find(self, images: Tensor, threshold: float | None = None) -> list[list[Found]]:
        """The objects in ``(B, 3, H, W)`` pictures in [-1, 1], the likeliest first.

        Of several objects of one class the likeliest is found.
        """
        heat, boxes, colors = self.maps(images)
        best, where = heat.flatten(2).max(2)  # (B, classes)
        out = []
        for image in range(len(images)):
            rows = (best[image] >= (threshold or self.threshold)).nonzero()[:, 0].tolist()
            found = []
            for row in rows:
                y, x = divmod(where[image, row].item(), self.cells)
                color = COLORS[colors[image, :, y, x].argmax()]
                box = tuple(boxes[image, :, y, x].tolist())
                found.append(Found(self.class_names[row], best[image, row].item(), color, box))
            out.append(sorted(found, key=lambda item: -item.probability))
        return out
