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


PAGES = ROOT / "web" / "docs"
# The base of a page's pictures in the frontend is this folder, for the localized pages as well.
PICTURE = re.compile(r"!\[(.*?)\]\((.+?)\)")
CODE = re.compile(r"`([^`]+)`")
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)*")
WITH_NAME = "`{}`\uff08{}\uff09"  # an id with what the screen shows in Chinese brackets behind it


def chinese_page(node_id: str) -> list[str]:
    return (PAGES / node_id / "zh.md").read_text(encoding="utf-8").splitlines()


def pairs(node_id: str) -> list[tuple[str, str]]:
    """The lines of the English page, each with the line that says it in Chinese."""
    page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8").splitlines()
    translated = chinese_page(node_id)
    assert len(page) == len(translated), node_id
    return list(zip(page, translated, strict=True))


def kind(line: str) -> str:
    """What a line is in Markdown: a heading, a row with so many cells, an item, a picture."""
    start = re.match(r"(#+ |- |!\[|\|-)?", line)
    assert start is not None
    return f"{start[0]}{line.count('|') if line.startswith('|') else ''}" if line else "empty"


def rows(lines: list[str]) -> list[list[str]]:
    """For each table of a page the first cells below its head."""
    tables: list[list[str]] = []
    for line in lines:
        if line.startswith("|---"):
            tables.append([])
        elif line.startswith("| ") and "`" in line:
            tables[-1].append(line.split(" | ")[0].removeprefix("| "))
    return tables


def names_of_ids(english: dict[str, Any]) -> dict[str, set[str]]:
    """The Chinese names of all inputs and outputs, by what stands in the workflow files."""
    chinese = read("zh")
    names: dict[str, set[str]] = {}
    for node_id, texts in english.items():
        for key in texts["inputs"]:
            names.setdefault(key, set()).add(chinese[node_id]["inputs"][key]["name"])
        for key, output in texts["outputs"].items():
            names.setdefault(output["name"], set()).add(chinese[node_id]["outputs"][key]["name"])
    return names


def test_every_node_has_a_help_page(english: dict[str, Any]) -> None:
    pages = {path.stem: path for path in PAGES.glob("*.md")}
    assert pages.keys() == english.keys()
    for node_id, texts in english.items():
        page = pages[node_id].read_text(encoding="utf-8")
        assert page.startswith(f"# {texts['display_name']}\n")
        for name in texts["inputs"]:
            assert f"`{name}`" in page or f"| {name} |" in page, (node_id, name)
        for output in texts["outputs"].values():
            assert output["name"] in page, (node_id, output["name"])
        for _, picture in PICTURE.findall(page):
            assert (PAGES / picture).is_file(), (node_id, picture)


def test_every_node_has_a_chinese_help_page(english: dict[str, Any]) -> None:
    pages = {path.parent.name for path in PAGES.glob("*/*.md")}
    assert {path.name for path in PAGES.glob("*/*.md")} == {"zh.md"}
    assert pages == english.keys()
    chinese = read("zh")
    for node_id, texts in english.items():
        title = chinese[node_id]["display_name"]
        lines = chinese_page(node_id)
        assert lines[0] == f"# {title}"
        assert PICTURE.findall("\n".join(lines)) == [(title, f"images/{node_id}.jpg")]
        assert (PAGES / "images" / f"{node_id}.jpg").is_file()
        own = chinese[node_id]
        wanted = [
            [WITH_NAME.format(key, own["inputs"][key]["name"]) for key in texts["inputs"]],
            [
                WITH_NAME.format(output["name"], own["outputs"][key]["name"])
                for key, output in texts["outputs"].items()
            ],
        ]
        assert rows(lines) == wanted, node_id


def test_chinese_help_pages_say_what_the_english_ones_say(english: dict[str, Any]) -> None:
    """Line by line: the same structure, code and messages, numbers, and nodes that are named."""
    chinese = read("zh")
    short = " (FuseDream)"
    titles = {
        texts["display_name"].removesuffix(short): chinese[node_id]["display_name"]
        for node_id, texts in english.items()
    }
    for node_id in english:
        for number, (line, translated) in enumerate(pairs(node_id), start=1):
            where = (node_id, number)
            assert kind(line) == kind(translated), where
            if not line or line.startswith("|-"):
                continue
            assert CHINESE.search(CODE.sub("", translated)), where
            # An id may be said once more or less.
            assert set(CODE.findall(translated)) == set(CODE.findall(line)), where
            said, wanted = (CODE.sub("", text) for text in (translated, line))
            assert sorted(NUMBER.findall(said)) == sorted(NUMBER.findall(wanted)), where
            if not line.startswith(("#", "!")):
                quoted = {f"{name}{short}" for name in re.findall("“(.+?)”", said)}
                quoted &= set(titles.values())
                # What a message names may be named in its explanation.
                named, all_named = (
                    {titles[name] for name in titles if re.search(rf"\b{name}\b", text)}
                    for text in (wanted, line)
                )
                assert named <= quoted <= all_named, where


def test_chinese_help_pages_name_what_the_screen_shows(english: dict[str, Any]) -> None:
    """The ids are in the workflow files, but a Chinese frontend shows their Chinese names."""
    names = names_of_ids(english)
    for node_id in english:
        for line in chinese_page(node_id):
            if line.startswith("- "):
                for key in {key for key in CODE.findall(line) if key in names}:
                    said = line[line.index(f"`{key}`") :]  # where the line says it first
                    known = [WITH_NAME.format(key, name) for name in names[key]]
                    assert said.startswith(tuple(known)), line


def test_there_is_one_script_in_the_web_folder() -> None:
    """The frontend runs every script that it finds there."""
    files = [path for path in (ROOT / "web").rglob("*") if path.is_file()]
    assert [path.name for path in files if path.suffix not in (".md", ".jpg")] == ["locale.js"]
