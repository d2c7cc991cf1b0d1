"""The converter from saved workflows to prompts, on descriptions as ``/object_info`` gives them."""

from __future__ import annotations

from typing import Any

import pytest

from workflow import WorkflowError, nodes_with_widget, set_widget, to_prompt, widget_values

OBJECT_INFO: dict[str, Any] = {
    "Load": {
        "display_name": "Load Image",
        "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
    },
    "Work": {
        "input": {
            "required": {
                "images": ["IMAGE", {}],
                "seed": ["INT", {"control_after_generate": True}],
                "text": ["STRING", {"multiline": True}],
                "mode": ["COMBO", {"options": ["fast", "slow"]}],
            },
            "optional": {"mask": ["MASK"], "amount": ["FLOAT", {}], "note": ["STRING", {}]},
        },
        "input_order": {
            "required": ["images", "seed", "mode", "text"],
            "optional": ["mask", "amount", "note"],
        },
    },
    "Noise": {"input": {"required": {"noise_seed": ["INT", {}], "size": ["INT", {}]}}},
    "Plain": {"input": {"required": {"seed": ["INT", {"control_after_generate": False}]}}},
    "Aged": {
        "input": {
            "required": {"size": ["INT", {}]},
            "optional": {"newer": ["INT", {"default": 5}]},
        }
    },
    "Forced": {"input": {"required": {"text": ["STRING", {"forceInput": True}]}}},
    "Choose": {"input": {"required": {"name": [["x"], {"control_after_generate": True}]}}},
    "Union": {"input": {"required": {"name": ["COMBO,STRING", {"widgetType": "COMBO"}]}}},
    "Save": {"input": {"required": {"images": ["IMAGE", {}], "prefix": ["STRING", {}]}}},
}


def node(id_: int, type_: str, values: Any = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"id": id_, "type": type_, "mode": 0, "widgets_values": values, **more}


def socket(name: str, link: int | None, type_: str = "IMAGE") -> dict[str, Any]:
    return {"name": name, "type": type_, "link": link}


def graph(*nodes: dict[str, Any], links: list[Any] | None = None) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": links or [], "version": 0.4}


def inputs_of(workflow: dict[str, Any], id_: int) -> dict[str, Any]:
    return dict(to_prompt(workflow, OBJECT_INFO)[str(id_)]["inputs"])


class TestWidgets:
    def test_order_control_values_and_upload_buttons(self) -> None:
        work = node(1, "Work", [7, "fixed", "slow", "words", 0.5, "remark"])
        expected = {"seed": 7, "mode": "slow", "text": "words", "amount": 0.5, "note": "remark"}
        assert widget_values(work, OBJECT_INFO) == expected
        load = node(2, "Load", ["b.png", "image"])
        assert widget_values(load, OBJECT_INFO) == {"image": "b.png"}

    @pytest.mark.parametrize(
        ("type_", "values", "expected"),
        [
            ("Noise", [1, "randomize", 64], {"noise_seed": 1, "size": 64}),
            ("Plain", [3], {"seed": 3}),
            ("Aged", [3], {"size": 3, "newer": 5}),
            ("Forced", [], {}),
            ("Choose", ["x", "fixed", ""], {"name": "x"}),
            ("Union", ["x"], {"name": "x"}),
            ("Save", {"prefix": "out", "more": 1}, {"prefix": "out"}),
            ("Save", ["out", "what a newer frontend adds"], {"prefix": "out"}),
        ],
    )
    def test_kinds(self, type_: str, values: object, expected: dict[str, Any]) -> None:
        assert widget_values(node(1, type_, values), OBJECT_INFO) == expected

    def test_too_few_values(self) -> None:
        with pytest.raises(WorkflowError, match=r"Node 4 \(Noise\) has 2 widget values.*needs 3"):
            widget_values(node(4, "Noise", [1, "fixed"]), OBJECT_INFO)

    def test_set_a_widget_that_is_newer_than_the_file(self) -> None:
        aged = node(1, "Aged", [3])
        set_widget(aged, "newer", 7, OBJECT_INFO)
        assert aged["widgets_values"] == [3, 7]

    def test_unknown_node(self) -> None:
        with pytest.raises(WorkflowError, match="Node 4 is a Mystery"):
            to_prompt(graph(node(4, "Mystery")), OBJECT_INFO)

    def test_set(self) -> None:
        work = node(1, "Work", [7, "fixed", "slow", "words", 0.5, "remark"])
        set_widget(work, "text", "others", OBJECT_INFO)
        set_widget(work, "seed", 2**64 - 1, OBJECT_INFO)
        assert work["widgets_values"] == [2**64 - 1, "fixed", "slow", "others", 0.5, "remark"]
        with pytest.raises(WorkflowError, match="no widget 'colour'"):
            set_widget(work, "colour", "red", OBJECT_INFO)

    def test_find(self) -> None:
        plain, note = node(2, "Plain", [3]), node(3, "MarkdownNote", ["seed"])
        found = nodes_with_widget(graph(node(1, "Save", ["a"]), plain, note), "seed", OBJECT_INFO)
        assert list(found) == [plain]


