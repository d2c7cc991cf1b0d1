from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fusedream_core import (
    AugmentConfig,
    BigGan,
    CheckpointError,
    ConfigError,
    OpenClip,
    SearchConfig,
    StepInfo,
    encode_target,
    make_generator,
    search_basis,
)
from fusedream_core.search.bank import Bank, build_bank, load_bank, save_bank
from fusedream_core.types import Basis

NUM = 40
CONFIG = SearchConfig(num_candidates=NUM, num_basis=3, num_reranked=None, max_per_class=None)
AUGMENT = AugmentConfig(num_augments=4)


@pytest.fixture(scope="module")
def bank(gan: BigGan, clip: OpenClip) -> Bank:
    return build_bank(gan, clip, num=NUM, seed=3)


def find(gan: BigGan, clip: OpenClip, bank: Bank, config: SearchConfig, seed: int = 0) -> Basis:
    """A search of the bank for one prompt."""
    (basis,) = search_basis(
        gan,
        clip,
        [encode_target(clip, "a dog")],
        config=config,
        augment=AUGMENT,
        generator=make_generator(seed),
        bank=bank,
    )
    return basis


class TestBuild:
    def test_features_are_those_of_the_images(
        self, gan: BigGan, clip: OpenClip, bank: Bank
    ) -> None:
        z = bank.sample_z(gan)
        for row in (0, 7, NUM - 1):
            y = gan.embed(bank.class_index[row : row + 1])
            with torch.no_grad():
                images = gan.decode(z[row : row + 1], y, truncation=bank.truncation)
                feature = clip.encode_images(images)[0]
            torch.testing.assert_close(bank.features[row].float(), feature, rtol=0, atol=1e-3)

    def test_all_classes_alike(self, bank: Bank) -> None:
        assert bank.class_index.bincount().tolist() == [NUM // 5] * 5
        assert bank.truncation == 0.6

    @pytest.mark.parametrize("batch_size", [1, 7, 100])
    def test_batch_size(self, gan: BigGan, clip: OpenClip, bank: Bank, batch_size: int) -> None:
        other = build_bank(gan, clip, num=NUM, seed=3, batch_size=batch_size)
        torch.testing.assert_close(other.features, bank.features, rtol=0, atol=1e-3)

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"num": 0}, "num is 0"), ({"batch_size": 0}, "batch_size is 0")]
        + [({"truncation": tau}, f"truncation is {tau}") for tau in (0.0, 1.5, float("nan"))],
    )
    def test_exception(
        self, gan: BigGan, clip: OpenClip, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            build_bank(gan, clip, **{"num": 5, **change})

    def test_callback_can_stop(self, gan: BigGan, clip: OpenClip) -> None:
        infos: list[StepInfo] = []

        def stop(info: StepInfo) -> None:
            infos.append(info)
            if info.step == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_bank(gan, clip, num=NUM, callback=stop)
        assert [(info.stage, info.step, info.total) for info in infos] == [
            ("bank", 1, 4),
            ("bank", 2, 4),
        ]


class TestSearch:
    def test_finds_what_a_look_at_each_finds(self, gan: BigGan, clip: OpenClip, bank: Bank) -> None:
        """By plain CLIP, over all of the half that the seed picks."""
        config = replace(CONFIG, ranking="clip")
        basis = find(gan, clip, bank, config)
        half = torch.randperm(NUM, generator=make_generator(0))[: NUM // 2].sort().values
        target = encode_target(clip, "a dog")
        with torch.no_grad():
            images = gan.decode(
                bank.sample_z(gan)[half],
                gan.embed(bank.class_index[half]),
                truncation=bank.truncation,
            )
            scores = clip.encode_images(images) @ target.features
        best = scores.topk(3)
        assert torch.equal(basis.latent.z, bank.sample_z(gan)[half[best.indices]])
        torch.testing.assert_close(basis.scores, best.values, rtol=0, atol=1e-3)

    def test_decodes_only_what_is_ranked_again(
        self, gan: BigGan, clip: OpenClip, bank: Bank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded: list[int] = []
        decode = gan.decode

        def spy(z: torch.Tensor, y: torch.Tensor, *, truncation: float) -> torch.Tensor:
            decoded.append(len(z))
            return decode(z, y, truncation=truncation)

        monkeypatch.setattr(gan, "decode", spy)
        find(gan, clip, bank, replace(CONFIG, num_reranked=6))
        assert sum(decoded) == 6

    def test_seed_picks_the_half(self, gan: BigGan, clip: OpenClip, bank: Bank) -> None:
        first, again, other = (find(gan, clip, bank, CONFIG, seed) for seed in (0, 0, 1))
        assert torch.equal(first.latent.z, again.latent.z)
        assert not torch.equal(first.latent.z, other.latent.z)

    def test_classes(self, gan: BigGan, clip: OpenClip, bank: Bank) -> None:
        basis = find(gan, clip, bank, replace(CONFIG, classes=("apple",)))
        assert basis.class_index.tolist() == [2, 2, 2]

    def test_classes_with_few_images(self, gan: BigGan, clip: OpenClip) -> None:
        """All of them are looked at then, and where they are too few it is said."""
        bank = build_bank(gan, clip, num=15)  # three a class
        basis = find(gan, clip, bank, replace(CONFIG, classes=("apple",)))
        assert basis.class_index.tolist() == [2, 2, 2]
        message = "holds 3 images of the allowed classes, but num_basis is 4"
        with pytest.raises(ConfigError, match=message):
            find(gan, clip, bank, replace(CONFIG, classes=("apple",), num_basis=4))
        with pytest.raises(ConfigError, match="holds 0 images"):
            find(gan, clip, build_bank(gan, clip, num=2), replace(CONFIG, classes=("apple",)))

    def test_a_named_class_has_a_place(self, gan: BigGan, clip: OpenClip, bank: Bank) -> None:
        for seed in range(5):
            assert 0 in find(gan, clip, bank, CONFIG, seed).class_index.tolist()  # a dog

    def test_several_prompts_get_what_each_gets_alone(
        self, gan: BigGan, clip: OpenClip, bank: Bank
    ) -> None:
        targets = [encode_target(clip, text) for text in ("a cat", "a dog")]
        bases = search_basis(
            gan,
            clip,
            targets,
            config=CONFIG,
            augment=AUGMENT,
            generator=make_generator(0),
            bank=bank,
        )
        assert torch.equal(bases[1].latent.z, find(gan, clip, bank, CONFIG).latent.z)

    @pytest.mark.parametrize("change", [{"gan_id": "x"}, {"clip_id": "x"}, {"truncation": 0.5}])
    def test_another_models_bank_is_refused(
        self, gan: BigGan, clip: OpenClip, bank: Bank, change: dict[str, object]
    ) -> None:
        with pytest.raises(ConfigError, match="The seed bank is of"):
            find(gan, clip, replace(bank, **change), CONFIG)  # type: ignore[arg-type]

    def test_sizes_of_other_models_are_damage(
        self, gan: BigGan, clip: OpenClip, bank: Bank
    ) -> None:
        wide = torch.nn.functional.normalize(torch.ones(NUM, 13), dim=1)
        said = "damaged, as its features have 13 numbers .* have 12 and go to 4"
        with pytest.raises(CheckpointError, match=said):
            find(gan, clip, replace(bank, features=wide), CONFIG)
        with pytest.raises(CheckpointError, match=r"damaged, .* its classes go to 5, but"):
            find(gan, clip, replace(bank, class_index=bank.class_index + 1), CONFIG)


class TestFile:
    def test_round_trip(self, bank: Bank, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "bank.safetensors"
        save_bank(bank, path)
        other = load_bank(path)
        assert torch.equal(other.features, bank.features)
        assert torch.equal(other.class_index, bank.class_index)
        assert (other.gan_id, other.clip_id) == (bank.gan_id, bank.clip_id)
        assert (other.truncation, other.seed) == (0.6, 3)
        assert [file.name for file in path.parent.iterdir()] == ["bank.safetensors"]

    def test_a_killed_write_leaves_what_was_there(
        self, bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "bank.safetensors"
        save_bank(bank, path)
        before = path.read_bytes()

        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            save_bank(replace(bank, seed=4), path)
        assert path.read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1

    def test_damaged(self, bank: Bank, tmp_path: Path) -> None:
        path = tmp_path / "bank.safetensors"
        with pytest.raises(CheckpointError, match="There is no weight file"):
            load_bank(path)
        save_bank(bank, path)
        state = load_file(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match="truncated"):
            load_bank(path)
        save_file(state, path)
        with pytest.raises(CheckpointError, match="is no seed bank"):
            load_bank(path)
        save_file(state, path, {"format": "fusedream-bank-1"})
        with pytest.raises(CheckpointError, match="gan_id"):
            load_bank(path)
        save_bank(replace(bank, features=bank.features[:-1]), path)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_bank(path)
        save_bank(replace(bank, features=bank.features * torch.nan), path)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_bank(path)

    @pytest.mark.parametrize(
        "change",
        [
            {"truncation": 1.5},
            {"truncation": math.nan},
            {"seed": -1},
            {"seed": 1 << 64},
            {"gan_id": "g" * 1_001},
            {"class_index": torch.full((10,), -1)},
            {"class_index": torch.zeros(10, 1)},
            {"features": torch.ones(10, 3, 2)},
            {"features": torch.zeros(10, 12)},
            {"features": torch.zeros(10, 0)},
            {"features": torch.ones(10, 12)},
        ],
    )
    def test_what_nobody_wrote(self, bank: Bank, tmp_path: Path, change: dict[str, object]) -> None:
        path = tmp_path / "bank.safetensors"
        short = replace(bank, features=bank.features[:10], class_index=bank.class_index[:10])
        save_bank(short, path)
        assert len(load_bank(path)) == 10
        save_bank(replace(short, **change), path)  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match="is damaged"):
            load_bank(path)

    @pytest.mark.parametrize("kind", [torch.float32, torch.bool, torch.uint8, torch.complex64])
    def test_classes_that_are_no_counts(
        self, bank: Bank, tmp_path: Path, kind: torch.dtype
    ) -> None:
        path = tmp_path / "bank.safetensors"
        save_bank(bank, path)
        with safe_open(path, "pt") as stream:
            notes = stream.metadata()
        state = load_file(path)
        state["class_index"] = state["class_index"].to(kind)
        save_file(state, path, notes)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_bank(path)

    @pytest.mark.parametrize(
        "features",
        [
            torch.ones(NUM, 12).to(torch.float8_e4m3fn),
            torch.full((NUM, 12), 1e300, dtype=torch.float64),
        ],
        ids=["float8", "float64"],
    )
    def test_features_that_float32_does_not_have(
        self, bank: Bank, tmp_path: Path, features: torch.Tensor
    ) -> None:
        path = tmp_path / "bank.safetensors"
        save_bank(bank, path)
        with safe_open(path, "pt") as stream:
            notes = stream.metadata()
        save_file({**load_file(path), "features": features}, path, notes)
        with pytest.raises(CheckpointError, match="its tensor features is of float"):
            load_bank(path)
