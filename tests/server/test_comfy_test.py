"""The levels of comfy-test, the tool of the registry's community, against the real server.

Its level "validation" takes ``widgets_values`` by their place alone, and knows neither the choices
of nodes of the new kind, nor the value that the frontend saves behind a seed, nor its MarkdownNote;
so it is given workflows without these. ``test_pack.py`` and ``test_browser.py`` take them whole.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_client import ComfyClient
from comfy_server import PACK, ComfyServer
from workflow import to_prompt

pytestmark = pytest.mark.server

LEVELS = (
    "syntax",
    "coverage",
    "warnings",
    "hazards",
    "registration",
    "instantiation",
    "validation",
)
CONFIG = f"""\
[test]
levels = {list(LEVELS)!r}

[test.workflows]
cpu = "all"

[test.platforms]
platforms = ["linux-cpu"]
""".replace("'", '"')
SHIPPED = ("__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
FOLDERS = ("nodes", "fusedream_core", "workflows", "web", "locales", "subgraphs")
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
KNOWN = ("INT", "FLOAT", "STRING", "BOOLEAN")


def leave_what_the_tool_knows(path: Path, object_info: dict[str, Any]) -> None:
    """Leave of a workflow's nodes and widgets those that the tool finds by their place."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    prompt = to_prompt(graph, object_info)
    graph["nodes"] = [node for node in graph["nodes"] if node["type"] in object_info]
    for node in graph["nodes"]:
        inputs = object_info[node["type"]]["input"]
        kinds = {**inputs.get("required", {}), **inputs.get("optional", {})}
        given = prompt.get(str(node["id"]), {"inputs": {}})["inputs"]  # none if it is muted
        node["widgets_values"] = [
            # What comes by a link has a widget too, whose value nobody reads.
            more[0].get("default", "") if isinstance(given[name], list) else given[name]
            for name, (kind, *more) in kinds.items()
            if name in given and (isinstance(kind, list) or kind in KNOWN)
        ]
    path.write_text(json.dumps(graph), encoding="utf-8")


def test_all_levels_pass(comfyui: Path, tmp_path: Path) -> None:
    """On what is shipped, in a ComfyUI of its own, since the tool goes by folders."""
    command = shutil.which("comfy-test", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the package comfy-test is not installed")
    home = tmp_path / "ComfyUI"
    shutil.copytree(comfyui, home, ignore=shutil.ignore_patterns("__pycache__", "custom_nodes"))
    pack = home / "custom_nodes" / "fusedream"
    pack.mkdir(parents=True)
    for name in SHIPPED:
        shutil.copy(PACK / name, pack)
    for name in FOLDERS:
        shutil.copytree(PACK / name, pack / name, ignore=shutil.ignore_patterns("__pycache__"))
    (home / "models" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (home / "models" / "checkpoints" / CHECKPOINT).touch()  # for the one that names it
    (pack / "comfy-test.toml").write_text(CONFIG, encoding="utf-8")
    with ComfyServer(home, home, environment={"HF_HUB_OFFLINE": "1"}) as server:
        object_info = ComfyClient(server.url).object_info()
        for path in (pack / "workflows").glob("*.json"):
            leave_what_the_tool_knows(path, object_info)
        logs = tmp_path / "logs"
        logs.mkdir()
        # ComfyUI's own audio nodes want a package that is not installed here.
        lines = [line for line in server.log.splitlines() if "nodes_audio" not in line]
        (logs / "server.log").write_text("\n".join(lines), encoding="utf-8")
        done = subprocess.run(
            [command, "run", "--server-url", server.url, "--level", LEVELS[-1]],
            cwd=pack,
            env={**os.environ, "COMFY_TEST_LOGS_DIR": str(logs), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    for level in LEVELS:
        assert level in said.lower(), level
