"""The real frontend in a browser: opening it, what one does in it, and what is seen there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_server import PACK, ComfyServer

FLAGS = (  # no network but the server's
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REFINE, BIGGAN = "compose_then_refine", "text_to_image_biggan256"
TEMPLATES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
BUDGET = {"num_candidates": 24, "num_steps": 4, "num_augments": 2}
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Locale": "en",
    "Comfy.VueNodes.Enabled": False,
}
SECONDS = 400_000  # milliseconds that a run may take
PATIENCE = 300_000  # and that anything else of the page may, on a machine that is busy
FRAMES = 60

Page = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser."""
    required = bool(os.environ.get("FUSEDREAM_REQUIRE_BROWSER"))
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        assert not required, "there is no browser, but FUSEDREAM_REQUIRE_BROWSER is set"
        pytest.skip("no chromium, or no package playwright")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def page(
    browser: Any,  # noqa: ANN401
    server: ComfyServer,
    request: pytest.FixtureRequest,
) -> Iterator[Page]:
    """The frontend, ready; its console must stay free of our errors."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.set_default_timeout(PATIENCE)
    for name, value in {**SETTINGS, **named_settings(request)}.items():
        answer = context.request.post(f"{server.url}/settings/{name}", data=json.dumps(value))
        assert answer.ok, name
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url)
    page.wait_for_function("window.app?.graph && window.app.vueAppReady !== false")
    page.wait_for_function("'FuseDreamOptimize' in LiteGraph.registered_node_types")
    yield page
    context.close()
    assert not [error for error in errors if "fusedream" in error.lower()]


def named_settings(request: pytest.FixtureRequest) -> dict[str, object]:
    marker = request.node.get_closest_marker("frontend")
    return dict(marker.args[0]) if marker else {}


def open_template(page: Page, name: str) -> None:
    """Open a template as the template browser does: from the server's own copy of it."""
    page.evaluate(
        """async (name) => {
            const answer = await fetch(`/api/workflow_templates/fusedream/${name}.json`);
            await app.loadGraphData(await answer.json());
        }""",
        name,
    )
    page.wait_for_function("app.graph._nodes.length > 2")


def set_widgets(page: Page, values: dict[str, object]) -> None:
    page.evaluate(
        """(values) => {
            for (const node of app.graph._nodes)
                for (const widget of node.widgets ?? [])
                    if (widget.name in values) widget.value = values[widget.name];
        }""",
        values,
    )


def press_run(page: Page) -> None:
    """By its text: where the button stands, and in what, differs between versions."""
    page.locator("button:visible", has_text=re.compile(r"^\s*Run\s*$")).first.click()


def run_by_the_button(page: Page) -> dict[str, Any]:
    """Press Run and wait for the pictures; what was seen of progress and previews on the way."""
    page.evaluate(
        """() => {
            window.seen = {progress: 0, previews: 0, errors: []};
            app.api.addEventListener('progress', () => window.seen.progress++);
            app.api.addEventListener('b_preview', () => window.seen.previews++);
            app.api.addEventListener('b_preview_with_metadata', () => window.seen.previews++);
            app.api.addEventListener('execution_success', () => window.seen.done = true);
            app.api.addEventListener('execution_error',
                (e) => window.seen.errors.push(e.detail.exception_message));
        }"""
    )
    press_run(page)
    page.wait_for_function("window.seen.done || window.seen.errors.length", timeout=SECONDS)
    seen: dict[str, Any] = page.evaluate("window.seen")
    assert not seen["errors"]
    page.wait_for_function(PICTURES_SHOWN)
    return seen


def shot(page: Page, name: str) -> None:
    folder = os.environ.get("FUSEDREAM_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def picture(page: Page, name: str, clip: dict[str, float]) -> None:
    """Keep a part of the page, small."""
    folder = os.environ.get("FUSEDREAM_SCREENSHOTS")
    if folder:
        path = Path(folder) / "nodes" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(path), type="jpeg", quality=85, clip=clip)


def fit(page: Page) -> None:
    """Bring the whole graph into view, and wait until it is drawn."""
    page.evaluate(
        """async () => {
            const nodes = app.canvas.graph._nodes, ds = app.canvas.ds, side = 90, top = 130;
            const left = Math.min(...nodes.map((n) => n.pos[0]));
            const high = Math.min(...nodes.map((n) => n.pos[1])) - 40;
            const width = Math.max(...nodes.map((n) => n.pos[0] + n.size[0])) - left;
            const height = Math.max(...nodes.map((n) => n.pos[1] + n.size[1])) - high;
            const fits = [(innerWidth - 2 * side) / width, (innerHeight - 2 * top) / height, 1];
            ds.scale = Math.min(...fits);
            ds.offset[0] = side / ds.scale - left;
            ds.offset[1] = top / ds.scale - high;
            app.canvas.setDirty(true, true);
            for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
        }"""
    )


PICTURES_SHOWN = """() => {
    const whole = (picture) => picture?.complete && picture.naturalWidth > 0;
    return app.graph._nodes.filter((node) => node.type == 'SaveImage').every((node) => {
        const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
        return whole(drawn ? drawn.querySelector('img') : node.imgs?.[0]);
    });
}"""

BOXES = """async () => {
    const canvas = app.canvas.canvas.getBoundingClientRect(), {scale, offset} = app.canvas.ds;
    const title = LiteGraph.NODE_TITLE_HEIGHT;
    return app.canvas.graph._nodes.map((node) => {
        const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
        const name = `${node.id} ${node.type}`;
        if (!drawn) {
            const [x, y, width, height] = [...node.pos, ...node.size];
            return {name, left: x, top: y - title, right: x + width, bottom: y + height};
        }
        const box = drawn.getBoundingClientRect();
        const x = (box.left - canvas.left) / scale - offset[0];
        const y = (box.top - canvas.top) / scale - offset[1];
        const right = x + box.width / scale, bottom = y + box.height / scale;
        return {name, left: x, top: y, right, bottom};
    });
}"""


def overlaps(boxes: list[dict[str, Any]]) -> list[tuple[str, str, int, int]]:
    """The nodes of which one covers a part of another, as they are drawn, and by how much."""
    found = []
    for number, a in enumerate(boxes):
        for b in boxes[number + 1 :]:
            width = min(a["right"], b["right"]) - max(a["left"], b["left"])
            height = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
            if min(width, height) > 1.0:  # less is rounding
                found.append((a["name"], b["name"], round(width), round(height)))
    return found


def assert_apart(page: Page, name: str) -> None:
    """Wait until all nodes have their size and none covers another; say which if they never do."""
    fit(page)
    boxes: list[dict[str, Any]] = page.evaluate(BOXES)
    for _ in range(FRAMES):  # pictures come into their nodes by and by, and enlarge them
        before, boxes = boxes, page.evaluate(BOXES)
        if boxes == before and not overlaps(boxes):
            break
        page.evaluate("new Promise(requestAnimationFrame)")
    assert overlaps(boxes) == [], name
    assert len(boxes) == page.evaluate("app.canvas.graph._nodes.length") > 2
