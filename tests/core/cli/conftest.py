"""The command line with tiny models in place of the demo's, and with less work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import DEFAULT, BigGan, CompositionRecipe, InvertConfig, OpenClip
from fusedream_core.cli import recipes


class PixelDifference(nn.Module):
    """In place of LPIPS, whose nets need larger images than the tiny GAN's."""

    device = torch.device("cpu")

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=1, keepdim=True)


@pytest.fixture(autouse=True)
def _tiny_demo(gan: BigGan, clip: OpenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("fusedream_core.pipeline.generate", "fusedream_core.cli.models"):
        monkeypatch.setattr(f"{module}.kept_demo", lambda _: (gan, clip))
        monkeypatch.setattr(f"{module}.kept_demo_lpips", lambda _: PixelDifference())


@pytest.fixture(autouse=True)
def _less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    search = replace(DEFAULT.search, num_reranked=6, rerank_augments=2)
    optimize = replace(DEFAULT.optimize, eval_augments=4, num_snapshots=2)
    recipe = replace(DEFAULT, search=search, optimize=optimize)
    monkeypatch.setitem(recipes._PRESETS, "default", recipe)
    compose = CompositionRecipe().compose
    optimize = replace(compose.optimize, eval_augments=4, num_snapshots=2)
    compose = replace(compose, optimize=optimize, rungs=((2, 0.5), (1, 1.0)))
    composition = CompositionRecipe(search=search, compose=compose)
    monkeypatch.setitem(recipes._COMPOSITIONS, "default", composition)
    invert = InvertConfig()
    invert = replace(invert, search=search, optimize=replace(invert.optimize, num_steps=3))
    monkeypatch.setattr("fusedream_core.cli.making.InvertConfig", lambda: invert)


@pytest.fixture(autouse=True)
def _no_signal_is_ignored() -> Iterator[None]:
    """A signal that was ignored at the start, as under nohup, stays ignored on purpose."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    for name, handler in before.items():
        if handler is signal.SIG_IGN:
            usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(getattr(signal, name), usual)
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)
