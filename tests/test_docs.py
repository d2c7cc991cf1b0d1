"""The documents say what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fusedream_core.models.catalogue import CatalogueModel, catalogue

DOCS = Path(__file__).resolve().parents[1] / "docs"
MODELS = (DOCS / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", catalogue(), ids=lambda model: model.name)
def test_models(model: CatalogueModel) -> None:
    row = re.search(rf"^\| `{model.name}` \|.*$", MODELS, re.MULTILINE)
    assert row is not None
    for fact in (model.title, f"{model.megabytes:,} MB", model.licence):
        assert fact in row[0]
    for file in model.files:
        assert file.name in MODELS
        for source in file.sources:
            address = source.url
            if address.startswith("hf://"):
                address = "https://huggingface.co/" + "/".join(address[5:].split("/")[:2])
            assert address in MODELS


def test_no_other_models() -> None:
    named = re.findall(r"^\| `([\w-]+)` \|", MODELS, re.MULTILINE)
    assert named == [
        *(model.name for folder in ("gan", "open_clip", "lpips") for model in catalogue(folder)),
    ]
