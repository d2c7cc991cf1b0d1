"""A critic of patches that keeps the demo generator's outlines sharp and its backgrounds even.

A regression that is unsure where an outline lies draws it soft. The critic learns to tell patches
of drawings from patches of generated pictures, and its gradient makes the latter crisp. It is small
and used together with the regression, which alone says what is to be seen.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import half_precision


class Critic(nn.Module):
    """Scores of overlapping patches of 22 px: ``(B, 3, H, W)`` in [-1, 1] to ``(B, 1, h, w)``.

    Beside the picture it is given what a blur of 3 px takes away, enlarged: outlines and blocks.
    Without that it takes some twenty times as long to learn the difference.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = ((6, width, 4, 2), (width, 2 * width, 4, 2), (2 * width, 2 * width, 4, 1))
        layers: list[nn.Module] = []
        for inner, outer, kernel, stride in sizes:
            layers += [nn.Conv2d(inner, outer, kernel, stride), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(2 * width, 1, 1))
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Higher where a patch looks drawn."""
        blurred = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        both = torch.cat([images, 8 * (images - blurred)], 1)
        return self.layers(both.contiguous(memory_format=torch.channels_last)).float()


class Sharpener:
    """The critic, its optimiser, and how hard it pulls beside the regression."""

    def __init__(self, rate: float, pull: float) -> None:
        self.critic, self.pull = Critic(), pull
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=rate, betas=(0.0, 0.9))

    def learn(self, fake: Tensor, real: Tensor) -> float:
        """One step of the hinge loss on pictures; returns it: 2 is a critic that knows nothing."""
        with half_precision():
            scores = self.critic(torch.cat([real, fake.detach()]))
        drawn, made = scores.chunk(2)
        loss = F.relu(1 - drawn).mean() + F.relu(1 + made).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def loss(self, fake: Tensor, regression: Tensor) -> Tensor:
        """What the generator is to lower beside the regression: minus the critic's mean score.

        It is weighted so that its gradient at the pictures is ``pull`` times the regression's.
        """
        self.critic.requires_grad_(False)
        with half_precision():
            out = -self.critic(fake).mean()
        self.critic.requires_grad_(True)
        given, own = (
            torch.autograd.grad(part, fake, retain_graph=True)[0].norm()
            for part in (regression, out)
        )
        return self.pull * given / own.clamp_min(1e-12) * out
