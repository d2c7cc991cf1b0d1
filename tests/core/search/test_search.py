from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import fusedream_core.search.search
from fusedream_core import (
    AugmentConfig,
    Basis,
    BigGan,
    ConfigError,
    OpenClip,
    SearchConfig,
    StepInfo,
    Target,
    aug_clip_score,
    build_bank,
    clip_score,
    encode_target,
    make_generator,
    sample_params,
    search_basis,
)
from fusedream_core.rng import fork
from fusedream_core.search import class_prior
from fusedream_core.search.class_prior import named_classes

AUGMENT = AugmentConfig()
CONFIG = SearchConfig(
    num_candidates=60, num_basis=3, batch_size=16, num_reranked=18, rerank_augments=4
)


def search(
    gan: BigGan, clip: OpenClip, target: Target, config: SearchConfig = CONFIG, seed: int = 0
) -> Basis:
    generator = make_generator(seed)
    return search_basis(gan, clip, [target], config=config, augment=AUGMENT, generator=generator)[0]


def slow_search(gan: BigGan, clip: OpenClip, target: Target, config: SearchConfig) -> Basis:
    """All candidates at once, one score after the other, sorted at the end."""
    generator = make_generator(0)
    num = config.num_candidates
    assert num is not None
    num_prior = int(num * config.guided_share)
    classes = torch.randint(0, gan.num_classes, (num - num_prior,), generator=generator)
    child = fork(generator) if num_prior else generator
    z = gan.sample_z(num - num_prior, truncation=gan.truncation, generator=generator)
    if num_prior:
        weights = slow_class_weights(gan, clip, target)
        drawn = torch.multinomial(weights, num_prior, replacement=True, generator=child)
        more = gan.sample_z(num_prior, truncation=gan.truncation, generator=child)
        classes, z = torch.cat((classes, drawn)), torch.cat((z, more))
    y = gan.embed(classes)
    images = gan.decode(z, y, truncation=gan.truncation)
    scores = [float(clip_score(image[None], target, clip)) for image in images]
    order = sorted(range(num), key=lambda row: -scores[row])
    if config.ranking == "aug_clip":
        params = sample_params(config.rerank_augments, 16, 16, config=AUGMENT, generator=generator)
        scores = [
            float(aug_clip_score(image[None], target, clip, params=params).mean) for image in images
        ]
        order = sorted(order[: config.num_reranked], key=lambda row: -scores[row])
    rows = torch.tensor(order[: config.num_basis])
    found = search(gan, clip, target, config)
    return replace(
        found,
        latent=replace(found.latent, z=z[rows], y=y[rows]),
        scores=torch.tensor([scores[row] for row in rows]),
        class_index=classes[rows],
    )


def slow_class_weights(gan: BigGan, clip: OpenClip, target: Target) -> torch.Tensor:
    """Twice the standard score of each class name's similarity, exponentiated and normalised."""
    texts = [clip.encode_text([f"a photo of a {name}"])[0] for name in gan.class_names]
    similar = [float(text @ target.features) for text in texts]
    middle, spread = statistics.mean(similar), statistics.stdev(similar)
    powers = [math.exp(2.0 * (value - middle) / spread) for value in similar]
    return torch.tensor([power / sum(powers) for power in powers])


def assert_same(one: Basis, other: Basis) -> None:
    torch.testing.assert_close(one.latent.z, other.latent.z)
    torch.testing.assert_close(one.latent.y, other.latent.y)
    torch.testing.assert_close(one.scores, other.scores, check_dtype=False)
    assert torch.equal(one.class_index, other.class_index)


def bytes_at_the_last_candidate(
    gan: BigGan, clip: OpenClip, target: Target, num_candidates: int, num_reranked: int | None
) -> int:
    """Bytes of all tensors that are alive when the last candidates were scored."""
    alive: list[int] = []

    def count(info: StepInfo) -> None:
        if info.stage == "search" and info.step == info.total:
            gc.collect()
            storages = {
                tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                for tensor in gc.get_objects()
                if type(tensor) is Tensor and tensor.layout is torch.strided
            }
            alive.append(sum(storages.values()))

    config = replace(
        CONFIG,
        num_candidates=num_candidates,
        num_reranked=num_reranked,
        guided_share=0.0,
        batch_size=20,
        rerank_augments=1,
    )
    search_basis(
        gan,
        clip,
        [target],
        config=config,
        augment=AUGMENT,
        generator=make_generator(0),
        callback=count,
    )
    (most,) = alive
    return most


@pytest.fixture(scope="module")
def target(clip: OpenClip) -> Target:
    return encode_target(clip, "a dog")


