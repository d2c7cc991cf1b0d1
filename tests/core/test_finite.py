"""NaN is never saved: what a model makes stops the run, and the model is named."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import (
    AdamConfig,
    AugmentConfig,
    Basis,
    BigGan,
    ImageError,
    InvertConfig,
    NonFiniteError,
    OpenClip,
    OptimizeConfig,
    SearchConfig,
    build_bank,
    encode_target,
    generate,
    invert_image,
    make_generator,
    optimize,
    rank_images,
    search_basis,
)
from fusedream_core.compose import compose
from fusedream_core.compose.placement import all_placements
from fusedream_core.config import ComposeConfig
from fusedream_core.finite import check_finite_output
from fusedream_core.models.demo import load_demo, load_demo_lpips

AUGMENT = AugmentConfig(num_augments=2)
SEARCH = SearchConfig(num_candidates=10, num_basis=2, num_reranked=4, rerank_augments=2)


@pytest.fixture(params=["gan", "clip"])
def spoiled(request: pytest.FixtureRequest, gan: BigGan, clip: OpenClip) -> tuple[BigGan, OpenClip]:
    """A pair of models, of which one makes NaN, as one in half precision may."""
    pair = {"gan": copy.deepcopy(gan), "clip": copy.deepcopy(clip)}
    weights = {"gan": pair["gan"].network.rgb_bias, "clip": pair["clip"].model.visual.proj}
    weights[request.param].data.flatten()[0] = torch.nan
    return pair["gan"], pair["clip"]


@pytest.fixture
def name(spoiled: tuple[BigGan, OpenClip], request: pytest.FixtureRequest) -> str:
    """What the message must name."""
    gan, clip = spoiled
    is_gan = request.node.callspec.params["spoiled"] == "gan"
    return f"The output of the {'GAN ' + gan.gan_id if is_gan else 'CLIP ' + clip.clip_id} "


def search(gan: BigGan, clip: OpenClip) -> Basis:
    target = encode_target(clip, "a dog")
    (basis,) = search_basis(
        gan, clip, [target], config=SEARCH, augment=AUGMENT, generator=make_generator(0)
    )
    return basis


@pytest.fixture
def basis(gan: BigGan, clip: OpenClip) -> Basis:
    """Found by the same models before they were spoiled."""
    return search(gan, clip)


def run(gan: BigGan, clip: OpenClip, basis: Basis, **changes: Any) -> object:  # noqa: ANN401
    return optimize(
        gan,
        clip,
        [encode_target(clip, "a dog")],
        [basis],
        config=replace(OptimizeConfig(num_steps=3, num_snapshots=1, eval_augments=2), **changes),
        augment=AUGMENT,
        generators=[make_generator(0)],
    )


class TestStages:
    def test_search(self, spoiled: tuple[BigGan, OpenClip], name: str) -> None:
        with pytest.raises(NonFiniteError, match=name):
            search(*spoiled)

    def test_bank(self, spoiled: tuple[BigGan, OpenClip], name: str) -> None:
        with pytest.raises(NonFiniteError, match=name):
            build_bank(*spoiled, num=5)

    @pytest.mark.parametrize("objective", ["aug_clip", "clip"])
    def test_optimize(
        self, spoiled: tuple[BigGan, OpenClip], name: str, basis: Basis, objective: str
    ) -> None:
        with pytest.raises(NonFiniteError, match=name):
            run(*spoiled, basis, objective=objective)

    def test_compose(self, spoiled: tuple[BigGan, OpenClip], name: str, basis: Basis) -> None:
        gan, clip = spoiled
        steps = AdamConfig(num_steps=2, num_snapshots=1, eval_augments=2)
        with pytest.raises(NonFiniteError, match=name):
            compose(
                gan,
                clip,
                [encode_target(clip, "a dog")],
                [basis],
                [basis],
                config=ComposeConfig(optimize=steps, num_basis=2, consistency="none"),
                augment=AUGMENT,
                placements=all_placements(scales=(0.5,)),
                generators=[make_generator(0)],
                perceptual=None,
            )

    def test_invert(self, spoiled: tuple[BigGan, OpenClip], name: str, images: Tensor) -> None:
        config = InvertConfig(search=SEARCH)
        with pytest.raises(NonFiniteError, match=name):
            invert_image(
                *spoiled, load_demo_lpips(), images[:1], config=config, generator=make_generator(0)
            )

    def test_score(self, clip: OpenClip, images: Tensor) -> None:
        bad = copy.deepcopy(clip)
        bad.model.visual.proj.data[0, 0] = torch.inf  # type: ignore[union-attr, index]
        with pytest.raises(NonFiniteError, match=f"The output of the CLIP {clip.clip_id} "):
            rank_images(
                images,
                encode_target(bad, "a dog"),
                bad,
                config=AUGMENT,
                generator=make_generator(0),
            )

    def test_text(self, clip: OpenClip) -> None:
        bad = copy.deepcopy(clip)
        bad.model.text_projection.data[0, 0] = torch.nan  # type: ignore[union-attr, index]
        with pytest.raises(NonFiniteError, match=f"The output of the CLIP {clip.clip_id} "):
            encode_target(bad, "a text that is new to it")

    def test_distance(self) -> None:
        lpips = load_demo_lpips()
        next(lpips.network.net.parameters()).data[0] = torch.nan  # type: ignore[union-attr]
        with pytest.raises(NonFiniteError, match="The output of LPIPS holds"):
            lpips.distance_map(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64))

    def test_a_whole_run_saves_nothing(self) -> None:
        gan, clip = load_demo()
        gan.network.rgb_bias.data[0] = torch.nan
        with pytest.raises(NonFiniteError, match=f"The output of the GAN {gan.gan_id} "):
            generate("a blue dog", gan=gan, clip=clip)


class _Spoils(torch.autograd.Function):
    """The same image, with a gradient that overflowed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return gradient * torch.inf


