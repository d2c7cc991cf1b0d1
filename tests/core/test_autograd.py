from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import (
    AdamConfig,
    AugmentConfig,
    BigGan,
    ComposeConfig,
    CompositionRecipe,
    InvertConfig,
    OpenClip,
    OptimizeConfig,
    Recipe,
    SearchConfig,
    aug_clip_score,
    compose,
    encode_target,
    generate,
    generate_composition,
    invert_image,
    load_biggan,
    load_open_clip_folder,
    make_generator,
    optimize,
    sample_params,
    search_basis,
)
from fusedream_core.autograd import with_gradients, without_inference

SEARCH = SearchConfig(num_candidates=20, num_basis=3, rerank_augments=2)
AUGMENT = AugmentConfig(num_augments=2)
RECIPE = Recipe(
    search=SEARCH, optimize=OptimizeConfig(num_steps=3, eval_augments=4), augment=AUGMENT
)
COMPOSE = ComposeConfig(
    optimize=AdamConfig(num_steps=2, eval_augments=4),
    rungs=((2, 1.0),),
    consistency="patch",
)
Work = Callable[[BigGan, OpenClip], Tensor]


class Products:
    """A distance whose gradient needs both of its images."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.weight = torch.full((1, 3, 1, 1), 0.5)

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        product = (self.weight * images * others).mean(dim=1, keepdim=True)
        return product.square()


def run_generate(gan: BigGan, clip: OpenClip) -> Tensor:
    return generate("a dog", gan=gan, clip=clip, recipe=RECIPE).images


def run_composition(gan: BigGan, clip: OpenClip) -> Tensor:
    recipe = CompositionRecipe(search=SEARCH, compose=COMPOSE, augment=AUGMENT)
    return generate_composition(
        "a dog", gan=gan, clip=clip, perceptual=Products(), recipe=recipe
    ).images


def run_inversion(gan: BigGan, clip: OpenClip) -> Tensor:
    image = torch.rand(1, 3, 16, 16, generator=make_generator(1)).mul(2).sub(1)
    config = InvertConfig(search=SEARCH, optimize=AdamConfig(num_steps=2))
    generator = make_generator(2)
    return invert_image(gan, clip, Products(), image, config=config, generator=generator).images


def run_stages(gan: BigGan, clip: OpenClip) -> Tensor:
    """Search and optimisation by themselves: target and basis come from inference mode."""
    target = encode_target(clip, "a dog")
    bases = search_basis(
        gan, clip, [target], config=SEARCH, augment=AUGMENT, generator=make_generator(0)
    )
    return optimize(
        *(gan, clip, [target], bases),
        config=RECIPE.optimize,
        augment=AUGMENT,
        generators=[make_generator(1)],
    ).images


def run_compose(gan: BigGan, clip: OpenClip) -> Tensor:
    target = encode_target(clip, "a dog")
    bases = search_basis(
        gan, clip, [target], config=SEARCH, augment=AUGMENT, generator=make_generator(0)
    )
    (result,) = compose(
        *(gan, clip, [target], bases, bases),
        config=COMPOSE,
        augment=AUGMENT,
        generators=[make_generator(1)],
        perceptual=Products(),
    )
    return result.images


ENTRIES = {
    "generate": run_generate,
    "generate_composition": run_composition,
    "invert_image": run_inversion,
    "optimize": run_stages,
    "compose": run_compose,
}


@pytest.mark.parametrize("name", ENTRIES)
class TestInferenceMode:
    def test_inside(self, name: str, gan: BigGan, clip: OpenClip) -> None:
        expected = ENTRIES[name](gan, clip)
        for mode in (torch.inference_mode(), torch.no_grad()):
            with mode:
                found = ENTRIES[name](gan, clip)
            assert not found.is_inference()
            assert torch.equal(found, expected)

    def test_models_moved_there(
        self, name: str, gan: BigGan, clip: OpenClip, gan_dir: Path, clip_dir: Path
    ) -> None:
        """A change of type makes the weights anew, as a move to another device does."""
        own = load_biggan(gan_dir), load_open_clip_folder(clip_dir)
        with torch.inference_mode():
            models = tuple(model.double().float() for model in own)
            assert next(models[1].parameters()).is_inference()
            found = ENTRIES[name](*models)
        assert torch.equal(found, ENTRIES[name](gan, clip))
        assert torch.equal(ENTRIES[name](*models), found)


class TestLoading:
    def test_models_loaded_there_give_gradients_elsewhere(
        self, gan_dir: Path, clip_dir: Path
    ) -> None:
        with torch.inference_mode():
            gan, clip = load_biggan(gan_dir), load_open_clip_folder(clip_dir)
        y = gan.embed(torch.tensor([0])).requires_grad_()
        z = gan.sample_z(1, truncation=0.5, generator=make_generator(0))
        images = gan.decode(z, y, truncation=0.5)
        params = sample_params(2, 16, 16, config=AUGMENT, generator=make_generator(1))
        aug_clip_score(images, encode_target(clip, "a dog"), clip, params=params).mean.backward()
        assert y.grad is not None
        assert y.grad.abs().sum() > 0


class TestWithoutInference:
    def test_shared_tensors_stay_shared(self) -> None:
        with torch.inference_mode():
            first, second = nn.Module(), nn.Module()
            first.weight = second.weight = nn.Parameter(torch.ones(2), requires_grad=False)
            second.register_buffer("table", torch.ones(3))
            first.second, first.plain = second, torch.ones(1)
        assert without_inference(first) is first
        assert first.weight is second.weight
        assert isinstance(first.weight, nn.Parameter)
        assert not any(t.is_inference() for t in (first.weight, first.plain, second.table))

    def test_what_is_fit_stays_itself(self, gan: BigGan) -> None:
        tensor = torch.ones(2)
        assert without_inference(tensor) is tensor
        before = dict(gan.named_parameters())
        assert without_inference(gan) is gan
        assert all(own is before[name] for name, own in gan.named_parameters())

    def test_callers_mode_is_as_before(self) -> None:
        @with_gradients
        def grad() -> bool:
            return torch.is_grad_enabled() and not torch.is_inference_mode_enabled()

        with torch.inference_mode():
            assert grad()
            assert torch.is_inference_mode_enabled()
