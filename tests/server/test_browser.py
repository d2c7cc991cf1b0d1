"""The pack in the real frontend: a browser opens the templates, runs them, and looks.

Needs Debian's chromium (or a Chrome) and the package playwright; without them these tests are
skipped, unless ``FUSEDREAM_REQUIRE_BROWSER`` is set, as in continuous integration. With
``FUSEDREAM_SCREENSHOTS`` set to a folder, what was seen is kept there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from comfy_server import PACK, ComfyServer

from .frontend import (
    BIGGAN,
    BOXES,
    BUDGET,
    REFINE,
    SECONDS,
    TEMPLATES,
    Page,
    assert_apart,
    browser,
    fit,
    open_template,
    overlaps,
    page,
    picture,
    press_run,
    run_by_the_button,
    set_widgets,
    shot,
)

__all__ = ["browser", "page"]  # fixtures

pytestmark = [pytest.mark.server, pytest.mark.browser]

FROZEN = sorted((Path(__file__).parents[1] / "nodes" / "frozen").glob("*.json"))
BLUEPRINT_WIDTH = 320  # of a node in the blueprint, as saved


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

    @pytest.mark.parametrize("path", FROZEN, ids=lambda path: path.stem)
    def test_a_workflow_of_an_earlier_version_keeps_its_values(
        self, page: Page, path: Path
    ) -> None:
        saved = json.loads(path.read_text(encoding="utf-8"))
        found = page.evaluate(
            """async (graph) => {
                await app.loadGraphData(graph);
                return app.graph.serialize().nodes;
            }""",
            saved,
        )
        values = {node["id"]: node.get("widgets_values") or [] for node in found}
        own = [node for node in saved["nodes"] if node["type"].startswith("FuseDream")]
        for node in own:
            expected = node.get("widgets_values") or []
            assert values[node["id"]][: len(expected)] == expected, node["type"]

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
