"""The pack in the real frontend: a browser opens the templates, runs them, and looks.

Needs Debian's chromium (or a Chrome) and the package playwright; without them these tests are
skipped, unless ``FUSEDREAM_REQUIRE_BROWSER`` is set, as in continuous integration. With
``FUSEDREAM_SCREENSHOTS`` set to a folder, what was seen is kept there.
"""

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

pytestmark = [pytest.mark.server, pytest.mark.browser]

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
BLUEPRINT_WIDTH = 320  # of a node in the blueprint, as saved

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


class TestLayout:
    """By the sizes that the frontend itself gives the nodes, which differ between versions."""

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_no_node_covers_another(self, page: Page, name: str) -> None:
        open_template(page, name)
        assert_apart(page, name)

    @pytest.mark.frontend({"Comfy.VueNodes.Enabled": True})
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_no_node_covers_another_in_nodes_2(self, page: Page, name: str) -> None:
        open_template(page, name)
        number = page.evaluate("app.graph._nodes.length")
        drawn = "(n) => document.querySelectorAll('[data-node-id]').length >= n"
        page.wait_for_function(drawn, arg=number)
        assert_apart(page, name)
        shot(page, f"vue-{name}")

    @pytest.mark.parametrize(
        "renderer",
        [
            pytest.param(name, marks=pytest.mark.frontend({"Comfy.VueNodes.Enabled": vue}))
            for name, vue in (("classic", False), ("nodes-2", True))
        ],
    )
    def test_no_node_covers_another_in_the_blueprint(self, page: Page, renderer: str) -> None:
        page.evaluate(
            """async () => {
                const found = await (await fetch('/api/global_subgraphs')).json();
                const [key] = Object.keys(found).filter(
                    (key) => found[key].name == 'FuseDream Text to Image');
                const entry = await (await fetch(`/api/global_subgraphs/${key}`)).json();
                await app.loadGraphData(JSON.parse(entry.data));
                app.canvas.setGraph(app.graph._nodes[0].subgraph);
            }"""
        )
        if renderer == "nodes-2":
            number = page.evaluate("app.canvas.graph._nodes.length")
            drawn = "(n) => document.querySelectorAll('[data-node-id]').length >= n"
            page.wait_for_function(drawn, arg=number)
            first = page.evaluate(BOXES)[0]
            if first["right"] - first["left"] > BLUEPRINT_WIDTH + 1:
                pytest.skip("this frontend enlarges nodes in a subgraph, and leaves their places")
        assert_apart(page, "the blueprint")

    def test_overlaps(self) -> None:
        box = {"name": "a", "left": 0, "top": 0, "right": 10, "bottom": 10}
        beside = box | {"name": "b", "left": 10, "right": 20}
        within = box | {"name": "c", "left": 4, "right": 6}
        assert overlaps([box, beside]) == []
        assert overlaps([box, beside, within]) == [("a", "c", 2, 10)]


class TestTemplates:
    def test_are_offered_with_pictures(self, page: Page, server: ComfyServer) -> None:
        offered = page.evaluate("async () => (await fetch('/api/workflow_templates')).json()")
        assert set(TEMPLATES) <= set(offered["fusedream"])
        for name in TEMPLATES:
            status = page.evaluate(
                "async (n) => (await fetch(`/api/workflow_templates/fusedream/${n}.jpg`)).status",
                name,
            )
            assert status == 200, name

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_opens_whole(self, page: Page, name: str) -> None:
        open_template(page, name)
        state = page.evaluate(
            """() => ({
                unknown: app.graph._nodes
                    .filter((n) => !(n.type in LiteGraph.registered_node_types))
                    .map((n) => n.type),
                broken: app.graph._nodes.filter((n) => n.has_errors).map((n) => n.type),
                alerts: [...document.querySelectorAll('.p-toast-message-content')].map(
                    (e) => e.innerText),
                dialogs: document.querySelectorAll('.comfy-missing-nodes').length,
                loose: [...app.graph.links.values()].filter(
                    (l) => !app.graph.getNodeById(l.origin_id)
                        || !app.graph.getNodeById(l.target_id)
                ).length,
            })"""
        )
        assert state == {"unknown": [], "broken": [], "alerts": [], "dialogs": 0, "loose": 0}
        fit(page)
        shot(page, f"template-{name}")

    @pytest.mark.parametrize("name", [n for n in TEMPLATES if n not in (REFINE, BIGGAN)])
    def test_runs_by_the_button(self, page: Page, name: str) -> None:
        open_template(page, name)
        if not os.environ.get("FUSEDREAM_SCREENSHOTS"):  # those are to show what users get
            set_widgets(page, BUDGET)
        seen = run_by_the_button(page)
        assert seen["progress"] > 0
        if name != "rank_images_with_augclip":  # too short to be worth a preview
            assert seen["previews"] > 0
        fit(page)
        shot(page, f"ran-{name}")

    def test_a_saved_picture_brings_its_graph_back(self, page: Page) -> None:
        open_template(page, "text_to_image")
        set_widgets(page, {**BUDGET, "text": "a green frog"})
        page.evaluate("app.api.addEventListener('execution_success', () => window.done = true)")
        press_run(page)
        page.wait_for_function("window.done", timeout=SECONDS)
        page.wait_for_function(
            "app.graph._nodes.some((n) => n.type == 'SaveImage' && n.imgs?.length)"
        )
        before = page.evaluate("app.graph._nodes.map((n) => n.type).sort()")
        url = page.evaluate("app.graph._nodes.find((n) => n.type == 'SaveImage').imgs[0].src")
        page.reload()
        page.wait_for_function(
            "'FuseDreamOptimize' in (window.LiteGraph?.registered_node_types ?? {})"
        )
        page.evaluate(
            """async (url) => {
                app.graph.clear();
                const blob = await (await fetch(url.replace(/&(preview|rand)=[^&]*/g, ''))).blob();
                await app.handleFile(new File([blob], 'picture.png', {type: 'image/png'}));
            }""",
            url,
        )
        page.wait_for_function("app.graph._nodes.length > 2")
        assert page.evaluate("app.graph._nodes.map((n) => n.type).sort()") == before
        texts = page.evaluate(
            "app.graph._nodes.flatMap((n) => (n.widgets ?? []).map((w) => w.value))"
        )
        assert "a green frog" in texts


