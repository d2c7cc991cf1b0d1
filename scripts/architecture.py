"""Draw docs/images/architecture.svg and print the two loops into docs/architecture.md.

    python scripts/dev.py architecture [--check]

The rooms are those of the table in docs/architecture.md, the arrows are the imports of
``fusedream_core``, and the loops are the source of ``optimize`` and ``compose``. Only the standard
library is used.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "fusedream_core"
PAGE = ROOT / "docs" / "architecture.md"
DRAWING = ROOT / "docs" / "images" / "architecture.svg"
LOOPS = {
    "optimize": CORE / "optimize" / "optimize.py",
    "compose": CORE / "compose" / "compose.py",
}

BASE = "base files"  # the modules of the top folder and config/, below every other room
ABOUT = {  # colour, and what the room holds, beside its card
    BASE: ("#64748b", "errors, types, random numbers, images, memory, config/"),
    "models": ("#3b76e0", "GAN, CLIP and LPIPS; weights are read as data only"),
    "augclip": ("#8255dd", "paper 3.1: the mean score of augmented views"),
    "search": ("#0f8fa6", "paper 3.2: the k best latents"),
    "optimize": ("#c27803", "paper 3.2, Algorithm 1"),
    "compose": ("#d0458b", "paper 3.3, Algorithm 2"),
    "pipeline": ("#159467", "a prompt in, an image out"),
    "cli": ("#a15c3e", "the command line"),
}

WIDTH, HEIGHT, MARGIN = 1000, 1092, 40
LADDER_TOP, PITCH, DROP, CARD = 102, 90, 60, (126, 44)
WALK_TOP, LANE, LABEL, COLUMNS, BOX = 670, 64, 100, 7, (98, 46)

STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; font-size: 14px }
.title { font-size: 20px; font-weight: 650 }
.name { font-weight: 650 }
.small { font-size: 12px }
.middle { text-anchor: middle }
.end { text-anchor: end }
.math { font-family: Cambria, "STIX Two Text", Georgia, "Times New Roman", serif; font-size: 17px;
  font-style: italic }
.sub { font-size: 11.5px }
.panel { fill: #fcfcfe; stroke: #d8dce6 }
.box { fill: #ffffff }
.ink { fill: #1c2130 }
.soft { fill: #596074 }
.line { fill: none; stroke: #737b8f; stroke-width: 1.8 }
.head { fill: #737b8f }
.count { fill: #ffffff; font-size: 12px; font-weight: 650; text-anchor: middle }
@media (prefers-color-scheme: dark) {
  .panel { fill: #12151d; stroke: #2c3242 }
  .box { fill: #1b2030 }
  .ink { fill: #eef0f7 }
  .soft { fill: #a3abc0 }
  .line { stroke: #8d95aa }
  .head { fill: #8d95aa }
}
"""


def read_rooms(page: str) -> list[str]:
    """Return the rooms in the ladder's order: the base files, then each folder from models on."""
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", page, re.MULTILINE)
    steps = {name: int(step) for step, names in rows for name in re.findall(r"`([\w.]+)/`", names)}
    first = steps["models"]
    folders = [name for name, step in steps.items() if step >= first]
    return [BASE, *sorted(folders, key=lambda name: steps[name])]


def room_of(path: Path, rooms: Sequence[str]) -> str:
    """Return the room that holds a module; the command's entry belongs to ``cli``."""
    top = path.relative_to(CORE).parts[0]
    if top == "__main__.py":
        return "cli"
    return top if top in rooms else BASE


def imported_by(path: Path) -> Iterator[Path]:
    """Yield the modules of the core that a module imports, each once."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for alias in node.names:
            inside = (folder / f"{alias.name}.py", folder / alias.name / "__init__.py")
            for file in (*inside, folder.with_suffix(".py"), folder / "__init__.py"):
                if file.is_file():
                    found.add(file)
                    break
    yield from sorted(found - {CORE / "__init__.py"})


def read_imports(rooms: Sequence[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Return the modules of each room, and the imports from one room (first) into another."""
    modules: Counter[str] = Counter()
    arrows: Counter[tuple[str, str]] = Counter()
    for path in sorted(CORE.rglob("*.py")):
        if path == CORE / "__init__.py":
            continue
        room = room_of(path, rooms)
        modules[room] += path.name != "__init__.py"
        for other in imported_by(path):
            source = room_of(other, rooms)
            if source != room:
                arrows[source, room] += 1
    for source, room in arrows:
        if rooms.index(source) > rooms.index(room):
            raise SystemExit(f"{room} imports {source}, which stands below it in the ladder.")
    return modules, arrows


