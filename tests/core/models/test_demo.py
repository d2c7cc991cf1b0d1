"""The demo pair that is shipped: it loads without our code, and it knows what its card says."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from fusedream_core import (
    BigGan,
    OpenClip,
    clip_score,
    demo_bank_path,
    demo_clip_dir,
    demo_gan_dir,
    encode_target,
    load_demo,
    load_demo_bank,
    make_generator,
)

LARGEST = 40_000_000  # bytes, both models together


@pytest.fixture(scope="module")
def demo() -> tuple[BigGan, OpenClip]:
    return load_demo()


class TestFiles:
    def test_size(self) -> None:
        files = [f for folder in (demo_gan_dir(), demo_clip_dir()) for f in folder.iterdir()]
        assert sum(file.stat().st_size for file in files) < LARGEST

    def test_bank_is_the_pairs_own(self, demo: tuple[BigGan, OpenClip]) -> None:
        gan, clip = demo
        bank = load_demo_bank()
        assert bank.fits(gan, clip, gan.truncation)
        assert demo_bank_path().stat().st_size < 6_000_000
        rows = torch.tensor([0, 9_999, len(bank) - 1])
        y = gan.embed(bank.class_index[rows])
        with torch.no_grad():
            images = gan.decode(bank.sample_z(gan)[rows], y, truncation=gan.truncation)
            features = clip.encode_images(images)
        torch.testing.assert_close(bank.features[rows].float(), features, rtol=0, atol=2e-3)

    def test_licenses_are_beside_the_weights(self) -> None:
        notice = (demo_gan_dir().parent / "NOTICE.md").read_text(encoding="utf-8")
        for word in ("Noto Emoji", "Apache", "Fluent Emoji", "Permission is hereby granted"):
            assert word in notice
        assert "Apache License" in (demo_gan_dir().parent / "LICENSE-APACHE-2.0.txt").read_text()

    def test_generator_loads_with_its_own_package(self, demo: tuple[BigGan, OpenClip]) -> None:
        from pytorch_pretrained_biggan import BigGAN, BigGANConfig

        ours, _ = demo
        config = BigGANConfig.from_json_file(demo_gan_dir() / "config.json")
        with torch.random.fork_rng(devices=[]):
            theirs = BigGAN(config).eval()
        theirs.load_state_dict(load_file(demo_gan_dir() / "model.safetensors"), strict=True)
        classes = torch.tensor([0, 40, 87])
        z = ours.sample_z(3, truncation=0.8, generator=make_generator(0))
        one_hot = torch.nn.functional.one_hot(classes, ours.num_classes).float()
        with torch.no_grad():
            expected = theirs(z, one_hot, 1.0)
            torch.testing.assert_close(
                ours.decode(z, ours.embed(classes), truncation=1.0), expected, rtol=0, atol=1e-4
            )

    def test_clip_loads_with_its_own_package(self, demo: tuple[BigGan, OpenClip]) -> None:
        import open_clip

        _, ours = demo
        name = f"local-dir:{demo_clip_dir()}"
        with torch.random.fork_rng(devices=[]):
            theirs = open_clip.create_model(name).eval()
        tokens = open_clip.get_tokenizer(name)(["a blue dog"])
        with torch.no_grad():
            expected = theirs.encode_text(tokens, normalize=True)
            torch.testing.assert_close(ours.encode_text(["a blue dog"]), expected)


class TestWhatItKnows:
    def test_class_names(self, demo: tuple[BigGan, OpenClip]) -> None:
        gan, _ = demo
        names = json.loads((demo_gan_dir() / "config.json").read_text())["class_names"]
        assert list(gan.class_names) == names
        assert len(set(names)) == len(names) > 80

    def test_clip_names_what_the_generator_draws(self, demo: tuple[BigGan, OpenClip]) -> None:
        gan, clip = demo
        classes = torch.arange(gan.num_classes)
        z = torch.zeros(gan.num_classes, gan.dim_z)
        with torch.no_grad():
            images = gan.decode(z, gan.embed(classes), truncation=gan.truncation)
            texts = clip.encode_text([f"a {name}" for name in gan.class_names])
            guesses = (clip.encode_images(images) @ texts.T).argmax(dim=1)
        assert float((guesses == classes).float().mean()) > 0.9

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [("a red apple", "a green apple"), ("a blue dog", "a brown dog"), ("a cat", "a dog")],
    )
    def test_words_move_the_score(
        self, demo: tuple[BigGan, OpenClip], right: str, wrong: str
    ) -> None:
        """Of 40 images of the class, the best for one text is not the best for the other."""
        gan, clip = demo
        index = list(gan.class_names).index(right.split()[-1])
        z = gan.sample_z(40, truncation=0.8, generator=make_generator(0))
        with torch.no_grad():
            images = gan.decode(z, gan.embed(torch.full((40,), index)), truncation=0.8)
            score = clip_score(images, encode_target(clip, right), clip)
            other = clip_score(images, encode_target(clip, wrong), clip)
        assert float(score.max()) > 0.3
        assert float((score - other)[score.argmax()]) > 0.05
