"""The documents say what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dev
from fusedream_core.models.catalogue import CatalogueModel, catalogue

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted(DOCS.glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
OUR_OLD_WORDS = re.compile(
    r"\b(tournaments?|rungs?|iterates?|rivals?|changed copies|repeatable|uphill|guidance|lean)\b"
)
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


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub makes addresses of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPages:
    def test_links_lead_somewhere(self, page: Path) -> None:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            name, _, anchor = "".join(link).partition("#")
            if name.startswith("http"):
                continue
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), name
            assert not anchor or anchor in anchors(target), anchor

    def test_commands_are_there(self, page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        for command, rest in re.findall(r"python scripts/dev\.py ([a-z][a-z-]*)([^`\n]*)", text):
            assert command in dev.COMMANDS
            for path in re.findall(r"\btests/\S+", rest):
                assert (ROOT / path).exists(), path

    def test_words_are_the_fields(self, page: Path) -> None:
        prose = FENCED.sub("", page.read_text(encoding="utf-8"))
        assert not OUR_OLD_WORDS.findall(prose)