class TestLinks:
    load = node(1, "Load", ["a.png", "image"], outputs=[{"type": "IMAGE"}, {"type": "MASK"}])

    def save(self, link: int) -> dict[str, Any]:
        return node(9, "Save", ["out"], inputs=[socket("images", link)])

    @pytest.mark.parametrize(
        "link",
        [
            [5, 1, 0, 9, 0, "IMAGE"],
            {"id": 5, "origin_id": 1, "origin_slot": 0, "target_id": 9, "target_slot": 0},
        ],
    )
    def test_both_versions(self, link: object) -> None:
        prompt = to_prompt(graph(self.load, self.save(5), links=[link]), OBJECT_INFO)
        assert prompt["9"]["inputs"] == {"prefix": "out", "images": ["1", 0]}
        assert prompt["1"]["_meta"] == {"title": "Load Image"}

    def test_a_linked_widget_takes_the_link(self) -> None:
        size = socket("size", 5, "INT") | {"widget": {"name": "size"}}
        noise = node(9, "Noise", [1, "fixed", 64], inputs=[size])
        workflow = graph(self.load, noise, links=[[5, 1, 0, 9, 1, "INT"]])
        assert inputs_of(workflow, 9) == {"noise_seed": 1, "size": ["1", 0]}

    def test_a_primitive_leaves_its_value_in_the_widget(self) -> None:
        primitive = node(2, "PrimitiveNode", [64, "fixed"])
        size = socket("size", 5, "INT") | {"widget": {"name": "size"}}
        noise = node(9, "Noise", [1, "fixed", 64], inputs=[size])
        workflow = graph(primitive, noise, links=[[5, 2, 0, 9, 1, "INT"]])
        assert inputs_of(workflow, 9) == {"noise_seed": 1, "size": 64}
        assert list(to_prompt(workflow, OBJECT_INFO)) == ["9"]

    def test_reroutes_are_followed(self) -> None:
        first = node(2, "Reroute", inputs=[socket("", 5, "*")])
        second = node(3, "Reroute", inputs=[socket("", 6, "*")])
        links = [[5, 1, 1, 2, 0, "*"], [6, 2, 0, 3, 0, "*"], [7, 3, 0, 9, 0, "*"]]
        workflow = graph(self.load, first, second, self.save(7), links=links)
        assert inputs_of(workflow, 9)["images"] == ["1", 1]
        assert list(to_prompt(workflow, OBJECT_INFO)) == ["1", "9"]

    def test_muted_nodes_and_their_links_go(self) -> None:
        muted = self.load | {"mode": 2}
        workflow = graph(muted, self.save(5), links=[[5, 1, 0, 9, 0, "IMAGE"]])
        assert inputs_of(workflow, 9) == {"prefix": "out"}

    def test_bypassed_nodes_hand_their_input_on(self) -> None:
        inputs = [socket("mask", None, "MASK"), socket("images", 5)]
        between = node(2, "Work", [], inputs=inputs, outputs=[{"type": "IMAGE"}]) | {"mode": 4}
        links = [[5, 1, 0, 2, 1, "IMAGE"], [6, 2, 0, 9, 0, "IMAGE"]]
        workflow = graph(self.load, between, self.save(6), links=links)
        assert inputs_of(workflow, 9)["images"] == ["1", 0]
        assert list(to_prompt(workflow, OBJECT_INFO)) == ["1", "9"]

    def test_a_bypassed_node_without_a_fitting_input_hands_nothing_on(self) -> None:
        bypassed = self.load | {"mode": 4}
        workflow = graph(bypassed, self.save(5), links=[[5, 1, 0, 9, 0, "IMAGE"]])
        assert inputs_of(workflow, 9) == {"prefix": "out"}

    def test_notes_go(self) -> None:
        assert to_prompt(graph(node(1, "Note", ["hello"])), OBJECT_INFO) == {}
