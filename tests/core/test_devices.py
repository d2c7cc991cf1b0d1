"""On a device that is not the CPU: nothing mixes the two, and the numbers are the same.

A pretended device on every machine, and a real one where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    DEFAULT,
    PAPER,
    PAPER_COMPOSITION,
    REFERENCE_CODE,
    AugmentConfig,
    ComposeConfig,
    CompositionRecipe,
    Gan,
    ImageTextEncoder,
    InvertConfig,
    Perceptual,
    Recipe,
    SearchConfig,
    basis_from,
    blend,
    build_bank,
    encode_target,
    generate,
    generate_composition,
    image_target,
    interpolate,
    invert_image,
    load_biggan,
    load_open_clip_folder,
    make_generator,
    merge_clips,
    rank_images,
)
from fusedream_core.compose.placement import Box, Placement
from fusedream_core.config import BlendMode, Consistency

from ..elsewhere import ELSEWHERE, Held, elsewhere, full_precision, needs_cuda

SEARCH = SearchConfig(num_candidates=20, num_basis=4, num_reranked=6, rerank_augments=2)
AUGMENT = AugmentConfig(num_augments=3)
PLACES = [Placement.named(position, 0.5) for position in ("left", "right", "top")]
Models = tuple[Gan, ImageTextEncoder, Perceptual]
Found = tuple[Tensor, ...]
Work = Callable[[Gan, ImageTextEncoder, Perceptual], Found]


class Squares:
    """In place of LPIPS, whose nets need larger images than the tiny GAN's."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=1, keepdim=True)


@pytest.fixture
def here(gan_dir: Path, clip_dir: Path) -> Models:
    cpu = torch.device("cpu")
    return load_biggan(gan_dir), load_open_clip_folder(clip_dir), Squares(cpu)


@pytest.fixture(params=["elsewhere", pytest.param("cuda", marks=needs_cuda)])
def there(request: pytest.FixtureRequest, gan_dir: Path, clip_dir: Path) -> Iterator[Models]:
    gan, clip = load_biggan(gan_dir), load_open_clip_folder(clip_dir)
    device = ELSEWHERE if request.param == "elsewhere" else torch.device("cuda", 0)
    with elsewhere() if device == ELSEWHERE else full_precision():
        yield gan.to(device), clip.to(device), Squares(device)


def shrink(recipe: Recipe) -> Recipe:
    """A recipe with less work."""
    optimize = replace(recipe.optimize, num_steps=3, eval_augments=4)
    search = replace(recipe.search, num_candidates=20, num_basis=4)
    return replace(recipe, search=search, optimize=optimize, augment=AUGMENT)


def text_to_image(recipe: Recipe) -> Work:
    def work(gan: Gan, clip: ImageTextEncoder, _: Perceptual) -> Found:
        result = generate("a dog:1 | a cat:-0.3", gan=gan, clip=clip, recipe=recipe)
        return result.images, result.latent.z, result.score.mean

    return work


def with_a_bank(gan: Gan, clip: ImageTextEncoder, _: Perceptual) -> Found:
    bank = build_bank(gan, clip, num=20, seed=1)
    recipe = replace(shrink(DEFAULT), search=replace(SEARCH, num_candidates=None))
    return bank.features, generate("a dog", gan=gan, clip=clip, bank=bank, recipe=recipe).images


def composition(consistency: Consistency, blending: BlendMode, base: ComposeConfig) -> Work:
    optimize = replace(base.optimize, num_steps=3, num_snapshots=2, eval_augments=4)
    config = replace(base, optimize=optimize, consistency=consistency, blend=blending)

    def work(gan: Gan, clip: ImageTextEncoder, perceptual: Perceptual) -> Found:
        result = generate_composition(
            "a dog and a cat",
            gan=gan,
            clip=clip,
            perceptual=perceptual,
            recipe=CompositionRecipe(search=SEARCH, compose=config, augment=AUGMENT),
            placements=PLACES,
            foreground_prompt="a dog",
        )
        return result.images, result.latent.z, result.score.mean

    return work


