from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from fusedream_core import (
    AdamConfig,
    AugmentConfig,
    BigGan,
    ComposeConfig,
    CompositionRecipe,
    ConfigError,
    InvertConfig,
    OpenClip,
    OptimizeConfig,
    PromptError,
    Recipe,
    SaveError,
    Score,
    SearchConfig,
    StepInfo,
    encode_target,
    free_demo,
    generate,
    generate_composition,
    load_biggan,
    load_open_clip_folder,
    make_generator,
    search_basis,
)
from fusedream_core.models import demo
from fusedream_core.pipeline.generate import SEARCH_STREAM
from fusedream_core.pipeline.result import format_score

from ...elsewhere import ELSEWHERE, Held, elsewhere

RECIPE = Recipe(
    search=SearchConfig(num_candidates=20, num_basis=3, batch_size=10, rerank_augments=4),
    optimize=OptimizeConfig(num_steps=3, eval_augments=4),
    augment=AugmentConfig(num_augments=4),
)


class TestGenerate:
    def test_smoke(self, gan: BigGan, clip: OpenClip, tmp_path: Path) -> None:
        infos: list[StepInfo] = []
        result = generate(
            "a dog", seed=2**64 - 1, gan=gan, clip=clip, recipe=RECIPE, callback=infos.append
        )
        assert result.image.size == (16, 16)
        stages = list(dict.fromkeys(info.stage for info in infos))
        assert stages == ["search", "rerank", "start", "optimize", "race", "select"]
        assert result.seconds > 0
        result.save(tmp_path / "dog.png")
        with Image.open(tmp_path / "dog.png") as image:
            text = image.text  # type: ignore[attr-defined]
        assert (text["prompt"], text["seed"]) == ("a dog", str(2**64 - 1))
        assert float(text["score"].split(" +- ")[0]) == pytest.approx(
            float(result.score.mean), abs=1e-4
        )

    def test_seed_decides(self, gan: BigGan, clip: OpenClip) -> None:
        first, again, other = (
            generate("a dog", seed=seed, gan=gan, clip=clip, recipe=RECIPE).images
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_exception(self, gan: BigGan, clip: OpenClip) -> None:
        with pytest.raises(PromptError, match="prompt is empty"):
            generate("", gan=gan, clip=clip)
        with pytest.raises(ConfigError, match="The seed is -1"):
            generate("a dog", seed=-1)
        with pytest.raises(ConfigError, match="Only one of gan and clip was given"):
            generate("a dog", gan=gan)
        with pytest.raises(PromptError, match="something that is no character"):
            generate("a dog \udcff", gan=gan, clip=clip)

    def test_saving_is_one_sentence(self, gan: BigGan, clip: OpenClip, tmp_path: Path) -> None:
        result = generate("a dog", gan=gan, clip=clip, recipe=RECIPE)
        with pytest.raises(SaveError, match="could not be written") as caught:
            result.save("/proc/x.png")
        kept = Path(str(caught.value).rsplit("it is kept as ", 1)[1].rstrip("."))
        with Image.open(kept) as image:
            assert image.text["prompt"] == "a dog"  # type: ignore[attr-defined]
        kept.unlink()

    def test_start_image(self, gan: BigGan, clip: OpenClip) -> None:
        """The search is left out: what is optimised is the latent of the image."""
        z = gan.sample_z(1, truncation=0.6, generator=make_generator(3))
        image = gan.decode(z, gan.embed(torch.tensor([1])), truncation=0.6).detach()
        infos: list[StepInfo] = []
        invert = InvertConfig(search=RECIPE.search, optimize=AdamConfig(num_steps=20))
        result = generate(
            "a dog",
            gan=gan,
            clip=clip,
            recipe=RECIPE,
            start_image=image,
            perceptual=Squares(),
            invert=invert,
            callback=infos.append,
        )
        assert "invert" in {info.stage for info in infos}
        assert len(result.basis.scores) == 1
        start = gan.decode(
            result.basis.latent.z, result.basis.latent.y, truncation=result.latent.truncation
        )
        found = (start - image).abs().mean()
        searched = generate("a dog", gan=gan, clip=clip, recipe=RECIPE).images
        assert found < (searched - image).abs().mean()

    def test_selector(self, gan: BigGan, clip: OpenClip) -> None:
        """The selector computes the score, so another selector gives another score."""
        other = copy.deepcopy(clip)
        other.clip_id = "other"
        with torch.no_grad():
            other.model.visual.conv1.weight.mul_(-1.0)
        own = generate("a dog", gan=gan, clip=clip, recipe=RECIPE)
        found = generate("a dog", gan=gan, clip=clip, selector=other, recipe=RECIPE)
        assert own.score.mean != found.score.mean
        assert found.provenance is not None
        assert found.provenance.models.selector is not None
        assert found.provenance.models.selector.id == "other"


@pytest.fixture
def demo_on(gan_dir: Path, clip_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Tiny models in place of the demo's files; yields what was loaded."""
    loaded: list[str] = []

    def pair() -> tuple[BigGan, OpenClip]:
        loaded.append("pair")
        return load_biggan(gan_dir), load_open_clip_folder(clip_dir)

    free_demo()
    monkeypatch.setattr("fusedream_core.pipeline.kept_demo.load_demo", pair)
    yield loaded
    free_demo()


class TestDevice:
    def test_kept_for_the_next_call(self, demo_on: list[str]) -> None:
        first = generate("a dog", recipe=RECIPE).images
        assert torch.equal(generate("a dog", recipe=RECIPE).images, first)
        assert demo_on == ["pair"]
        free_demo()
        assert torch.equal(generate("a dog", recipe=RECIPE).images, first)
        assert demo_on == ["pair", "pair"]

    def test_threads_load_once_and_agree(self, demo_on: list[str]) -> None:
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(generate, "a dog", recipe=RECIPE) for _ in range(4)]
        first, *others = [run.result().images for run in runs]
        assert demo_on == ["pair"]
        assert all(torch.equal(own, first) for own in others)

    def test_what_a_caller_loads_is_its_own(self, demo_on: list[str]) -> None:
        first = generate("a dog", recipe=RECIPE).images
        demo.load_demo()[0].double()
        assert torch.equal(generate("a dog", recipe=RECIPE).images, first)

    @pytest.mark.usefixtures("demo_on")
    def test_demo_models_go_where_they_are_asked(self, caplog: pytest.LogCaptureFixture) -> None:
        expected = generate("a dog", device="cpu", recipe=RECIPE)
        with elsewhere(), caplog.at_level(logging.INFO):
            found = generate("a dog", device=ELSEWHERE, recipe=RECIPE)
        assert isinstance(found.images, Held)
        torch.testing.assert_close(found.images.inner, expected.images, rtol=1e-4, atol=1e-4)
        assert "runs on meta:0" in caplog.text

    @pytest.mark.usefixtures("demo_on")
    def test_first_accelerator_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fusedream_core.devices._first_accelerator", lambda: str(ELSEWHERE))
        with elsewhere():
            assert isinstance(generate("a dog", recipe=RECIPE).images, Held)

    def test_given_models_stay_where_they_are(
        self, gan: BigGan, clip: OpenClip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fusedream_core.devices._first_accelerator", lambda: "cuda")
        found = generate("a dog", gan=gan, clip=clip, recipe=RECIPE)
        assert found.images.device.type == "cpu"
        with elsewhere(), pytest.raises(ConfigError, match="The GAN is on cpu, but the device"):
            generate("a dog", device=ELSEWHERE, gan=gan, clip=clip, recipe=RECIPE)

    @pytest.mark.parametrize(
        "name",
        [
            "cuda:99",
            "gpu",
            "meta",
            "",
            "hpu",
            "privateuseone",
            "xla",
            "mkldnn",
            "mtia",
            "x" * 9_000,
        ],
    )
    def test_exception(self, name: str) -> None:
        """One short sentence, whatever the device's own module or PyTorch says of it."""
        with pytest.raises(
            ConfigError, match=r"cannot be used here.*; take one of: .*cpu\."
        ) as caught:
            generate("a dog", device=name)
        assert len(str(caught.value)) < 250


class Squares:
    """In place of LPIPS, whose nets need larger images than the tiny GAN's."""

    device = torch.device("cpu")

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=1, keepdim=True)


class TestFormatScore:
    @pytest.mark.parametrize(
        ("stderr", "text"), [(0.01, "0.5000 +- 0.0100"), (float("nan"), "0.5000")]
    )
    def test_value(self, stderr: float, text: str) -> None:
        """Of one augmented copy nobody knows the error."""
        score = Score(torch.tensor([0.5]), torch.tensor([stderr]))
        assert format_score(score) == text


COMPOSITION = CompositionRecipe(
    search=SearchConfig(num_candidates=20, num_basis=3, batch_size=10, rerank_augments=4),
    compose=ComposeConfig(
        optimize=AdamConfig(num_steps=4, eval_augments=4),
        rungs=((3, 0.5), (1, 1.0)),
        consistency="none",
    ),
    augment=AugmentConfig(num_augments=4),
)


class TestGenerateComposition:
    def test_smoke(self, gan: BigGan, clip: OpenClip, tmp_path: Path) -> None:
        infos: list[StepInfo] = []
        result = generate_composition(
            "a dog and a cat", gan=gan, clip=clip, recipe=COMPOSITION, callback=infos.append
        )
        stages = list(dict.fromkeys(info.stage for info in infos))
        assert stages == ["search", "rerank", "pair", "compose", "select"]
        assert result.composition is not None
        assert len(result.composition.attempts) == 18
        assert len(result.latent.z) == 2
        result.save(tmp_path / "both.png")
        with Image.open(tmp_path / "both.png") as image:
            text = image.text  # type: ignore[attr-defined]
        assert text["placement"] == result.composition.placement.name

    def test_one_prompt_is_searched_once(self, gan: BigGan, clip: OpenClip) -> None:
        infos: list[StepInfo] = []
        generate_composition("a dog", gan=gan, clip=clip, recipe=COMPOSITION, callback=infos.append)
        assert [info.score.shape for info in infos if info.stage == "search"] == [(1,)] * 2

    def test_parts_have_searches_of_their_own(self, gan: BigGan, clip: OpenClip) -> None:
        result = generate_composition(
            "a dog and a cat",
            gan=gan,
            clip=clip,
            recipe=COMPOSITION,
            foreground_prompt="a dog",
        )
        (alone,) = search_basis(
            gan,
            clip,
            [encode_target(clip, "a dog")],
            config=COMPOSITION.search,
            augment=COMPOSITION.augment,
            generator=make_generator(0, SEARCH_STREAM),
        )
        assert torch.equal(result.basis.latent.z, alone.latent.z)
        shared = generate_composition("a dog and a cat", gan=gan, clip=clip, recipe=COMPOSITION)
        assert not torch.equal(shared.images, result.images)

    def test_exception(self, gan: BigGan, clip: OpenClip) -> None:
        with pytest.raises(PromptError, match="prompt is empty"):
            generate_composition("a dog", gan=gan, clip=clip, background_prompt=" ")