class TestBlueprint:
    def test_text_to_image_is_one_node(self, page: Page) -> None:
        found = page.evaluate("async () => (await fetch('/api/global_subgraphs')).json()")
        names = {entry["name"]: key for key, entry in found.items()}
        key = names["FuseDream Text to Image"]
        page.evaluate(
            """async (key) => {
                const entry = await (await fetch(`/api/global_subgraphs/${key}`)).json();
                await app.loadGraphData(JSON.parse(entry.data));
                const [node] = app.graph._nodes, save = LiteGraph.createNode('SaveImage');
                app.graph.add(save);
                save.pos = [600, 100];
                node.connect(node.outputs.findIndex((o) => o.name == 'image'), save, 0);
                for (const inner of node.subgraph.nodes)
                    for (const widget of inner.widgets ?? [])
                        if (widget.name == 'num_steps') widget.value = 2;
                app.api.addEventListener('execution_success', () => window.done = true);
                app.api.addEventListener('execution_error',
                    (e) => window.done = e.detail.exception_message);
            }""",
            key,
        )
        assert not page.locator(".p-toast-message-content").all_inner_texts()
        press_run(page)
        page.wait_for_function("window.done", timeout=SECONDS)
        assert page.evaluate("window.done") is True
        shot(page, "blueprint")


class TestLanguages:
    @pytest.mark.frontend({"Comfy.Locale": "zh"})
    def test_chinese(self, page: Page) -> None:
        chinese = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text("utf-8"))
        page.evaluate(
            """() => {
                app.graph.clear();
                for (const type of ['FuseDreamSeedSearch', 'FuseDreamOptimize']) {
                    const node = LiteGraph.createNode(type);
                    app.graph.add(node);
                    node.pos = [type == 'FuseDreamOptimize' ? 600 : 100, 150];
                }
            }"""
        )
        titles = page.evaluate("app.graph._nodes.map((n) => n.title)")
        wanted = ("FuseDreamSeedSearch", "FuseDreamOptimize")
        assert titles == [chinese[name]["display_name"] for name in wanted]
        labels = page.evaluate("app.graph._nodes[1].widgets.map((w) => w.label ?? w.name)")
        assert chinese["FuseDreamOptimize"]["inputs"]["num_steps"]["name"] in labels
        shot(page, "chinese")


class TestVueNodes:
    @pytest.mark.frontend({"Comfy.VueNodes.Enabled": True})
    def test_all_nodes_are_drawn(self, page: Page) -> None:
        open_template(page, "text_to_image")
        number = page.evaluate("app.graph._nodes.length")
        page.wait_for_function(
            "(n) => document.querySelectorAll('[data-node-id]').length >= n", arg=number
        )
        text = page.locator("[data-node-id]").all_inner_texts()
        assert any("Seed Search (FuseDream)" in one for one in text)
        fit(page)
        shot(page, "vue-nodes")


class TestHelp:
    def test_every_node_has_a_page(self, page: Page) -> None:
        names = page.evaluate(
            "Object.keys(LiteGraph.registered_node_types).filter((t) => t.startsWith('FuseDream'))"
        )
        assert len(names) > 15
        for name in names:
            text = page.evaluate(
                "async (n) => (await fetch(`/extensions/fusedream/docs/${n}.md`)).text()", name
            )
            assert text.startswith("# "), name

    def test_a_node_by_itself_is_whole(self, page: Page) -> None:
        """Every node can be put on an empty canvas; its picture is for the help pages."""
        names = page.evaluate(
            "Object.keys(LiteGraph.registered_node_types).filter((t) => t.startsWith('FuseDream'))"
        )
        for name in names:
            width, height = page.evaluate(
                """async (name) => {
                    app.graph.clear();
                    const node = LiteGraph.createNode(name), ds = app.canvas.ds;
                    app.graph.add(node);
                    node.pos = [200, 200];
                    ds.scale = 1;
                    ds.offset[0] = ds.offset[1] = 0;
                    app.canvas.setDirty(true, true);
                    for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
                    return [node.size[0], node.size[1]];
                }""",
                name,
            )
            assert width > 100, name
            picture(page, name, {"x": 190, "y": 160, "width": width + 20, "height": height + 50})
