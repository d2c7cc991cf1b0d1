"""OpenAI's own files: TorchScript archives that are read and never run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fusedream_core import CheckpointError, ConfigError, OpenClip, make_generator
from fusedream_core.models.clip.loading import load_open_clip_file

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch.jit as a whole
]

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
TOWERS: dict[str, dict[str, Any]] = {
    "ViT": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "ResNet": {"image_size": 32, "layers": [1, 2, 1, 1], "width": 16},
}


def make_openai_clip(tower: str) -> nn.Module:
    """A small CLIP as OpenAI's: quick_gelu, weights in half precision, and its three numbers."""
    from open_clip.model import CLIP, convert_weights_to_lp

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIP(48, TOWERS[tower], TEXT, quick_gelu=True).eval()
    convert_weights_to_lp(model, torch.float16)
    model.float()  # what a CPU can trace; every weight is one of half precision
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    for name, value in numbers.items():
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    return model


def write_archive(model: nn.Module, path: Path) -> Path:
    """Trace a CLIP as OpenAI did, and save the archive."""
    images, tokens = torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long)
    torch.jit.trace(model, (images, tokens), check_trace=False).save(str(path))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a small ViT."""
    return write_archive(make_openai_clip("ViT"), tmp_path_factory.mktemp("openai") / "ViT-B-32.pt")


def rewritten(archive: Path, path: Path, replaced: Callable[[str], bytes | None]) -> Path:
    """The archive with other content in some of its files."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            content = replaced(entry.filename)
            target.writestr(entry.filename, source.read(entry) if content is None else content)
    return path


@pytest.mark.parametrize("tower", TOWERS)
def test_archive_gives_the_features_of_the_model(tower: str, tmp_path: Path) -> None:
    model = make_openai_clip(tower)
    loaded = load_open_clip_file(write_archive(model, tmp_path / "ViT-B-32.pt"))
    images = torch.rand(2, 3, 32, 32, generator=make_generator(0)) * 2 - 1
    pixels = ((images + 1) / 2 - loaded.mean) / loaded.std
    expected = F.normalize(model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(loaded.encode_images(images), expected, rtol=1e-4, atol=1e-5)
    texts = ["a blue dog", "two cats on a hill"]
    expected = F.normalize(model.encode_text(loaded.tokenizer(texts)), dim=-1)
    torch.testing.assert_close(loaded.encode_text(texts), expected, rtol=1e-4, atol=1e-5)
    assert loaded.image_size == (32, 32)
    assert loaded.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert loaded.mean.dtype == torch.float32
    assert loaded.clip_id.startswith("openai-")


def test_archive_in_half_precision_is_computed_in_float32(archive: Path, tmp_path: Path) -> None:
    from open_clip.model import convert_weights_to_lp

    model = make_openai_clip("ViT")
    convert_weights_to_lp(model, torch.float16)
    half = model.state_dict()
    assert torch.float16 in {tensor.dtype for tensor in half.values()}
    torch.save(half, tmp_path / "half.pt")  # as many have exported it
    loaded, expected = load_open_clip_file(tmp_path / "half.pt"), load_open_clip_file(archive)
    images = torch.rand(1, 3, 32, 32, generator=make_generator(0)) * 2 - 1
    assert torch.equal(loaded.encode_images(images), expected.encode_images(images))


def test_code_in_an_archive_is_not_run(archive: Path, tmp_path: Path) -> None:
    def without_code(name: str) -> bytes | None:
        is_code = "/code/" in name or name.endswith("constants.pkl")
        return b"this would not even compile" if is_code else None

    broken = rewritten(archive, tmp_path / "broken.pt", without_code)
    with pytest.raises(RuntimeError):
        torch.jit.load(str(broken))
    assert isinstance(load_open_clip_file(broken), OpenClip)


def test_hostile_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    call = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    hostile = rewritten(
        archive, tmp_path / "hostile.pt", lambda name: call if name.endswith("data.pkl") else None
    )
    with pytest.raises(CheckpointError, match="is refused"):
        load_open_clip_file(hostile)
    assert not marker.exists()


def test_openai_file_is_not_loaded_with_another_activation(archive: Path) -> None:
    with pytest.raises(ConfigError, match="another activation"):
        load_open_clip_file(archive, "ViT-B-32/laion2b_s34b_b79k")
