"""What the frontend shows in other languages, and the help pages, cover every node."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import locales

ROOT = Path(__file__).resolve().parents[2]
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def english(pack: SimpleNamespace) -> dict[str, Any]:
    return {node_id: locales.texts_of(node.define_schema()) for node_id, node in pack.nodes.items()}


def read(language: str) -> dict[str, Any]:
    path = ROOT / "locales" / language / "nodeDefs.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def shape(texts: Any) -> Any:  # noqa: ANN401 - nested
    return {key: shape(value) for key, value in texts.items()} if isinstance(texts, dict) else None


def leaves(texts: Any, where: str = "") -> dict[str, str]:  # noqa: ANN401 - nested
    if not isinstance(texts, dict):
        return {where: texts}
    return {
        k: v for key, value in texts.items() for k, v in leaves(value, f"{where}/{key}").items()
    }


def test_english_is_what_the_nodes_say(english: dict[str, Any]) -> None:
    """If this fails: python scripts/dev.py locales."""
    assert read("en") == english


def test_chinese_is_complete(english: dict[str, Any]) -> None:
    chinese = read("zh")
    assert shape(chinese) == shape(english)
    for where, text in leaves(chinese).items():
        assert text.strip(), where
        if where.endswith(("description", "tooltip")):
            assert CHINESE.search(text), where


def test_chinese_names_the_menu() -> None:
    main = json.loads((ROOT / "locales" / "zh" / "main.json").read_text(encoding="utf-8"))
    assert CHINESE.search(main["nodeCategories"]["FuseDream"])


def test_every_node_has_a_help_page(english: dict[str, Any]) -> None:
    pages = {path.stem: path for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages.keys() == english.keys()
    for node_id, texts in english.items():
        page = pages[node_id].read_text(encoding="utf-8")
        assert page.startswith(f"# {texts['display_name']}\n")
        for name in texts["inputs"]:
            assert f"`{name}`" in page or f"| {name} |" in page, (node_id, name)
        for output in texts["outputs"].values():
            assert output["name"] in page, (node_id, output["name"])
        for picture in re.findall(r"!\[.*?\]\((.+?)\)", page):
            assert (ROOT / "web" / "docs" / picture).is_file(), (node_id, picture)


def test_there_is_one_script_in_the_web_folder() -> None:
    """The frontend runs every script that it finds there."""
    files = [path for path in (ROOT / "web").rglob("*") if path.is_file()]
    assert [path.name for path in files if path.suffix not in (".md", ".jpg")] == ["locale.js"]
