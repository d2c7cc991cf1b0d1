"""The English texts of the nodes, as the frontend reads them, from their schemas.

    python scripts/dev.py locales

writes ``locales/en/nodeDefs.json``. Other languages are written by hand; a test compares them with
this one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import environment

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"


def load_pack(comfyui: Path) -> ModuleType:
    """The pack as ComfyUI imports it."""
    sys.path.insert(0, str(comfyui))
    spec = importlib.util.spec_from_file_location("fusedream_pack", ROOT / "__init__.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("the pack cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fusedream_pack"] = module
    spec.loader.exec_module(module)
    return module


def texts_of(schema: Any) -> dict[str, Any]:  # noqa: ANN401 - ComfyUI's
    """All that a node's schema says to a user."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {
            entry.id: {"name": entry.display_name or entry.id, "tooltip": entry.tooltip}
            for entry in schema.inputs
        },
        "outputs": {
            str(index): {"name": output.display_name, "tooltip": output.tooltip}
            for index, output in enumerate(schema.outputs)
        },
    }


def node_texts(pack: ModuleType) -> dict[str, Any]:
    """The texts of all nodes, in the order of their names."""

    async def list_nodes() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        return list(await extension.get_node_list())

    schemas = [node.define_schema() for node in asyncio.run(list_nodes())]
    return {schema.node_id: texts_of(schema) for schema in sorted(schemas, key=lambda s: s.node_id)}


def as_file(texts: dict[str, Any]) -> str:
    """The texts as they stand in a file."""
    return json.dumps(texts, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the English texts."""
    comfyui = environment.find_comfyui()
    if comfyui is None:
        sys.stderr.write("There is no ComfyUI; run 'python scripts/dev.py test' once.\n")
        return 2
    ENGLISH.parent.mkdir(parents=True, exist_ok=True)
    ENGLISH.write_text(as_file(node_texts(load_pack(comfyui))), encoding="utf-8")
    sys.stdout.write(f"{ENGLISH}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