def inversion(gan: Gan, clip: ImageTextEncoder, perceptual: Perceptual) -> Found:
    config = InvertConfig()
    config = replace(config, search=SEARCH, optimize=replace(config.optimize, num_steps=3))
    images = torch.rand(1, 3, 24, 20, generator=make_generator(3)).mul(2).sub(1)
    generator = make_generator(0)
    result = invert_image(gan, clip, perceptual, images, config=config, generator=generator)
    return result.images, result.trace, result.latent.y


def ensemble_and_image_target(gan: Gan, clip: ImageTextEncoder, _: Perceptual) -> Found:
    both = merge_clips([clip, clip], gan, generator=make_generator(1), num_pictures=8)
    z = gan.sample_z(3, truncation=0.6, generator=make_generator(2))
    images = gan.decode(z, gan.embed(torch.tensor([0, 1, 2])), truncation=0.6).detach()
    target = image_target(clip, images[:1], prompt="a dog")
    return both.encode_images(images), target.features, both.encode_text(["a dog"])


def ranking_and_going_on(gan: Gan, clip: ImageTextEncoder, _: Perceptual) -> Found:
    target = encode_target(clip, "a dog")
    images = torch.rand(3, 3, 500, 460, generator=make_generator(3)).mul(2).sub(1)
    scores = rank_images(images, target, clip, config=AUGMENT, generator=make_generator(0))
    found = generate("a dog", gan=gan, clip=clip, recipe=shrink(DEFAULT)).latent.to("cpu")
    way = interpolate(found, replace(found, z=-found.z), 3)
    basis = basis_from(gan, clip, target, way, augment=AUGMENT, generator=make_generator(1))
    return scores.mean, basis.latent.z, basis.scores


def blending(gan: Gan, _: ImageTextEncoder, __: Perceptual) -> Found:
    z = gan.sample_z(2, truncation=0.6, generator=make_generator(2))
    front, back = gan.decode(z, gan.embed(torch.tensor([0, 1])), truncation=0.6).detach().split(1)
    box = Box(4, 4, 8, 8)
    return tuple(
        blend(front, back, box, mode=mode) for mode in ("none", "feather", "poisson", "mixed")
    )


WORK = {
    "default": text_to_image(shrink(DEFAULT)),
    "paper": text_to_image(shrink(PAPER)),
    "reference code": text_to_image(shrink(REFERENCE_CODE)),
    "bank": with_a_bank,
    "composition": composition("seam", "poisson", ComposeConfig()),
    "composition of the paper": composition("whole", "mixed", PAPER_COMPOSITION),
    "composition, feathered": composition("patch", "feather", ComposeConfig()),
    "inversion": inversion,
    "ensemble": ensemble_and_image_target,
    "ranking": ranking_and_going_on,
    "blending": blending,
}


@pytest.mark.parametrize("name", WORK)
def test_same_as_on_the_cpu(name: str, here: Models, there: Models) -> None:
    expected = WORK[name](*here)
    found = WORK[name](*there)
    for own, other in zip(found, expected, strict=True):
        own = own.inner if isinstance(own, Held) else own.cpu()
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


class TestElsewhere:
    def test_refuses_to_mix(self) -> None:
        with elsewhere():
            away = torch.ones(2).to(ELSEWHERE)
            with pytest.raises(RuntimeError, match="two devices"):
                away + torch.ones(2)
            assert isinstance(away + torch.tensor(1.0), Held)
            assert not isinstance(away.cpu(), Held)
            with pytest.raises(RuntimeError, match="two devices"):
                torch.stack([away.sum(), torch.tensor(1.0)])
            with pytest.raises(RuntimeError, match="two devices"):
                torch.tensor(1.0).add_(away.sum())
            with pytest.raises(RuntimeError, match="two devices"):
                away.long()[torch.tensor([0, 1])] = torch.tensor([1, 2])
            away[torch.tensor([0])] = 1.0

    def test_refuses_generators_of_the_cpu(self) -> None:
        with elsewhere(), pytest.raises(RuntimeError, match="generator of another device"):
            torch.randn(2, generator=make_generator(0), device=ELSEWHERE)

    def test_gradients_stay_there(self) -> None:
        with elsewhere():
            away = torch.arange(3.0).to(ELSEWHERE).requires_grad_()
            (gradient,) = torch.autograd.grad(away.square().sum(), away)
        assert isinstance(gradient, Held)
        assert gradient.tolist() == [0.0, 2.0, 4.0]