class TestSearchBasis:
    @pytest.mark.parametrize("guided_share", [0.0, 0.5])
    @pytest.mark.parametrize(
        ("ranking", "num_reranked"), [("aug_clip", 18), ("aug_clip", None), ("clip", 18)]
    )
    def test_value(
        self,
        gan: BigGan,
        clip: OpenClip,
        target: Target,
        ranking: str,
        num_reranked: int | None,
        guided_share: float,
    ) -> None:
        config = replace(
            CONFIG, ranking=ranking, num_reranked=num_reranked, guided_share=guided_share
        )
        assert_same(search(gan, clip, target, config), slow_search(gan, clip, target, config))

    def test_record(self, gan: BigGan, clip: OpenClip, target: Target) -> None:
        basis = search(gan, clip, target)
        assert basis.latent.z.shape == (3, 6)
        assert basis.latent.truncation == gan.truncation
        assert (basis.gan_id, basis.prompt) == (gan.gan_id, "a dog")
        assert basis.scores.tolist() == sorted(basis.scores.tolist(), reverse=True)
        torch.testing.assert_close(basis.latent.y, gan.embed(basis.class_index))
        assert not basis.latent.z.requires_grad

    def test_determinism(self, gan: BigGan, clip: OpenClip, target: Target) -> None:
        first, again, other = (search(gan, clip, target, seed=seed) for seed in (5, 5, 6))
        assert torch.equal(first.latent.z, again.latent.z)
        assert not torch.equal(first.latent.z, other.latent.z)

    @pytest.mark.parametrize("batch_size", [1, 7, 60, 100])
    def test_batch_size(self, gan: BigGan, clip: OpenClip, target: Target, batch_size: int) -> None:
        config = replace(CONFIG, batch_size=batch_size)
        assert_same(search(gan, clip, target, config), search(gan, clip, target))

    @pytest.mark.parametrize("banked", [False, True])
    def test_each_prompt_gets_to_the_last_bit_what_it_gets_alone(
        self, gan: BigGan, clip: OpenClip, banked: bool
    ) -> None:
        targets = [encode_target(clip, prompt) for prompt in ("a dog", "a cat", "an apple")]
        bank = build_bank(gan, clip, num=100) if banked else None

        def find(some: list[Target]) -> list[Basis]:
            return search_basis(
                *(gan, clip, some),
                config=SearchConfig(num_candidates=60, num_basis=4, ranking="clip"),
                augment=AugmentConfig(),
                generator=make_generator(1),
                bank=bank,
            )

        for basis, target in zip(find(targets), targets, strict=True):
            (alone,) = find([target])
            assert torch.equal(basis.latent.z, alone.latent.z)
            assert torch.equal(basis.scores, alone.scores)

    def test_several_prompts_share_candidates(self, gan: BigGan, clip: OpenClip) -> None:
        targets = [encode_target(clip, text) for text in ("a dog", "a red apple", "a cat")]
        together = search_basis(
            gan, clip, targets, config=CONFIG, augment=AUGMENT, generator=make_generator(0)
        )
        assert [basis.prompt for basis in together] == ["a dog", "a red apple", "a cat"]
        for basis, own in zip(together, targets, strict=True):
            assert_same(basis, search(gan, clip, own))

    def test_classes(self, gan: BigGan, clip: OpenClip, target: Target) -> None:
        basis = search(gan, clip, target, replace(CONFIG, classes=("Cat", 0)))
        assert set(basis.class_index.tolist()) <= {0, 1}

    def test_max_per_class(self, gan: BigGan, clip: OpenClip, target: Target) -> None:
        basis = search(gan, clip, target, replace(CONFIG, max_per_class=1))
        assert len(set(basis.class_index.tolist())) == 3

    def test_too_few_classes_fill_up(self, gan: BigGan, clip: OpenClip, target: Target) -> None:
        basis = search(gan, clip, target, replace(CONFIG, classes=(1,), max_per_class=1))
        assert basis.class_index.tolist() == [1, 1, 1]

    @pytest.mark.parametrize("name", ["dog", "cat", "apple"])
    def test_a_class_that_the_prompt_names_is_in_the_basis(
        self, gan: BigGan, clip: OpenClip, name: str
    ) -> None:
        for prompt in (f"a {name.upper()}, blue", f"blue | a {name}:0.5"):
            basis = search(gan, clip, encode_target(clip, prompt), CONFIG)
            assert list(gan.class_names).index(name) in basis.class_index.tolist()
            assert basis.scores.tolist() == sorted(basis.scores.tolist(), reverse=True)

    def test_all_classes_that_the_prompt_names_are_in_the_basis(
        self, gan: BigGan, clip: OpenClip
    ) -> None:
        target = encode_target(clip, "a dog, cat, apple")
        config = replace(CONFIG, num_basis=4, max_per_class=1)
        basis = search(gan, clip, target, config)
        assert {0, 1, 2} <= set(basis.class_index.tolist())
        assert basis.scores.tolist() == sorted(basis.scores.tolist(), reverse=True)

    @pytest.mark.parametrize("num_reranked", [None, 10])
    def test_memory_does_not_grow_with_candidates(
        self, gan: BigGan, clip: OpenClip, target: Target, num_reranked: int | None
    ) -> None:
        """What is alive after the last candidate; of each one no more than its class index."""
        most = [
            bytes_at_the_last_candidate(gan, clip, target, num, num_reranked) for num in (40, 140)
        ]
        assert most[1] - most[0] <= 100 * 8

    @pytest.mark.parametrize("guided_share", [0.0, 0.5])
    def test_all_are_decoded_once_where_all_are_ranked(
        self,
        gan: BigGan,
        clip: OpenClip,
        target: Target,
        monkeypatch: pytest.MonkeyPatch,
        guided_share: float,
    ) -> None:
        decoded = []
        decode = gan.decode

        def spy(z: Tensor, y: Tensor, *, truncation: float) -> Tensor:
            decoded.append(len(z))
            return decode(z, y, truncation=truncation)

        monkeypatch.setattr(gan, "decode", spy)
        config = replace(CONFIG, num_candidates=24, num_reranked=None, guided_share=guided_share)
        search(gan, clip, target, config)
        assert sum(decoded) == config.num_candidates

    def test_what_is_drawn_afterwards_is_the_same_however_many_are_ranked(
        self, gan: BigGan, clip: OpenClip, target: Target
    ) -> None:
        generators = [make_generator(0) for _ in range(2)]
        for generator, num_reranked in zip(generators, (None, 6), strict=True):
            config = replace(CONFIG, num_candidates=24, num_reranked=num_reranked)
            search_basis(gan, clip, [target], config=config, augment=AUGMENT, generator=generator)
        assert torch.equal(generators[0].get_state(), generators[1].get_state())

    def test_class_names_are_matched_once_for_each_prompt(
        self, gan: BigGan, clip: OpenClip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        matched = []

        def spy(names: Sequence[str], target: Target) -> list[int]:
            matched.append(target.prompt)
            return named_classes(names, target)

        for module in (fusedream_core.search.search, class_prior):
            monkeypatch.setattr(module, "named_classes", spy, raising=False)
        targets = [encode_target(clip, prompt) for prompt in ("a dog", "a cat")]
        search_basis(
            gan,
            clip,
            targets,
            config=replace(CONFIG, num_candidates=12, num_reranked=4, batch_size=4),
            augment=AUGMENT,
            generator=make_generator(0),
        )
        assert matched == ["a dog", "a cat"]

    def test_callback(self, gan: BigGan, clip: OpenClip, target: Target) -> None:
        infos: list[StepInfo] = []
        generator = make_generator(0)
        basis = search_basis(
            gan,
            clip,
            [target] * 2,
            config=CONFIG,
            augment=AUGMENT,
            generator=generator,
            callback=infos.append,
        )[0]
        steps = [(info.stage, info.step, info.total) for info in infos]
        # 30 shared candidates and 30 of each target, in batches of 16; then 2 pools of 18
        assert steps == [("search", i, 6) for i in range(1, 7)] + [
            ("rerank", i, 4) for i in range(1, 5)
        ]
        assert infos[5].preview.shape == (2, 3, 16, 16)
        best = [float(info.score[0]) for info in infos[:6]]
        assert best == sorted(best)
        assert float(infos[7].score[0]) == pytest.approx(float(basis.scores[0]))
        leader = gan.decode(basis.latent.z[:1], basis.latent.y[:1], truncation=0.6)
        torch.testing.assert_close(infos[7].preview, leader)

    def test_callback_may_stop(self, gan: BigGan, clip: OpenClip, target: Target) -> None:
        def stop(info: StepInfo) -> None:
            raise InterruptedError(info.step)

        with pytest.raises(InterruptedError, match="1"):
            search_basis(
                gan,
                clip,
                [target],
                config=CONFIG,
                augment=AUGMENT,
                generator=make_generator(0),
                callback=stop,
            )

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"classes": ("dgo",)}, "no class 'dgo'.* did you mean dog"),
        ],
    )
    def test_exception(
        self,
        gan: BigGan,
        clip: OpenClip,
        target: Target,
        change: dict[str, object],
        message: str,
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            search(gan, clip, target, replace(CONFIG, **change))

    def test_no_target(self, gan: BigGan, clip: OpenClip) -> None:
        with pytest.raises(ConfigError, match="No target was given"):
            search_basis(gan, clip, [], config=CONFIG, augment=AUGMENT, generator=make_generator(0))
