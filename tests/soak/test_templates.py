"""Every template in the browser, run by the button, in both of the frontend's ways of drawing.

On the ComfyUI that ``COMFYUI_DIR`` names, so that one can look at what a newer one makes of them:

    COMFYUI_DIR=FOLDER FUSEDREAM_SCREENSHOTS=FOLDER python scripts/dev.py soak -k templates

Models that must be downloaded are stood in for by files of their shapes with random values, whose
pictures are noise.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_server import ComfyServer, terminate_as_interrupt

from ..server.frontend import (
    BIGGAN,
    BUDGET,
    REFINE,
    TEMPLATES,
    assert_apart,
    browser,
    fit,
    open_template,
    page,
    run_by_the_button,
    set_widgets,
    shot,
)
from ..server.real_shapes import write_biggan_deep_256, write_vit_b_32_quickgelu

__all__ = ["browser", "page"]  # fixtures

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the name in the template
MODELS = {
    BIGGAN: {"num_candidates": 8, "num_steps": 2, "classes": "goldfish, tench, hen"},
    REFINE: {"steps": 1, "width": 128, "height": 128},
}
RENDERERS = {"classic": False, "nodes-2": True}


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A server that has a file for every model that the templates name."""
    base = tmp_path_factory.mktemp("templates")
    (base / "input").mkdir()
    shutil.copy(comfyui / "input" / "example.png", base / "input")
    models = base / "models"
    write_biggan_deep_256(models / "gan" / "biggan-deep-256")
    write_vit_b_32_quickgelu(models / "open_clip" / "ViT-B-32-quickgelu-openai")
    maker = Path(__file__).with_name("make_checkpoint.py")
    checkpoint = models / "checkpoints" / CHECKPOINT
    subprocess.run([sys.executable, str(maker), str(comfyui), str(checkpoint)], check=True)
    offline = {"HF_HUB_OFFLINE": "1"}
    with terminate_as_interrupt(), ComfyServer(comfyui, base, environment=offline) as started:
        yield started


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "renderer",
    [
        pytest.param(name, marks=pytest.mark.frontend({"Comfy.VueNodes.Enabled": vue}))
        for name, vue in RENDERERS.items()
    ],
)
def test_templates_run(page: Any, renderer: str, name: str) -> None:  # noqa: ANN401
    open_template(page, name)
    set_widgets(page, {**BUDGET, **MODELS.get(name, {})})
    run_by_the_button(page)
    fit(page)
    shot(page, f"{renderer}-{name}")
    assert_apart(page, name)
