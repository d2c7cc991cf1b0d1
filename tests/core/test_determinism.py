from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    DEFAULT,
    BigGan,
    CompositionRecipe,
    InvertConfig,
    OpenClip,
    SearchConfig,
    StepInfo,
    generate,
    generate_composition,
    invert_image,
    make_generator,
)
from fusedream_core.determinism import deterministic

SEARCH = SearchConfig(num_candidates=20, num_basis=3)


class Watch:
    """A callback that notes how cuDNN is set, and stops the work if it is told to."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.seen: dict[str, bool] = {}
        self.stop_at = stop_at

    def __call__(self, info: StepInfo) -> None:
        self.seen[info.stage] = torch.backends.cudnn.deterministic
        if info.stage == self.stop_at:
            raise InterruptedError


class Squares:
    device = torch.device("cpu")

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=1, keepdim=True)


@pytest.fixture(autouse=True)
def _as_a_user_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)


def as_before() -> bool:
    return torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


class TestRepeatable:
    def test_optimisation(self, gan: BigGan, clip: OpenClip) -> None:
        watch = Watch()
        recipe = replace(DEFAULT, search=SEARCH, optimize=replace(DEFAULT.optimize, num_steps=2))
        generate("a dog", gan=gan, clip=clip, recipe=recipe, callback=watch)
        assert watch.seen["optimize"]
        assert watch.seen["select"]
        assert as_before()

    def test_composition(self, gan: BigGan, clip: OpenClip) -> None:
        watch = Watch()
        recipe = CompositionRecipe(search=SEARCH)
        steps = replace(recipe.compose.optimize, num_steps=2)
        recipe = replace(recipe, compose=replace(recipe.compose, optimize=steps))
        generate_composition(
            "a dog", gan=gan, clip=clip, perceptual=Squares(), recipe=recipe, callback=watch
        )
        assert watch.seen["compose"]
        assert as_before()

    def test_inversion(self, gan: BigGan, clip: OpenClip) -> None:
        watch, config = Watch(), InvertConfig()
        config = replace(config, search=SEARCH, optimize=replace(config.optimize, num_steps=2))
        picture = torch.rand(1, 3, 16, 16, generator=make_generator(0)).mul(2).sub(1)
        invert_image(
            *(gan, clip, Squares(), picture),
            config=config,
            generator=make_generator(0),
            callback=watch,
        )
        assert watch.seen["invert"]
        assert as_before()

    def test_cancel_leaves_all_as_it_was(self, gan: BigGan, clip: OpenClip) -> None:
        recipe = replace(DEFAULT, search=SEARCH)
        with pytest.raises(InterruptedError):
            generate("a dog", gan=gan, clip=clip, recipe=recipe, callback=Watch("optimize"))
        assert as_before()

    def test_pictures(self, gan: BigGan, monkeypatch: pytest.MonkeyPatch) -> None:
        """Transposed convolutions are gradients already on the way forward."""
        seen: list[bool] = []
        forward = type(gan.network).forward

        def watched(network: object, *args: object) -> object:
            seen.append(torch.backends.cudnn.deterministic)
            return forward(network, *args)

        monkeypatch.setattr(type(gan.network), "forward", watched)
        z = gan.sample_z(1, truncation=0.5, generator=make_generator(0))
        gan.decode(z, gan.embed(torch.tensor([0])), truncation=0.5)
        assert seen == [True]
        assert as_before()

    @pytest.mark.parametrize("differentiated", [False, True])
    def test_features(
        self, clip: OpenClip, monkeypatch: pytest.MonkeyPatch, differentiated: bool
    ) -> None:
        """Attention is taken by its definition where its gradient will be asked for."""
        seen: list[tuple[bool, bool]] = []
        encode = clip.model.encode_image

        def watched(pixels: Tensor) -> Tensor:
            fused = torch.backends.cuda.flash_sdp_enabled()
            fused |= torch.backends.cuda.mem_efficient_sdp_enabled()
            seen.append((torch.backends.cudnn.deterministic, fused))
            return encode(pixels)

        monkeypatch.setattr(clip.model, "encode_image", watched)
        monkeypatch.setattr(OpenClip, "device", torch.device("meta"))  # any but the CPU
        with torch.set_grad_enabled(differentiated):
            clip.encode_images(torch.zeros(1, 3, 16, 16))
        assert seen == [(True, not differentiated)]
        assert as_before()

    def test_as_a_context(self) -> None:
        with deterministic():
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cudnn.benchmark
        assert as_before()

    def test_overlapping_uses(self) -> None:
        """As in two threads: the one that began first ends first."""
        first, second = deterministic(), deterministic()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.backends.cudnn.deterministic
        second.__exit__(None, None, None)
        assert as_before()
