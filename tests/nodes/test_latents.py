"""Latents in files and out, from one to another, from pictures, and on from there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

Run = Callable[..., Any]
SEARCH = {"num_candidates": 40, "num_basis": 3}
STEPS = {"num_steps": 4, "num_augments": 2}


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def errors(pack: SimpleNamespace) -> ModuleType:
    return pack.module("fusedream_core.errors")


@pytest.fixture
def optimized(run: Run, gan: object, clip: object, target: object) -> SimpleNamespace:
    basis, *_ = run("FuseDreamSeedSearch", gan=gan, clip=clip, target=target, **SEARCH)
    values = run("FuseDreamOptimize", gan=gan, clip=clip, target=target, basis=basis, **STEPS)
    return SimpleNamespace(
        **dict(zip(["image", "latent", "score", "report", "trace"], values, strict=True))
    )


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ComfyUI's output and input folders, empty."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    return tmp_path / "output"


class TestFiles:
    def test_there_and_back(
        self, run: Run, gan: object, optimized: SimpleNamespace, outputs: Path
    ) -> None:
        (name,) = run("FuseDreamSaveLatent", latent=optimized.latent)
        assert name == "latent_00001_.safetensors [output]"
        assert (outputs / "fusedream" / "latent_00001_.safetensors").is_file()
        latent, about = run("FuseDreamLoadLatent", latent_name=name)
        assert "- prompt: a blue dog" in about
        assert "- clip: tiny" in about
        assert '"steps": 4' in about
        (image,) = run("FuseDreamDecodeLatent", gan=gan, latent=latent)
        torch.testing.assert_close(image, optimized.image)

    def test_nothing_is_overwritten(
        self, run: Run, optimized: SimpleNamespace, outputs: Path, pack: SimpleNamespace
    ) -> None:
        names = [
            run("FuseDreamSaveLatent", latent=optimized.latent, filename_prefix="a/b")[0]
            for _ in range(2)
        ]
        assert names == ["a/b_00001_.safetensors [output]", "a/b_00002_.safetensors [output]"]
        options = pack.nodes["FuseDreamLoadLatent"].define_schema().inputs[0].options
        assert set(names) <= set(options)

    @pytest.mark.parametrize("where", ["folder", "file"])
    def test_a_full_disk_is_a_sentence(
        self,
        run: Run,
        optimized: SimpleNamespace,
        outputs: Path,
        errors: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        where: str,
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(*((os, "makedirs") if where == "folder" else (Path, "replace")), fail)
        with pytest.raises(errors.SaveError, match="the disk is full") as caught:
            run("FuseDreamSaveLatent", latent=optimized.latent, filename_prefix="new/latent")
        assert "Errno" not in str(caught.value)
        assert not [file for file in outputs.rglob("*") if file.is_file()]

    def test_the_name_tells_the_size(
        self, run: Run, optimized: SimpleNamespace, outputs: Path, gan: object
    ) -> None:
        prefix = "%width%x%height%/%year%-%month%-%day%"
        (name,) = run("FuseDreamSaveLatent", latent=optimized.latent, filename_prefix=prefix)
        assert re.fullmatch(r"32x32/\d{4}-\d\d-\d\d_00001_\.safetensors \[output\]", name)
        loaded, about = run("FuseDreamLoadLatent", latent_name=name)
        assert loaded.image_size == (32, 32)
        assert "image_size" not in about
        (again,) = run("FuseDreamSaveLatent", latent=loaded, filename_prefix="b %width%")
        assert again.startswith("b 32_")
        way = run("FuseDreamInterpolateLatents", gan=gan, first=loaded, last=loaded, num_frames=2)[
            1
        ]
        assert way.image_size == (32, 32)

    def test_the_size_of_older_files_is_not_known(
        self, run: Run, optimized: SimpleNamespace, outputs: Path, errors: ModuleType
    ) -> None:
        old = replace(optimized.latent, image_size=None)
        with pytest.raises(errors.ConfigError, match="filename_prefix is 'a_%width%', but the"):
            run("FuseDreamSaveLatent", latent=old, filename_prefix="a_%width%")
        (name,) = run("FuseDreamSaveLatent", latent=old, filename_prefix="a")
        assert run("FuseDreamLoadLatent", latent_name=name)[0].image_size is None

    @pytest.mark.parametrize(
        "prefix",
        [
            *("../../../x", "/x", "..", "a/../..", "../fusedream_x/x", "", " ", ".", "a/.."),
            *("a\nb", "a\0b", "a\udcff", "\ud800", "x" * 300, "\u00e9" * 150),
        ],
    )
    def test_name_of_no_file_in_the_folder(
        self, run: Run, optimized: SimpleNamespace, outputs: Path, errors: ModuleType, prefix: str
    ) -> None:
        """One sentence, before a folder is made."""
        with pytest.raises(errors.ConfigError, match="within fusedream in ComfyUI's") as caught:
            run("FuseDreamSaveLatent", latent=optimized.latent, filename_prefix=prefix)
        str(caught.value).encode()
        assert "\n" not in str(caught.value)
        assert not list(outputs.rglob("*"))
        assert not list(outputs.parent.parent.glob("x*"))

    def test_names_of_any_script(self, run: Run, optimized: SimpleNamespace, outputs: Path) -> None:
        for prefix in ("\u72d7/\U0001f415 1", "a..b", "./x", "a/../y"):
            run("FuseDreamSaveLatent", latent=optimized.latent, filename_prefix=prefix)
        assert len(list(outputs.rglob("*.safetensors"))) == 4

    @pytest.mark.parametrize("name", ["gone [output]", "../../secret", "", "/etc/passwd"])
    def test_only_names_of_the_list(
        self, run: Run, errors: ModuleType, outputs: Path, pack: SimpleNamespace, name: str
    ) -> None:
        told = pack.nodes["FuseDreamLoadLatent"].validate_inputs(latent_name=name)
        assert "There is no latent" in told
        with pytest.raises(errors.CheckpointError, match="There is no latent"):
            run("FuseDreamLoadLatent", latent_name=name)

    def test_fingerprint_follows_the_file(
        self, run: Run, optimized: SimpleNamespace, outputs: Path, pack: SimpleNamespace
    ) -> None:
        node = pack.nodes["FuseDreamLoadLatent"]
        assert node.fingerprint_inputs(latent_name="gone") == ""
        (name,) = run("FuseDreamSaveLatent", latent=optimized.latent)
        before = node.fingerprint_inputs(latent_name=name)
        path = outputs / "fusedream" / "latent_00001_.safetensors"
        path.write_bytes(path.read_bytes() + b" ")
        assert node.fingerprint_inputs(latent_name=name) != before
        assert str(outputs) not in before

    def test_fingerprint_of_a_linked_name_follows_every_file(
        self, run: Run, optimized: SimpleNamespace, outputs: Path, pack: SimpleNamespace
    ) -> None:
        node = pack.nodes["FuseDreamLoadLatent"]
        run("FuseDreamSaveLatent", latent=optimized.latent)
        before = node.fingerprint_inputs(latent_name=None)
        assert node.fingerprint_inputs() == before
        run("FuseDreamSaveLatent", latent=optimized.latent)
        assert node.fingerprint_inputs(latent_name=None) != before


class TestOnFromThere:
    def test_with_another_prompt(
        self, run: Run, gan: object, clip: object, optimized: SimpleNamespace
    ) -> None:
        (target,) = run("FuseDreamEncodePrompt", clip=clip, text="a red cat")
        inputs = {"gan": gan, "clip": clip, "target": target}
        basis, images, scores = run("FuseDreamLatentToBasis", **inputs, latent=optimized.latent)
        torch.testing.assert_close(images, optimized.image)
        assert "a red cat" in scores
        image, *_ = run("FuseDreamOptimize", **inputs, basis=basis, **STEPS)
        assert image.shape == (1, 32, 32, 3)

    def test_another_gans_latent(
        self, run: Run, clip: object, target: object, optimized: SimpleNamespace, errors: ModuleType
    ) -> None:
        (other,) = run("FuseDreamLoadGAN", gan_name="other")
        for node, inputs in {
            "FuseDreamLatentToBasis": {"clip": clip, "target": target, "latent": optimized.latent},
            "FuseDreamInterpolateLatents": {"first": optimized.latent, "last": optimized.latent},
        }.items():
            with pytest.raises(errors.ConfigError, match="belongs to the GAN"):
                run(node, gan=other, **inputs)

    def test_interpolation(self, run: Run, gan: object, optimized: SimpleNamespace) -> None:
        latent = optimized.latent
        turned = replace(latent.latent, z=latent.latent.z.roll(1, dims=1))
        other = replace(latent, latent=turned, about={"prompt": "b"})
        images, way = run(
            "FuseDreamInterpolateLatents", gan=gan, first=latent, last=other, num_frames=5
        )
        assert images.shape == (5, 32, 32, 3)
        torch.testing.assert_close(images[:1], optimized.image)
        assert way.about["first prompt"] == "a blue dog"
        assert way.about["last prompt"] == "b"
        (decoded,) = run("FuseDreamDecodeLatent", gan=gan, latent=way)
        torch.testing.assert_close(decoded, images)


class TestPictures:
    def test_inversion(
        self, run: Run, gan: object, clip: object, optimized: SimpleNamespace
    ) -> None:
        (lpips,) = run("FuseDreamLoadLPIPS", lpips_name="tiny.safetensors")
        inputs = {"gan": gan, "clip": clip, "lpips": lpips, "image": optimized.image}
        image, latent, distance, trace = run("FuseDreamInvertImage", **inputs, num_steps=12)
        assert image.shape == (1, 32, 32, 3)
        assert isinstance(distance, float)
        assert len(trace.values) == 12
        assert trace.values[-1] < trace.values[0]
        (decoded,) = run("FuseDreamDecodeLatent", gan=gan, latent=latent)
        torch.testing.assert_close(decoded, image)

    def test_inversion_takes_one_picture_of_any_size(
        self, run: Run, gan: object, clip: object, errors: ModuleType
    ) -> None:
        (lpips,) = run("FuseDreamLoadLPIPS", lpips_name="tiny.safetensors")
        inputs = {"gan": gan, "clip": clip, "lpips": lpips, "num_steps": 1}
        image, *_ = run("FuseDreamInvertImage", **inputs, image=noise(1, 50, 90, 4))
        assert image.shape == (1, 32, 32, 3)
        with pytest.raises(errors.ConfigError, match="There are 2 images"):
            run("FuseDreamInvertImage", **inputs, image=noise(2, 32, 32, 3))

    def test_image_prompt(self, run: Run, gan: object, clip: Any) -> None:  # noqa: ANN401
        pictures = noise(2, 40, 50, 3)
        (alone,) = run("FuseDreamImagePrompt", clip=clip, images=pictures)
        (mixed,) = run("FuseDreamImagePrompt", clip=clip, images=pictures, text="a dog")
        (text,) = run("FuseDreamEncodePrompt", clip=clip, text="a dog")
        assert (alone.prompt, mixed.prompt) == ("picture", "picture + a dog")
        together = alone.features + text.features
        torch.testing.assert_close(mixed.features, together / together.norm())
        basis, *_ = run("FuseDreamSeedSearch", gan=gan, clip=clip, target=alone, **SEARCH)
        assert basis.prompt == "picture"

    def test_a_second_clip_cannot_read_a_picture_target(
        self, run: Run, gan: object, clip: object, errors: ModuleType
    ) -> None:
        (target,) = run("FuseDreamImagePrompt", clip=clip, images=noise(1, 32, 32, 3))
        basis, *_ = run("FuseDreamSeedSearch", gan=gan, clip=clip, target=target, **SEARCH)
        inputs = {"gan": gan, "clip": clip, "target": target, "basis": basis, **STEPS}
        with pytest.raises(errors.ConfigError, match="cannot be encoded anew by a second CLIP"):
            run("FuseDreamOptimize", **inputs, selector=clip)


class TestCharts:
    def test_curve(self, run: Run, optimized: SimpleNamespace) -> None:
        (image,) = run("FuseDreamPlotTrace", trace=optimized.trace, width=320, height=200)
        assert image.shape == (1, 200, 320, 3)
        assert image.min() < 0.5 < image.max()

    def test_a_title_with_signs_of_mathematics(self, run: Run, optimized: SimpleNamespace) -> None:
        trace = replace(optimized.trace, title="$a_b_c$ and $5")
        (image,) = run("FuseDreamPlotTrace", trace=trace, width=320, height=200)
        assert image.shape == (1, 200, 320, 3)

    def test_sheet(self, run: Run) -> None:
        images = torch.stack([torch.full((20, 30, 3), shade) for shade in (0.1, 0.3, 0.5)])
        (plain,) = run("FuseDreamContactSheet", images=images, tile=64)
        assert plain.shape == (1, 2 * 68 + 4, 2 * 68 + 4, 3)
        assert float(plain[0, 36, 36, 0]) == pytest.approx(0.1, abs=0.01)
        assert float(plain[0, 36, 104, 0]) == pytest.approx(0.3, abs=0.01)
        labels = "AugCLIP of the 3 best for: x\n\n1. 0.5 dog\n2. 0.4 cat\n3. 0.3 bus"
        (labelled,) = run("FuseDreamContactSheet", images=images, labels=labels, tile=64, columns=3)
        assert labelled.shape[1] > 72
        words = np.asarray(labelled[0, 69:, :, 0])
        assert (words < 0.5).any()

    def test_longer_than_the_tile(self, run: Run) -> None:
        labels = "a label that is far longer than any tile could ever be in this world"
        (sheet,) = run("FuseDreamContactSheet", images=noise(1, 16, 16, 3), labels=labels, tile=32)
        assert sheet.shape[2] == 40
