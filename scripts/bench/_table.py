"""Rows of measurements as a Markdown table. Standard library only."""

from __future__ import annotations

from typing import Any

HEAD = """\
| what | which | s | bound s | ratio | peak MB | largest difference |
|---|---|---:|---:|---|---:|---:|"""


def line(row: dict[str, Any]) -> str:
    """A row as Markdown."""

    def cell(key: str, form: str) -> str:
        return format(row[key], form) if key in row else ""

    ratio = f"{row['ratio']:.2f}" if row.get("ratio") is not None else ""
    if ratio and "low" in row:
        ratio += f" ({row['low']:.2f}-{row['high']:.2f})"
    cells = (row["what"], row["which"], cell("seconds", ".3f"), cell("bound", ".3f"), ratio)
    more = (cell("peak MB", ".0f"), cell("largest difference", ".0e"))
    return f"| {' | '.join([*cells, *more])} |"
