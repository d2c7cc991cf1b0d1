"""Make the pictures that ComfyUI shows beside templates; ``dev.py thumbnails`` is what one types.

What the demo pair can make comes from a run of the template. Templates for models that are not in
the repository get a drawn card that says what they need.

    python scripts/dev.py thumbnails [NAME ...]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import environment
from comfy_client import ComfyClient, Prompt, Run
from comfy_server import ComfyServer, terminate_as_interrupt
from fusedream_core.models.catalogue import find_model
from stages import say, stage
from workflow import to_prompt

WORKFLOWS = environment.ROOT / "workflows"
SIDE = 384
MARGIN = 28
INK, PAPER, FAINT = "#f4f1fb", "#2b2344", "#b9aee0"


def megabytes(name: str) -> int:
    """The size of a model's files by the catalogue."""
    return find_model(name).megabytes


CARDS = {  # title, what it needs, how it goes
    "text_to_image_biggan256": (
        "Text to image, BigGAN",
        (
            f"BigGAN-deep-256 ({megabytes('biggan-deep-256')} MB)",
            f"CLIP ViT-B/32 ({megabytes('ViT-B-32-quickgelu-openai')} MB)",
        ),
        "prompt > search > optimize",
    ),
    "compose_then_refine": (
        "Compose, then refine",
        ("a Stable Diffusion 1.5", "checkpoint (2 GB)"),
        "paste > mask the seam > sample",
    ),
}


def to_picture(client: ComfyClient, image: dict[str, str]) -> Image.Image:
    """A picture that the server keeps."""
    return Image.open(io.BytesIO(client.view(image))).convert("RGB")


def shown(client: ComfyClient, run: Run, prompt: Prompt, node_class: str) -> list[Image.Image]:
    """The pictures of the first node of a class."""
    node = next(id_ for id_ in prompt if prompt[id_]["class_type"] == node_class)
    return [to_picture(client, image) for image in run.outputs[node]["images"]]


def sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Square pictures in rows, as one square picture."""
    side = SIDE // columns
    made = Image.new("RGB", (SIDE, side * -(-len(pictures) // columns)))
    for number, picture in enumerate(pictures):
        place = (side * (number % columns), side * (number // columns))
        made.paste(picture.resize((side, side), Image.Resampling.LANCZOS), place)
    return made


def morph(client: ComfyClient, run: Run, prompt: Prompt) -> Image.Image:
    """Nine frames on the way, in the order of reading."""
    frames = shown(client, run, prompt, "SaveImage")
    return sheet([frames[round(i * (len(frames) - 1) / 8)] for i in range(9)], columns=3)


def from_a_picture(client: ComfyClient, run: Run, prompt: Prompt) -> Image.Image:
    """What was made of the picture, with what the GAN makes of it alone in a corner."""
    made = sheet(shown(client, run, prompt, "SaveImage")[:1], columns=1)
    corner = shown(client, run, prompt, "PreviewImage")[0].resize((SIDE // 3, SIDE // 3))
    made.paste(corner, (SIDE - corner.width, SIDE - corner.height))
    return made


FROM_RUNS: dict[str, Callable[[ComfyClient, Run, Prompt], Image.Image]] = {
    "morph_between_prompts": morph,
    "start_from_a_picture": from_a_picture,
}


def draw_card(title: str, needs: Sequence[str], way: str) -> Image.Image:
    """A card that says what a template needs."""
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(card)
    draw.rounded_rectangle((10, 10, SIDE - 11, SIDE - 11), 18, outline=FAINT, width=2)

    def write(text: str, top: int, size: int, color: str) -> None:
        font = ImageFont.load_default(size)
        while draw.textlength(text, font) > SIDE - 2 * MARGIN:
            size -= 1
            font = ImageFont.load_default(size)
        draw.text((MARGIN, top), text, color, font)

    write(title, 52, 34, INK)
    draw.line((MARGIN, 112, SIDE - MARGIN, 112), FAINT, 2)
    write("needs", 138, 20, FAINT)
    for number, need in enumerate(needs):
        write(need, 168 + 36 * number, 26, INK)
    write(way, 312, 22, FAINT)
    return card


def run_template(client: ComfyClient, name: str) -> tuple[Run, Prompt]:
    """Run a template as it is shipped."""
    workflow: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, client.object_info())
    return client.run(prompt).raise_for_status(), prompt


def make_from_runs(names: Sequence[str]) -> None:
    """Run templates on a server, and write their thumbnails."""
    comfyui = Path(os.environ[environment.COMFYUI_VARIABLE])
    with tempfile.TemporaryDirectory(prefix="fusedream-", ignore_cleanup_errors=True) as base:
        (Path(base) / "input").mkdir()
        shutil.copy(comfyui / "input" / "example.png", Path(base) / "input")
        with ComfyServer(comfyui, Path(base), environment={"HF_HUB_OFFLINE": "1"}) as server:
            client = ComfyClient(server.url)
            for name in names:
                with stage(name):
                    save(FROM_RUNS[name](client, *run_template(client, name)), name)


def save(picture: Image.Image, name: str) -> None:
    """Write a thumbnail where ComfyUI looks for it."""
    picture.save(WORKFLOWS / f"{name}.jpg", quality=88, optimize=True)


def main() -> int:
    """Make those that are asked for."""
    parser = argparse.ArgumentParser(prog="dev.py thumbnails")
    parser.add_argument("names", nargs="*", choices=[*CARDS, *FROM_RUNS, []], help="default: all")
    names = parser.parse_args().names or [*CARDS, *FROM_RUNS]
    for name in [name for name in names if name in CARDS]:
        save(draw_card(*CARDS[name]), name)
    runs = [name for name in names if name in FROM_RUNS]
    if runs:
        with terminate_as_interrupt():
            make_from_runs(runs)
    say(f"Written to {WORKFLOWS}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
