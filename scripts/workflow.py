"""From a saved workflow (UI format) to the prompt that ComfyUI executes (API format).

The browser does this when Queue is pressed; here it is done with the node descriptions of
``/object_info``. Covered is what a workflow of plain nodes contains: widgets (positional, with the
extra values that the frontend adds), links, widgets turned into inputs, reroutes, notes, muted and
bypassed nodes. Subgraphs and group nodes are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Workflow = dict[str, Any]
Node = dict[str, Any]
ObjectInfo = dict[str, Any]

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
SEED_NAMES = frozenset({"seed", "noise_seed"})
UPLOADS = ("image_upload", "video_upload", "audio_upload")
ONLY_IN_BROWSER = frozenset({"Note", "MarkdownNote", "Reroute", "PrimitiveNode"})
MUTED = 2
BYPASSED = 4


class WorkflowError(ValueError):
    """The workflow cannot be turned into a prompt."""


def to_prompt(workflow: Workflow, object_info: ObjectInfo) -> dict[str, Any]:
    """Turn a workflow into a prompt.

    Args:
        workflow: A workflow as the browser saves it (version 0.4 or 1.0).
        object_info: ComfyUI's ``/object_info``.

    Raises:
        WorkflowError: If a node is unknown to ComfyUI or has too few widget values.
    """
    graph = _Graph(workflow)
    prompt = {}
    for node in graph.nodes.values():
        if node["type"] in ONLY_IN_BROWSER or node.get("mode") in (MUTED, BYPASSED):
            continue
        inputs = widget_values(node, object_info)
        inputs.update(graph.linked_inputs(node))
        title = node.get("title") or object_info[node["type"]].get("display_name") or node["type"]
        prompt[str(node["id"])] = {
            "class_type": node["type"],
            "inputs": inputs,
            "_meta": {"title": title},
        }
    return prompt


def widget_values(node: Node, object_info: ObjectInfo) -> dict[str, Any]:
    """The values of a node's widgets, by name.

    Raises:
        WorkflowError: If the node is unknown or has too few values.
    """
    values = node.get("widgets_values") or []
    names = _widget_slots(node, object_info)
    if isinstance(values, dict):
        return {name: values[name] for name in names if name and name in values}
    values = _filled_up(node, names, object_info)
    return {name: value for name, value in zip(names, values, strict=False) if name}


def _filled_up(node: Node, names: list[str | None], object_info: ObjectInfo) -> list[Any]:
    """A node's values; those of widgets that are newer than the file are the browser's defaults."""
    values = list(node.get("widgets_values") or [])
    for name in names[len(values) :]:
        options = _options(node, name, object_info) if name else {}
        if "default" not in options:
            what, count = f"Node {node['id']} ({node['type']})", len(node["widgets_values"])
            raise WorkflowError(f"{what} has {count} widget values, and needs {len(names)}.")
        values.append(options["default"])
    return values


def set_widget(node: Node, name: str, value: object, object_info: ObjectInfo) -> None:
    """Set a widget of a node, in place.

    Raises:
        WorkflowError: If the node has no such widget.
    """
    names = _widget_slots(node, object_info)
    if name not in names:
        raise WorkflowError(f"{node['type']} has no widget {name!r}.")
    if isinstance(node["widgets_values"], dict):
        node["widgets_values"][name] = value
        return
    node["widgets_values"] = _filled_up(node, names, object_info)
    node["widgets_values"][names.index(name)] = value


def nodes_with_widget(workflow: Workflow, name: str, object_info: ObjectInfo) -> Iterator[Node]:
    """The nodes of a workflow that have a widget of this name."""
    for node in workflow["nodes"]:
        if node["type"] not in ONLY_IN_BROWSER and name in _widget_slots(node, object_info):
            yield node


def _widget_slots(node: Node, object_info: ObjectInfo) -> list[str | None]:
    """What each place of ``widgets_values`` is for; None for what only the browser uses."""
    kind = node["type"]
    if kind not in object_info:
        raise WorkflowError(f"Node {node['id']} is a {kind}, which this ComfyUI does not have.")
    slots: list[str | None] = []
    for section in ("required", "optional"):
        described = object_info[kind]["input"].get(section) or {}
        order = object_info[kind].get("input_order", {}).get(section) or list(described)
        uploads = 0
        for name in order:
            type_, options = _describe(described[name])
            if type_ not in WIDGET_TYPES or options.get("forceInput"):
                continue
            slots.append(name)
            if options.get("control_after_generate", type_ == "INT" and name in SEED_NAMES):
                # The "fixed / randomize" choice; a list gets a filter text as well.
                slots += [None] if type_ == "INT" else [None, None]
            uploads += any(options.get(upload) for upload in UPLOADS)
        slots += [None] * uploads  # the upload buttons come after the section's own widgets
    return slots


def _options(node: Node, name: str, object_info: ObjectInfo) -> dict[str, Any]:
    """The options of one of a node's inputs."""
    inputs = object_info[node["type"]]["input"]
    both = {**(inputs.get("required") or {}), **(inputs.get("optional") or {})}
    return _describe(both[name])[1]


def _describe(described: list[Any]) -> tuple[str, dict[str, Any]]:
    """Type of an input's widget, and its options; a list of choices is a COMBO, as it is now."""
    options = described[1] if len(described) > 1 else {}
    type_ = "COMBO" if isinstance(described[0], list) else described[0]
    return options.get("widgetType", type_), options


class _Graph:
    """Nodes by id and where links come from."""

    def __init__(self, workflow: Workflow) -> None:
        self.nodes: dict[int, Node] = {node["id"]: node for node in workflow["nodes"]}
        self.origins: dict[int, tuple[int, int]] = {}
        for link in workflow["links"]:
            if isinstance(link, dict):  # version 1.0
                link = (link["id"], link["origin_id"], link["origin_slot"])
            self.origins[link[0]] = (link[1], link[2])

    def linked_inputs(self, node: Node) -> dict[str, list[Any]]:
        """The inputs of a node that come from another, as ``[id, output]``."""
        found = ((i["name"], self._origin(i.get("link"))) for i in node.get("inputs") or [])
        return {name: origin for name, origin in found if origin}

    def _origin(self, link: int | None) -> list[Any] | None:
        """Where a link's value really comes from; None if from nowhere."""
        while link in self.origins:
            node_id, slot = self.origins[link]
            node = self.nodes[node_id]
            if node.get("mode") == MUTED or node["type"] == "PrimitiveNode":
                return None  # a primitive has already written its value into the widget
            if node["type"] == "Reroute":
                link = node["inputs"][0].get("link")
            elif node.get("mode") == BYPASSED:
                link = _passed_through(node, slot)
            else:
                return [str(node_id), slot]
        return None


def _passed_through(node: Node, slot: int) -> int | None:
    """The link that a bypassed node hands on to one of its outputs: the same place, or type."""
    inputs = node.get("inputs") or []
    type_ = node["outputs"][slot]["type"]
    if slot < len(inputs) and inputs[slot]["type"] == type_:
        inputs = [inputs[slot]]
    links = [i.get("link") for i in inputs if i["type"] == type_]
    return links[0] if links else None
