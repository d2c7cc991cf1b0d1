"""The judge that measures quality: it names the object, its colour and the ground of a picture.

Nothing is ever optimised against it.
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

from scenes import BACKGROUNDS, COLORS


@dataclass(frozen=True)
class Verdict:
    """The judge's words for one picture, and its softmax probability of every word it knows."""

    objects: dict[str, float]
    colors: dict[str, float]
    backgrounds: dict[str, float]

    @property
    def object(self) -> str:
        """The likeliest object."""
        return max(self.objects, key=self.objects.__getitem__)

    @property
    def color(self) -> str:
        """The likeliest colour of the object."""
        return max(self.colors, key=self.colors.__getitem__)

    @property
    def background(self) -> str:
        """The likeliest background."""
        return max(self.backgrounds, key=self.backgrounds.__getitem__)

    def probability(self, object_name: str, color: str | None) -> float:
        """Probability of an object and, if one is given, of its colour as well."""
        return self.objects[object_name] * (1.0 if color is None else self.colors[color])


class Judge(nn.Module):
    """A residual classifier with three linear heads, on 64 px pictures in [-1, 1]."""

    image_size = 64

    def __init__(self, class_names: list[str]) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.body = ResNet(
            BasicBlock,
            layers=(1, 1, 2, 1),
            channels=(48, 96, 192, 320),
            stem_type="deep",
            stem_width=24,
            replace_stem_pool=True,
            avg_down=True,
            num_classes=0,
        ).to(memory_format=torch.channels_last)
        self.heads = nn.ModuleList(
            nn.Linear(320, n) for n in (len(class_names), len(COLORS), len(BACKGROUNDS))
        )

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """Read what :func:`judge_training.export` wrote."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        judge = cls(config["class_names"])
        judge.load_state_dict(
            {
                k: v.float() if v.dtype == torch.half else v
                for k, v in load_file(folder / "model.safetensors").items()
            }
        )
        return judge.eval().requires_grad_(False)

    def logits(self, images: Tensor) -> list[Tensor]:
        """Object, colour and ground logits of ``(B, 3, 64, 64)`` pictures in [-1, 1]."""
        features = self.body(images)
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Verdict]:  # type: ignore[override]
        """Verdicts on ``(B, 3, H, W)`` pictures in [-1, 1] of any size.

        Each is the mean over six views: the picture and its mirror image, as they are, nearer and
        from farther away.
        """
        views = [view for side in (images, images.flip(-1)) for view in _zoomed(side.float())]
        words = (self.class_names, COLORS, BACKGROUNDS)
        logits = [self.logits(self._shrink(view)) for view in views]
        heads = [
            torch.stack([part.softmax(1) for part in head]).mean(0).tolist()
            for head in zip(*logits, strict=True)
        ]
        return [
            Verdict(*(dict(zip(w, h[i], strict=True)) for w, h in zip(words, heads, strict=True)))
            for i in range(len(images))
        ]

    def _shrink(self, images: Tensor) -> Tensor:
        """Pictures of any size at the judge's own."""
        size = self.image_size
        return F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(-1, 1)

    @torch.no_grad()
    def find(
        self, images: Tensor, *, least_whole: float = 0.2, least_window: float = 0.6
    ) -> list[set[str]]:
        """The objects in ``(B, 3, H, W)`` pictures in [-1, 1], one set for each picture.

        Every picture is looked at whole and through square windows: 4 of 80 %, 9 of 60 % and 16 of
        45 % of its side, evenly spread. None of the sizes is one that a composition pastes at.
        Found is what is at least as likely as ``least_whole`` in the whole, and the likeliest of a
        window from ``least_window`` on. Both were chosen on scenes of the judge's own art: of two
        objects side by side it finds both in 89 %, of one pasted on another in 48 %, with 0.1 and
        0.3 others a picture.
        """
        height, width = images.shape[-2:]
        views: list[Tensor] = []
        for share, count in ((0.8, 2), (0.6, 3), (0.45, 4)):
            tall, wide = round(share * height), round(share * width)
            views += [
                images[..., top : top + tall, left : left + wide]
                for top in _spread(height - tall, count)
                for left in _spread(width - wide, count)
            ]
        found = [
            {name for name, probability in verdict.objects.items() if probability >= least_whole}
            for verdict in self(images)
        ]
        for view in views:
            for names, verdict in zip(found, self(view), strict=True):
                if verdict.objects[verdict.object] >= least_window:
                    names.add(verdict.object)
        return found


def _spread(room: int, count: int) -> list[int]:
    """Whole numbers from 0 to ``room``, evenly spread."""
    return [round(room * index / (count - 1)) for index in range(count)]


def _zoomed(images: Tensor) -> list[Tensor]:
    """The pictures as they are, from farther away (their border goes on), and nearer."""
    views = [images]
    for factor in (0.8, 1.15):
        theta = torch.eye(2, 3).expand(len(images), 2, 3) / factor
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        views.append(F.grid_sample(images, grid, padding_mode="border", align_corners=False))
    return views
