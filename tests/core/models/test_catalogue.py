from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fusedream_core import ConfigError
from fusedream_core.models.catalogue import CatalogueModel, catalogue, find_model
from fusedream_core.models.clip.loading import WEIGHT_NAMES

MODELS = catalogue()


class TestCatalogue:
    def test_names_are_unique_and_plain(self) -> None:
        names = [model.name for model in MODELS]
        assert len(set(names)) == len(names)
        assert all(name.replace("-", "").isalnum() for name in names)

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
    def test_entry(self, model: CatalogueModel) -> None:
        assert model.folder in ("gan", "open_clip", "lpips")
        assert model.licence
        assert model.megabytes > 0
        for file in model.files:
            assert file.sources
            assert "/" not in file.name
            for source in file.sources:
                assert source.url.startswith(("https://", "hf://"))
                assert set(source.sha256) <= set("0123456789abcdef")

    @pytest.mark.parametrize("model", catalogue("open_clip"), ids=lambda model: model.name)
    def test_a_clip_is_a_folder_that_the_loader_reads(self, model: CatalogueModel) -> None:
        names = [file.name for file in model.files]
        assert names[0] == "open_clip_config.json"
        assert names[-1] in WEIGHT_NAMES

    def test_hashes_in_file_names_are_those_of_the_sources(self) -> None:
        for model in MODELS:
            for file in model.files:
                for source in file.sources:
                    digits = source.url.rsplit("-", 1)[-1].split(".")[0]
                    if "download.openmmlab.com" in source.url or "pytorch.org" in source.url:
                        assert source.sha256 == digits

    def test_is_in(self, tmp_path: Path) -> None:
        model = find_model("ViT-B-32-laion2b")
        folder = tmp_path / model.name
        folder.mkdir()
        for file in model.files:
            assert not model.is_in(tmp_path)
            (folder / file.name).touch()
        assert model.is_in(tmp_path)

    def test_unknown_name(self) -> None:
        with pytest.raises(
            ConfigError, match="There is no model 'gone'; there are biggan-deep-128"
        ):
            find_model("gone")


class TestHostileEntries:
    @pytest.fixture
    def entry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """A catalogue of one model, written by the test."""
        module = sys.modules["fusedream_core.models.catalogue"]
        monkeypatch.setattr(module, "_DATA", tmp_path / "catalogue.json")
        source = {"url": "https://example.org/a.pth"}
        file = {"name": "a.pth", "megabytes": 1, "sources": [source]}
        return {
            "name": "a",
            "folder": "gan",
            "title": "A",
            "licence": "MIT",
            "resolution": 128,
            "files": [file],
        }

    @staticmethod
    def read(entry: dict[str, Any], folder: Path) -> CatalogueModel:
        (folder / "catalogue.json").write_text(json.dumps([entry]), encoding="utf-8")
        return catalogue()[0]

    @pytest.mark.parametrize("scheme", ["http", "ftp", "file", "HTTP"])
    @pytest.mark.parametrize("sha256", [None, "", "3e353fef", "z" * 64])
    def test_plain_http_without_a_whole_hash(
        self, entry: dict[str, Any], tmp_path: Path, scheme: str, sha256: str | None
    ) -> None:
        assert self.read(entry, tmp_path).files[0].sources
        source = {"url": f"{scheme}://example.org/a.pth"}
        source |= {} if sha256 is None else {"sha256": sha256}
        entry["files"][0]["sources"] = [source]
        with pytest.raises(ConfigError, match=f"{scheme}://example.org/a.pth is refused"):
            self.read(entry, tmp_path)

    def test_plain_http_with_its_hash(self, entry: dict[str, Any], tmp_path: Path) -> None:
        entry["files"][0]["sources"] = [{"url": "http://example.org/a", "sha256": "0a" * 32}]
        assert self.read(entry, tmp_path).files[0].sources[0].sha256 == "0a" * 32

    @pytest.mark.parametrize("name", ["../a", "a/b", "/a", "..", "a\\b", "", "c:a", ".hidden"])
    @pytest.mark.parametrize("which", ["model", "file"])
    def test_a_name_that_leads_elsewhere(
        self, entry: dict[str, Any], tmp_path: Path, name: str, which: str
    ) -> None:
        (entry if which == "model" else entry["files"][0])["name"] = name
        with pytest.raises(ConfigError, match="is refused, because it becomes a file"):
            self.read(entry, tmp_path)
