"""The world that the demo models learn, its scenes and their captions; on drawings made here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import art
import captions
import composites
import finder_training
import gan_quality
import scenes
import world
from finder import Finder

NAMES = list(art.CLASSES)
FOLDER = Path(art.__file__).parent


@pytest.fixture(scope="module")
def atlas() -> torch.Tensor:
    """A disc for every class, red to white: ``(92, 128, 128, 4)`` uint8."""
    axis = torch.linspace(-1, 1, 128)
    inside = axis.square()[:, None] + axis.square() < 0.8
    tiles = torch.zeros(len(NAMES), 128, 128, 4, dtype=torch.uint8)
    tiles[..., 0] = 255
    tiles[..., 1:3] = torch.arange(len(NAMES))[:, None, None, None].to(torch.uint8)
    tiles[..., 3] = 255 * inside
    return tiles


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestWorld:
    def test_factors_have_the_variance_of_the_latents(self) -> None:
        z = torch.randn(4000, world.Z_DIM, generator=rng())
        factors = world.factors_from_z(z)
        assert factors.shape == (4000, world.NUM_FACTORS)
        assert factors.std(0).sub(1).abs().max() < 0.06

    def test_objects_stay_in_the_picture_wherever_they_stand(self) -> None:
        factors = world.factors_from_z(world.sample_z(4000, rng()))
        shift, scale = world.stand(factors)
        assert (shift.abs().amax(1) + scale).max() < 1.1  # drawings leave a margin in their tile
        assert scale.min() > 0.4
        assert scale.max() < 0.95

    def test_an_object_can_leave_a_corner_free(self) -> None:
        factors = torch.zeros(1, world.NUM_FACTORS)
        factors[:, world.SHIFT] = 2.0
        shift, scale = world.stand(factors)
        free = (shift - scale + 1) / 2  # of the side, left of the tile and above it
        assert free.min() > 0.25

    def test_the_renderer_draws_an_object_where_it_stands(self, atlas: torch.Tensor) -> None:
        factors = torch.zeros(1, world.NUM_FACTORS)
        factors[:, world.SHIFT] = torch.tensor([1.5, -1.5])
        _, alpha = world.Renderer.from_atlas(atlas, 64)(torch.tensor([3]), factors)
        axis = (torch.arange(64) + 0.5) / 32 - 1
        column = (alpha.sum((0, 1, 2)) * axis).sum() / alpha.sum()
        row = (alpha.sum((0, 1, 3)) * axis).sum() / alpha.sum()
        assert [column.item(), row.item()] == pytest.approx([0.18, -0.18], abs=0.01)


class TestQuality:
    def test_the_drawings_themselves_are_perfect(self, atlas: torch.Tensor) -> None:
        renderer = world.Renderer.from_atlas(atlas, 128)

        def draw(z: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            return renderer(classes, world.factors_from_z(z))[0] + 0.02

        quality = gan_quality.measure(draw, renderer, 1.0, num=28)
        assert quality.sharpness == pytest.approx(1.0, abs=0.02)  # clamped at white
        assert quality.on_background == pytest.approx(40.0, abs=0.5)  # 0.01 of the range

    def test_a_wrong_background_does_not_count_against_the_object(
        self, atlas: torch.Tensor
    ) -> None:
        renderer = world.Renderer.from_atlas(atlas, 128)

        def draw(z: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            real, alpha = renderer(classes, world.factors_from_z(z))
            return torch.where(alpha > 0.5, real + 0.002, -real)

        quality = gan_quality.measure(draw, renderer, 1.0, num=28)
        assert quality.on_object > 55
        assert quality.on_background < 20


class TestScenes:
    @pytest.mark.parametrize("kind", ["double", "pasted", "composed", "generated"])
    def test_visible_is_what_is_left_of_an_object(self, atlas: torch.Tensor, kind: str) -> None:
        maker = scenes.SceneMaker([atlas], 64)
        pairs = torch.rand(64, len(NAMES), generator=rng(1)).topk(2, 1)[1]
        if kind == "composed":
            made = composites.composed(maker, pairs, rng(2))
        elif kind == "generated":  # by a generator that draws its world without a fault
            renderer = world.Renderer.from_atlas(atlas, 64)

            def draw(z: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
                return renderer(classes, world.factors_from_z(z))[0]

            made = composites.generated(draw, renderer, pairs, rng(2))
        else:
            made = getattr(maker, kind)(pairs, rng(2))
        assert ((made.visible >= 0) & (made.visible <= 1)).all()
        assert (made.visible[:, 0] > 0.8).all()  # nothing lies on the first
        centers, boxes = made.centers, made.boxes
        clear = made.visible > 0.2
        assert (centers >= boxes[..., :2] - 0.02)[clear].all()
        assert (centers <= boxes[..., 2:] + 0.02)[clear].all()

    def test_a_covered_object_is_in_no_caption(self, atlas: torch.Tensor) -> None:
        maker = scenes.SceneMaker([atlas], 64)
        pairs = torch.rand(64, len(NAMES), generator=rng(3)).topk(2, 1)[1]
        made = maker.pasted(pairs, rng(4))
        made = replace(made, visible=made.visible.index_fill(1, torch.tensor([1]), 0.1))
        writer = captions.Captioner(NAMES, 0)
        for facts, pair in zip(captions.scene_facts(made), pairs.tolist(), strict=True):
            assert facts.objects == (pair[0], scenes.UNKNOWN)
            claims = writer.true(facts).claims
            assert ("object", pair[1]) not in claims
            assert not any(claim[0] in ("side", "front") for claim in claims)

    def test_what_lies_above_is_said_to(self) -> None:
        one, other = torch.tensor([[0.5, 0.2], [0.9, 0.5]]), torch.tensor([[0.4, 0.7], [0.2, 0.6]])
        assert composites.side_of(one, other).tolist() == [2, 1]
        assert composites.side_of(other, one).tolist() == [3, 0]
        assert composites.side_of(one, one).tolist() == [scenes.UNKNOWN] * 2


class TestCaptions:
    def facts(self, atlas: torch.Tensor) -> list[captions.Facts]:
        maker = scenes.SceneMaker([atlas], 64)
        pairs = torch.rand(120, len(NAMES), generator=rng(5)).topk(2, 1)[1]
        parts = [maker.single(pairs[:40, 0], rng(6)), maker.pasted(pairs[40:80], rng(7))]
        return captions.scene_facts(
            scenes.join_scenes([*parts, composites.composed(maker, pairs[80:], rng(8))])
        )

    def test_true_captions_are_true_and_false_ones_false(self, atlas: torch.Tensor) -> None:
        writer = captions.Captioner(NAMES, 1)
        for facts in self.facts(atlas):
            claims = facts.claims()
            for _ in range(5):
                assert writer.true(facts).claims <= claims
                assert not writer.misnamed(facts).claims <= claims
                assert not writer.false(facts).claims <= claims

    def test_every_word_is_in_the_vocabulary(self, atlas: torch.Tensor) -> None:
        writer, known = captions.Captioner(NAMES, 2), set(captions.vocabulary(NAMES))
        for facts in self.facts(atlas):
            for write in writer.writers():
                assert set(write(facts).text.split()) <= known

    def test_words_name_classes_and_are_new(self) -> None:
        synonyms, kinds = captions.WORDS["synonyms"], captions.WORDS["kinds"]
        words = [word for group in synonyms.values() for word in group] + list(kinds)
        assert list(synonyms) == NAMES
        assert len(words) == len(set(words)) >= 150
        assert not set(words) & set(NAMES)
        assert all(set(members) <= set(NAMES) for members in kinds.values())

    def test_the_sixty_words_to_be_asked_are_among_them(self) -> None:
        asked = json.loads((FOLDER / "words_asked.json").read_text(encoding="utf-8"))
        synonyms, kinds = captions.WORDS["synonyms"], captions.WORDS["kinds"]
        assert len(asked) == 60
        for word, accepted in asked.items():
            names = [name for name, group in synonyms.items() if word in group]
            assert accepted == kinds.get(word, names) != []


class TestFinder:
    def test_places_move_with_the_picture(self) -> None:
        theta = finder_training.draw_warp(8, rng(9))
        theta[:, :, 2] = 0.1
        grid = torch.nn.functional.affine_grid(theta, [8, 1, 65, 65], align_corners=True)
        moved = finder_training.move(torch.full((8, 1, 2), 0.6), theta)[:, 0]
        # Where the picture is read at 0.6 is where that point goes.
        distance = ((grid + 1) / 2 - 0.6).square().sum(-1).flatten(1)
        rows, columns = distance.argmin(1) // 65, distance.argmin(1) % 65
        nearest = torch.stack([columns, rows], 1) / 64
        inside = ((moved > 0) & (moved < 1)).all(1)
        assert inside.any()
        assert (nearest - moved)[inside].abs().max() < 0.02

    def test_half_seen_objects_are_asked_for_and_covered_ones_are_not(
        self, atlas: torch.Tensor
    ) -> None:
        maker, finder = scenes.SceneMaker([atlas], 96), Finder(NAMES)
        pairs = torch.rand(3, len(NAMES), generator=rng(10)).topk(2, 1)[1]
        made = maker.pasted(pairs, rng(11))
        made = replace(made, visible=torch.tensor([[1.0, 0.9], [1.0, 0.1], [1.0, 0.35]]))
        targets, counts = finder_training.heat_targets(finder, made)
        second = targets[torch.arange(3), pairs[:, 1]].flatten(1).amax(1)
        assert second.tolist() == [1.0, 0.0, 0.0]
        asked = counts[torch.arange(3), pairs[:, 1]].flatten(1).amin(1)
        assert asked.tolist() == [1.0, 1.0, 0.0]
        assert targets.flatten(2).amax(2).sum(1).tolist() == pytest.approx([2.0, 1.0, 1.0])

    def test_a_mirrored_picture_gives_mirrored_maps(self) -> None:
        torch.manual_seed(0)
        finder = Finder(NAMES).eval()
        images = torch.rand(2, 3, 128, 128) * 2 - 1
        maps, mirrored = finder.maps(images), finder.maps(images.flip(-1))
        assert torch.allclose(maps[0], mirrored[0].flip(-1), atol=1e-5)
        left, right = maps[1][:, 0], 1 - mirrored[1][:, 2].flip(-1)
        assert torch.allclose(left, right, atol=1e-5)
