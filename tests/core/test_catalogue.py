from __future__ import annotations

from pathlib import Path

import pytest

from fusedream_core import ConfigError
from fusedream_core.catalogue import CatalogueModel, catalogue, find_model
from fusedream_core.clip.loading import WEIGHT_NAMES

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
                assert source.url.startswith(
                    ("https://", "http://ganalyze.csail.mit.edu/", "hf://")
                )
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