class _BadGradient(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor, truncation: float) -> Tensor:
        return _Spoils.apply(self.model(latent, truncation))  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.model, name)


class TestCause:
    def test_a_half_precision_that_overflows(self, gan: BigGan) -> None:
        """As it happens: numbers above 65504 within the network, none of them in the file."""
        rough = copy.deepcopy(gan)
        rough.network.layers[0].up.data *= 3e4  # type: ignore[union-attr, operator]
        z, y = torch.ones(1, 6), gan.embed(torch.tensor([0]))
        rough.decode(z, y, truncation=0.6)  # in float32 it is well
        rough.to(torch.float16)
        message = r"computes in float16, and a half precision can overflow; load it in float32"
        with pytest.raises(NonFiniteError, match=message):
            rough.decode(z, y, truncation=0.6)

    def test_a_gradient_that_overflows(self, gan: BigGan, clip: OpenClip, basis: Basis) -> None:
        """Its images are finite, and the next latents are not."""
        bad = copy.deepcopy(gan)
        bad.network = _BadGradient(bad.network)  # type: ignore[assignment]
        message = f"The input of the GAN {gan.gan_id} .* come from the gradient of an earlier step"
        with pytest.raises(NonFiniteError, match=message):
            run(bad, clip, basis)

    def test_an_image_that_comes_from_elsewhere(self, clip: OpenClip, images: Tensor) -> None:
        """The AugCLIP score refuses it as before; another way in names no CLIP as the cause."""
        images[0, 0, 0, 0] = torch.nan
        target = encode_target(clip, "a dog")
        with pytest.raises(ImageError, match="hold NaN or infinite values, so they cannot be"):
            rank_images(images, target, clip, config=AUGMENT, generator=make_generator(0))
        with pytest.raises(
            NonFiniteError, match=r"The input of the CLIP .* other source of the im"
        ):
            clip.encode_images(images)


class TestCheckFiniteOutput:
    def test_passes_the_output_on(self) -> None:
        output = torch.ones(2, requires_grad=True) * 3
        checked = check_finite_output(
            output, "it", dtype=torch.float32, inputs=(), source="elsewhere"
        )
        assert checked is output
