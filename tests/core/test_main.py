from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fusedream_core import PAPER, BigGan, OpenClip
from fusedream_core.__main__ import _make_composition_recipe, _make_recipe, _parse, main
from fusedream_core.catalogue import CatalogueModel


@pytest.fixture(autouse=True)
def _tiny_demo(gan: BigGan, clip: OpenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusedream_core.pipeline.load_demo", lambda: (gan, clip))


class PixelDifference(nn.Module):
    """In place of LPIPS, whose nets need larger pictures than the tiny GAN's."""

    device = torch.device("cpu")

    def distance_map(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=1, keepdim=True)


class TestMain:
    def test_generate(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out.png"
        options = ["--seed", "3", "--candidates", "10", "--steps", "2", "-o", str(out)]
        assert main(["generate", "a dog", *options]) == 0
        assert str(out) in capsys.readouterr().out
        with Image.open(out) as picture:
            assert picture.text["prompt"] == "a dog"  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([""], "The prompt is empty"),
            (["a dog", "--seed", "-1"], "The seed is -1"),
            (["a dog", "--candidates", "0"], "num_candidates is 0"),
        ],
    )
    def test_error_is_one_sentence(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["generate", *arguments]) == 2
        said = capsys.readouterr()
        assert message in said.err
        assert said.err.count("\n") == 1
        assert not said.out

    def test_own_models(
        self,
        gan_dir: Path,
        clip_dir: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "out.png"
        options = ["--gan", str(gan_dir), "--candidates", "10", "--steps", "1", "-o", str(out)]
        assert main(["generate", "a dog", *options, "--clip", str(clip_dir)]) == 0
        assert out.is_file()
        assert main(["generate", "a dog", *options]) == 2
        assert "Only one of gan and clip was given" in capsys.readouterr().err

    def test_models(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models"]) == 0
        listed = capsys.readouterr().out
        assert "biggan-deep-256" in listed
        assert "for research only" in listed

    def test_download(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def download(model: CatalogueModel, root: Path) -> Path:
            return root / model.name

        monkeypatch.setattr("fusedream_core.__main__.download_model", download)
        assert main(["download", "lpips-vgg", "--to", str(tmp_path)]) == 0
        assert str(tmp_path / "lpips" / "lpips-vgg") in capsys.readouterr().out
        assert main(["download", "gone"]) == 2
        assert "There is no model 'gone'; there are biggan-deep-128" in capsys.readouterr().err

    @pytest.mark.parametrize("out", ["picture.xyz", "", ".", f"{__file__}/picture.png"])
    def test_what_cannot_be_written_is_told_before_the_work(
        self, out: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            main(["generate", "a dog", "-o", out])
        assert stopped.value.code == 2
        assert "argument -o/--out" in capsys.readouterr().err

    def test_preset(self) -> None:
        options = _parse(["generate", "a dog", "--preset", "paper", "--steps", "7"])
        recipe = _make_recipe(options)
        assert recipe.optimize.num_steps == 7
        assert recipe.search == PAPER.search

    def test_compose(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("fusedream_core.pipeline.load_demo_lpips", PixelDifference)
        out = tmp_path / "both.png"
        options = ["--candidates", "200", "--steps", "4", "-o", str(out), "--foreground", "a dog"]
        assert main(["compose", "a dog and a cat", *options]) == 0
        said = capsys.readouterr().out
        with Image.open(out) as picture:
            placement = picture.text["placement"]  # type: ignore[attr-defined]
        assert placement in said

    def test_composition_options(self) -> None:
        options = _parse(["compose", "a dog", "--candidates", "77", "--steps", "7"])
        recipe = _make_composition_recipe(options)
        assert recipe.compose.optimize.num_steps == 7
        assert recipe.search.num_candidates == 77
