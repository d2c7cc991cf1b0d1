from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    DEFAULT,
    AugmentConfig,
    BigGan,
    CompositionRecipe,
    InvertConfig,
    Latent,
    OpenClip,
    SearchConfig,
    StepInfo,
    basis_from,
    build_bank,
    encode_target,
    generate,
    generate_composition,
    image_target,
    invert_image,
    make_generator,
    merge_clips,
    rank_images,
    search_basis,
)
from fusedream_core.determinism import deterministic

SEARCH = SearchConfig(num_candidates=20, num_basis=3)


class Watch:
    """A callback that notes how cuDNN is set, and stops the work at a stage."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.flags: dict[str, bool] = {}
        self.stop_at = stop_at

    def __call__(self, info: StepInfo) -> None:
        self.flags[info.stage] = torch.backends.cudnn.deterministic
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


def gan_latents(gan: BigGan) -> tuple[Tensor, Tensor]:
    z = gan.sample_z(1, truncation=0.5, generator=make_generator(0))
    return z, gan.embed(torch.tensor([0]))


def noting(flags: list[bool], method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method that notes how cuDNN is set at each call."""

    def call(*args: object, **options: object) -> Tensor:
        flags.append(torch.backends.cudnn.deterministic)
        return method(*args, **options)

    return call


def as_before() -> bool:
    return torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


class TestDeterministic:
    def test_optimisation(self, gan: BigGan, clip: OpenClip) -> None:
        watch = Watch()
        recipe = replace(DEFAULT, search=SEARCH, optimize=replace(DEFAULT.optimize, num_steps=2))
        generate("a dog", gan=gan, clip=clip, recipe=recipe, callback=watch)
        assert watch.flags["optimize"]
        assert watch.flags["select"]
        assert as_before()

    def test_composition(self, gan: BigGan, clip: OpenClip) -> None:
        watch = Watch()
        recipe = CompositionRecipe(search=SEARCH)
        steps = replace(recipe.compose.optimize, num_steps=2)
        recipe = replace(recipe, compose=replace(recipe.compose, optimize=steps))
        generate_composition(
            "a dog", gan=gan, clip=clip, perceptual=Squares(), recipe=recipe, callback=watch
        )
        assert watch.flags["compose"]
        assert as_before()

    def test_inversion(self, gan: BigGan, clip: OpenClip) -> None:
        watch, config = Watch(), InvertConfig()
        config = replace(config, search=SEARCH, optimize=replace(config.optimize, num_steps=2))
        image = torch.rand(1, 3, 16, 16, generator=make_generator(0)).mul(2).sub(1)
        invert_image(
            *(gan, clip, Squares(), image),
            config=config,
            generator=make_generator(0),
            callback=watch,
        )
        assert watch.flags["invert"]
        assert as_before()

    def test_cancel_leaves_all_as_it_was(self, gan: BigGan, clip: OpenClip) -> None:
        recipe = replace(DEFAULT, search=SEARCH)
        with pytest.raises(InterruptedError):
            generate("a dog", gan=gan, clip=clip, recipe=recipe, callback=Watch("optimize"))
        assert as_before()

    def test_search(self, gan: BigGan, clip: OpenClip) -> None:
        """Transposed convolutions are not deterministic in the forward pass either."""
        watch = Watch()
        generate(
            "a dog", gan=gan, clip=clip, recipe=replace(DEFAULT, search=SEARCH), callback=watch
        )
        assert watch.flags["search"]
        assert watch.flags["rerank"]
        assert as_before()

    @pytest.mark.parametrize("stage", ["search", "bank", "score", "merge", "basis", "target"])
    def test_each_stage_alone(
        self, gan: BigGan, clip: OpenClip, monkeypatch: pytest.MonkeyPatch, stage: str
    ) -> None:
        flags: list[bool] = []
        for model, method in ((gan, "decode"), (clip, "encode_images")):
            monkeypatch.setattr(model, method, noting(flags, getattr(model, method)))
        rng, target = make_generator(0), encode_target(clip, "a dog")
        latent = Latent(*gan_latents(gan), truncation=0.5)
        augment, images = AugmentConfig(num_augments=2), torch.zeros(1, 3, 16, 16)
        calls: dict[str, Callable[[], object]] = {
            "search": lambda: search_basis(
                gan, clip, [target], config=SEARCH, augment=augment, generator=rng
            ),
            "bank": lambda: build_bank(gan, clip, num=3),
            "score": lambda: rank_images(images, target, clip, config=augment, generator=rng),
            "merge": lambda: merge_clips([clip, clip], gan, generator=rng, num_pictures=2),
            "basis": lambda: basis_from(gan, clip, target, latent, augment=augment, generator=rng),
            "target": lambda: image_target(clip, images),
        }
        calls[stage]()
        assert flags
        assert all(flags)
        assert as_before()

    def test_models_leave_the_flags_alone(self, gan: BigGan, clip: OpenClip) -> None:
        flags: list[bool] = []
        networks = (gan.network, clip.model.visual)
        hooks = [
            own.register_forward_hook(lambda *_: flags.append(as_before())) for own in networks
        ]
        clip.encode_images(gan.decode(*gan_latents(gan), truncation=0.5))
        for hook in hooks:
            hook.remove()
        assert flags == [True, True]

    @pytest.mark.parametrize("differentiated", [False, True])
    def test_features(
        self, clip: OpenClip, monkeypatch: pytest.MonkeyPatch, differentiated: bool
    ) -> None:
        """Attention is taken by its definition where its gradient will be asked for."""
        fused_flags: list[bool] = []
        encode = clip.model.encode_image

        def watched(pixels: Tensor) -> Tensor:
            fused = torch.backends.cuda.flash_sdp_enabled()
            fused |= torch.backends.cuda.mem_efficient_sdp_enabled()
            fused_flags.append(fused)
            return encode(pixels)

        monkeypatch.setattr(clip.model, "encode_image", watched)
        monkeypatch.setattr(OpenClip, "device", torch.device("meta"))  # any but the CPU
        with torch.set_grad_enabled(differentiated):
            clip.encode_images(torch.zeros(1, 3, 16, 16))
        assert fused_flags == [not differentiated]
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