def tag(name: str, content: str = "", **attributes: object) -> str:
    """Return an SVG element; ``css`` is its class, underscores stand for hyphens."""
    attributes = {"class" if key == "css" else key: value for key, value in attributes.items()}
    written = "".join(
        f" {key.replace('_', '-')}={quoteattr(str(value))}" for key, value in attributes.items()
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(x: float, y: float, words: str, css: str) -> str:
    """Return a line of text."""
    return tag("text", escape(words), x=x, y=y, css=css)


def arrow(points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points, its corners round, with a head at the end."""
    (x, y), radius = points[0], 9.0
    way = f"M{x:g} {y:g}"
    for before, (x, y), after in zip(points, points[1:], points[2:], strict=False):
        near, far = (_toward((x, y), end, radius) for end in (before, after))
        way += f"L{near}Q{x:g} {y:g} {far}"
    x, y = points[-1]
    return tag("path", d=f"{way}L{x:g} {y:g}", css="line", marker_end="url(#head)")


def _toward(corner: tuple[float, float], end: tuple[float, float], distance: float) -> str:
    """Return the point that lies so far from a corner on the straight way to an end."""
    x, y = (
        here + distance * ((there > here) - (there < here))
        for here, there in zip(corner, end, strict=True)
    )
    return f"{x:g} {y:g}"


def draw_ladder(
    rooms: Sequence[str], modules: Mapping[str, int], arrows: Mapping[tuple[str, str], int]
) -> Iterator[str]:
    """Yield the rooms as a stair: what a room gives goes down its rail, and right into others."""
    wide, high = CARD
    corner = {
        room: (MARGIN + PITCH * step, LADDER_TOP + DROP * step) for step, room in enumerate(rooms)
    }
    for room in rooms:
        left, top = corner[room]
        lowest = max((corner[other][1] for source, other in arrows if source == room), default=0)
        if lowest:
            rail = {"x1": left + 30, "y1": top + high, "x2": left + 30, "y2": lowest + high / 2}
            yield tag("line", **rail, stroke=ABOUT[room][0], stroke_width=2, stroke_opacity=0.6)
        sources = [source for source, other in arrows if other == room]
        if sources:
            first = min(corner[source][0] for source in sources) + 30
            yield arrow([(first, top + high / 2), (left - 3, top + high / 2)])
    for (source, room), count in sorted(arrows.items()):
        x, y = corner[source][0] + 30, corner[room][1] + high / 2
        color = ABOUT[source][0]
        yield tag("circle", cx=x, cy=y, r=f"{7.5 + min(count, 40) ** 0.5:.1f}", fill=color)
        yield text(x, y + 4.2, str(count), "count")
    for room in rooms:
        left, top = corner[room]
        color, about = ABOUT[room]
        shape = {"x": left, "y": top, "width": wide, "height": high, "rx": 9}
        yield tag("rect", **shape, css="box")
        look = {"fill": color, "fill_opacity": 0.13, "stroke": color, "stroke_width": 1.8}
        yield tag("rect", **shape, **look)
        name = room if room == BASE else f"{room}/"
        yield text(left + wide / 2, top + 19, name, "ink name middle")
        yield text(left + wide / 2, top + 35, f"{modules[room]} modules", "soft small middle")
        yield text(left + wide + 14, top + high / 2 + 5, about, "soft")


def draw_walk() -> Iterator[str]:
    """Yield the lanes, and the walk of one latent through them from the seed to the image."""
    lanes = [BASE, "models", "augclip", "search", "optimize", "pipeline"]
    middle = {lane: WALK_TOP + LANE * row + LANE / 2 for row, lane in enumerate(lanes)}
    pitch = (WIDTH - 2 * MARGIN - LABEL) / COLUMNS
    at = [MARGIN + LABEL + pitch * (column + 0.5) for column in range(COLUMNS)]
    for lane in lanes:
        color = ABOUT[lane][0]
        place = {"x": MARGIN, "y": middle[lane] - LANE / 2 + 2, "height": LANE - 4, "rx": 9}
        yield tag("rect", **place, width=WIDTH - 2 * MARGIN, fill=color, fill_opacity=0.09)
        yield text(MARGIN + 14, middle[lane] + 5, lane, "ink name")

    wide, high = BOX
    side, edge = wide / 2 + 1, high / 2 + 1
    base, models, augclip, search, optimize, pipeline = (middle[lane] for lane in lanes)
    yield arrow([(at[0], base + edge), (at[0], search - edge - 3)])
    yield arrow([(at[0] + side, search), (at[1] - side - 3, search)])
    yield arrow([(at[1], search + edge), (at[1], optimize), (at[2] - side - 3, optimize)])
    yield arrow([(at[2], optimize - edge), (at[2], models + edge + 3)])
    yield arrow([(at[2] + side, models), (at[3], models), (at[3], augclip - edge - 3)])
    yield arrow([(at[3] + side, augclip), (at[4], augclip), (at[4], models + edge + 3)])
    yield arrow([(at[4] + side, models), (at[5], models), (at[5], augclip - edge - 3)])
    yield arrow([(at[5], augclip + edge), (at[5], optimize - edge - 3)])
    yield arrow([(at[5] - side, optimize), (at[2] + side + 3, optimize)])
    yield arrow([(at[5] + side, optimize), (at[6] - side - 3, optimize)])
    yield arrow([(at[6], optimize + edge), (at[6], pipeline - edge - 3)])
    yield text(at[5] - 10, search - 4, "gradient in w", "soft small end")
    yield text(at[5] - 10, search + 13, "and every \u03be", "soft small end")
    yield text((at[3] + at[4]) / 2, optimize - 9, "again, until the last step", "soft small middle")

    boxes = [
        (0, BASE, "seed", ""),
        (0, "search", "candidates", "z, y"),
        (1, "search", "basis", "the k best"),
        (2, "optimize", "", "latent"),
        (2, "models", "decode", "GAN"),
        (3, "augclip", "augment", "views"),
        (4, "models", "encode", "CLIP"),
        (5, "augclip", "score", "mean of views"),
        (5, "optimize", "Adam", "one step"),
        (6, "optimize", "evaluate", "held-out views"),
        (6, "pipeline", "image", ""),
    ]
    for column, lane, name, detail in boxes:
        x, y = at[column], middle[lane]
        color = ABOUT[lane][0]
        shape = {"x": x - wide / 2, "y": y - high / 2, "width": wide, "height": high, "rx": 8}
        yield tag("rect", **shape, css="box", stroke=color, stroke_width=1.8)
        if name:
            yield text(x, y + (-2 if detail else 5), name, "ink name middle")
        else:
            sub = '<tspan class="sub" dy="4">i</tspan>'
            formula = f'\u03a3 w{sub}<tspan dy="-4"> \u03be</tspan>{sub}'
            yield tag("text", formula, x=x, y=y - 2, css="ink math middle")
        if detail:
            yield text(x, y + 15, detail, "soft small middle")


def draw(page: str) -> str:
    """Return the whole drawing."""
    rooms = read_rooms(page)
    modules, arrows = read_imports(rooms)
    title = "The rooms of fusedream_core, and the walk of one latent through them"
    size = {"width": WIDTH, "height": HEIGHT}
    head = tag("path", d="M0 0L8 4L0 8z", css="head")
    how = "A number says how often the room at the arrow's end imports from the room of its line."
    way = "From a seed to an image, each step in the room that takes it."
    tip = {"id": "head", "viewBox": "0 0 8 8", "refX": 6, "refY": 4, "orient": "auto"}
    tip |= {"markerWidth": 8, "markerHeight": 8, "markerUnits": "userSpaceOnUse"}
    panel = {"x": 0.5, "y": 0.5, "width": WIDTH - 1, "height": HEIGHT - 1, "rx": 16}
    parts = [
        tag("title", title),
        tag("style", STYLE),
        tag("defs", tag("marker", head, **tip)),
        tag("rect", **panel, css="panel"),
        text(MARGIN, 52, "The ladder", "ink title"),
        text(MARGIN, 76, f"{how} No arrow goes up.", "soft"),
        *draw_ladder(rooms, modules, arrows),
        text(MARGIN, WALK_TOP - 40, "The walk of one latent", "ink title"),
        text(MARGIN, WALK_TOP - 16, way, "soft"),
        *draw_walk(),
    ]
    shape = {**size, "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img"}
    content = "\n" + "\n".join(parts) + "\n"
    return tag("svg", content, xmlns="http://www.w3.org/2000/svg", **shape) + "\n"


def body_of(name: str, path: Path) -> str:
    """Return the body of a function without its docstring, below the function's name."""
    source = path.read_text(encoding="utf-8")
    function = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    start = function.body[0].lineno - 1
    if ast.get_docstring(function) is not None:
        start = function.body[0].end_lineno or start
    body = "\n".join(source.splitlines()[start : function.end_lineno])
    return f"def {name}(...):\n{body.lstrip(chr(10))}"


def print_loops(page: str) -> str:
    """Return the page with the present loops between its markers."""
    for name, path in LOOPS.items():
        first, last = f"<!-- loop: {name} -->", f"<!-- end of loop: {name} -->"
        before, _, rest = page.partition(first)
        _, found, after = rest.partition(last)
        if not found:
            raise SystemExit(f"{PAGE} has no place for the loop: {first} and {last}.")
        block = f"```python\n{body_of(name, path)}\n```"
        page = f"{before}{first}\n{block}\n{last}{after}"
    return page


def main() -> int:
    """Write both files, or only say whether they are current."""
    parser = argparse.ArgumentParser(prog="dev.py architecture", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is old")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    made = {DRAWING: draw(page), PAGE: print_loops(page)}
    old = [
        path
        for path, content in made.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != content
    ]
    for path in old:
        if not check:
            path.write_text(made[path], encoding="utf-8", newline="\n")
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is old' if check else 'written'}\n")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
