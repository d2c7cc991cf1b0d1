from __future__ import annotations

from pathlib import Path

import pytest

from fusedream_core import CheckpointError, ConfigError
from fusedream_core.cli.models import load_clip


class TestLoadClip:
    def test_folder(self, clip_dir: Path) -> None:
        assert load_clip(clip_dir, None).clip_id.startswith("open_clip-")

    def test_file_with_its_architecture(
        self, clip_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that exists was said to be a folder that does not."""
        asked: list[tuple[Path, str]] = []

        def load(file: Path, architecture: str) -> object:
            asked.append((file, architecture))
            return object()

        monkeypatch.setattr("fusedream_core.cli.models.load_open_clip_file", load)
        file = clip_dir / "open_clip_model.safetensors"
        load_clip(file, "ViT-B-32-quickgelu")
        load_clip(file, None)
        assert asked == [(file, "ViT-B-32-quickgelu"), (file, "")]

    def test_faults(self, clip_dir: Path) -> None:
        file = clip_dir / "open_clip_model.safetensors"
        with pytest.raises(ConfigError, match="type its open_clip architecture"):
            load_clip(file, None)
        with pytest.raises(ConfigError, match="which has its own architecture"):
            load_clip(clip_dir, "ViT-B-32")
        with pytest.raises(CheckpointError, match=r"There is no file or folder .*nowhere"):
            load_clip(clip_dir / "nowhere", None)
        with pytest.raises(ConfigError, match="no architecture 'ViT-B-33'"):
            load_clip(file, "ViT-B-33")
