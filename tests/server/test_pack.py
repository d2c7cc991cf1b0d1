"""The pack in a real server: import, caching, Cancel, restart, workflows, mistakes.

Budgets are small, so the pictures are poor; what is tested is the plumbing.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import demo
from comfy_client import (
    PREVIEW,
    ClientError,
    ComfyClient,
    ExecutionError,
    Prompt,
    PromptRejectedError,
    Run,
)
from comfy_server import PACK, ComfyServer
from workflow import to_prompt

from .real_shapes import write_biggan_deep_256, write_vit_b_32_quickgelu

pytestmark = pytest.mark.server

WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))
# Needs a checkpoint, and there is none.
REFINE = PACK / "workflows" / "compose_then_refine.json"
# Needs files of 800 MB, which are made for the one test that has them.
BIGGAN = PACK / "workflows" / "text_to_image_biggan256.json"
BUDGET = {"num_candidates": 24, "num_steps": 4, "num_augments": 4}
LONG = 10_000

SEARCH = "FuseDreamSeedSearch"
OPTIMIZE = "FuseDreamOptimize"
COMPOSE = "FuseDreamCompose"
CHECKPOINT = "CheckpointLoaderSimple"
ENCODE = "FuseDreamEncodePrompt"


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def set_inputs(prompt: Prompt, class_type: str | None = None, **values: object) -> Prompt:
    """Set inputs by name wherever they occur, in the nodes of one type or in all."""
    for node in prompt.values():
        if class_type in (None, node["class_type"]):
            known = {name: value for name, value in values.items() if name in node["inputs"]}
            node["inputs"].update(known)
    return prompt


def ids(prompt: Prompt, *class_types: str) -> set[str]:
    return {id_ for id_, node in prompt.items() if node["class_type"] in class_types}


def downstream(prompt: Prompt, id_: str) -> set[str]:
    """A node and all that hangs on it."""
    found = {id_}
    while True:
        linked = {
            other
            for other, node in prompt.items()
            for value in node["inputs"].values()
            if isinstance(value, list) and value[0] in found
        }
        if linked <= found:
            return found
        found |= linked


def rank_prompt(object_info: dict[str, Any], width: int, height: int) -> Prompt:
    """The shipped ranking workflow on plain pictures of a given size."""
    path = PACK / "workflows" / "rank_images_with_augclip.json"
    prompt = set_inputs(to_prompt(read(path), object_info), **BUDGET)
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            node["class_type"] = "EmptyImage"
            size = {"width": width, "height": height, "batch_size": 2, "color": 0xFF0000}
            node["inputs"] = size
    return prompt


def pixels(client: ComfyClient, run: Run) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(client.view(demo.saved_image(run)))))


@pytest.fixture
def make_prompt(object_info: dict[str, Any]) -> Callable[..., Prompt]:
    """A shipped workflow, text to image unless said otherwise, with a small budget.

    It searches anew: over the bank there would be nothing to watch or to cancel.
    """

    def make(name: str = "text_to_image", **values: object) -> Prompt:
        prompt = to_prompt(read(PACK / "workflows" / f"{name}.json"), object_info)
        for id_ in ids(prompt, "FuseDreamSeedBank"):
            del prompt[id_]
        for id_ in ids(prompt, SEARCH):
            prompt[id_]["inputs"].pop("bank", None)
        return set_inputs(prompt, **{**BUDGET, **values})

    return make


class TestImport:
    def test_all_nodes_are_there(self, server: ComfyServer, object_info: dict[str, Any]) -> None:
        assert server.missing_nodes() == []
        assert len([name for name in object_info if name.startswith("FuseDream")]) >= 20

    def test_says_nothing(self, server: ComfyServer) -> None:
        """The only line about the pack is ComfyUI's own, with the seconds."""
        before_serving = server.log.split("Starting server")[0]
        lines = [line for line in before_serving.splitlines() if "fusedream" in line.lower()]
        assert len(lines) == 1
        assert "seconds:" in lines[0]


class TestCache:
    def test_the_second_time_nothing_runs(
        self, client: ComfyClient, make_prompt: Callable[..., Prompt]
    ) -> None:
        first = client.run(make_prompt(seed=11)).raise_for_status()
        assert ids(make_prompt(), SEARCH, OPTIMIZE) <= set(first.executed)
        again = client.run(make_prompt(seed=11)).raise_for_status()
        assert again.executed == []
        assert again.cached == set(make_prompt())

    @pytest.mark.parametrize("changed", [SEARCH, OPTIMIZE])
    def test_a_new_seed_runs_what_hangs_on_it(
        self, client: ComfyClient, make_prompt: Callable[..., Prompt], changed: str
    ) -> None:
        client.run(make_prompt(seed=21)).raise_for_status()
        prompt = set_inputs(make_prompt(seed=21), changed, seed=22)
        run = client.run(prompt).raise_for_status()
        (id_,) = ids(prompt, changed)
        assert set(run.executed) == downstream(prompt, id_)
        assert run.cached == set(prompt) - set(run.executed)

    def test_a_restart_gives_the_same_pixels(
        self,
        client: ComfyClient,
        comfyui: Path,
        tmp_path: Path,
        make_prompt: Callable[..., Prompt],
    ) -> None:
        prompt = make_prompt(seed=31)
        before = pixels(client, client.run(prompt).raise_for_status())
        with ComfyServer(comfyui, tmp_path) as fresh:
            other = ComfyClient(fresh.url)
            after = pixels(other, other.run(prompt).raise_for_status())
        assert np.array_equal(before, after)
        varied = client.run(make_prompt(seed=32)).raise_for_status()
        assert not np.array_equal(before, pixels(client, varied))


class TestProgressAndCancel:
    def test_progress_with_preview(
        self, client: ComfyClient, make_prompt: Callable[..., Prompt]
    ) -> None:
        prompt = make_prompt(seed=41, num_steps=40)
        run = client.run(prompt).raise_for_status()
        for id_ in ids(prompt, SEARCH, OPTIMIZE):
            values = [data["value"] for data in run.of("progress") if data["node"] == id_]
            assert len(set(values)) > 1
        assert run.of(PREVIEW)

    @pytest.mark.parametrize(
        ("node", "least"),
        [(SEARCH, 0), (OPTIMIZE, 0), (COMPOSE, 0), (COMPOSE, LONG)],
        ids=["search", "optimize", "compose, in the pre-search", "compose, in the steps"],
    )
    def test_cancel_stops_it_and_leaves_the_server_sound(
        self,
        client: ComfyClient,
        make_prompt: Callable[..., Prompt],
        node: str,
        least: int,
    ) -> None:
        """In the stage that it was asked in; the nodes' tests count the steps until it stops."""
        budget = {"num_candidates": LONG} if node == SEARCH else {"num_steps": LONG}
        name = "composition" if node == COMPOSE else "text_to_image"
        prompt = make_prompt(name, seed=51, **budget)
        (id_,) = ids(prompt, node)
        totals: list[int] = []  # of the stage that is cancelled; it has at least ``least`` steps

        def cancel_in_the_middle(kind: str, data: dict[str, Any]) -> None:
            at_work = kind == "progress" and data["node"] == id_ and data["value"] > 1
            if at_work and data["max"] >= least and not totals:
                client.interrupt()
                totals.append(data["max"])

        run = client.run(prompt, on_event=cancel_in_the_middle)
        assert run.status == "interrupted"
        assert [data["node_id"] for data in run.of("execution_interrupted")] == [id_]
        if node == COMPOSE:
            assert (totals[0] < LONG) == (least == 0)
        reached = [data["value"] for data in run.of("progress") if data["node"] == id_]
        assert reached[-1] < LONG
        client.run(make_prompt(seed=52)).raise_for_status()


class TestWorkflows:
    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
    def test_valid_as_shipped(
        self, client: ComfyClient, object_info: dict[str, Any], path: Path
    ) -> None:
        prompt = to_prompt(read(path), object_info)
        if path != REFINE:
            client.cancel(client.submit(prompt, client_id="validation"))
            return
        with pytest.raises(PromptRejectedError, match="ckpt_name") as refusal:
            client.submit(prompt, client_id="validation")
        assert set(refusal.value.node_errors) == ids(prompt, CHECKPOINT)

    @pytest.mark.parametrize(
        "path",
        [path for path in WORKFLOWS if path not in (REFINE, BIGGAN)],
        ids=lambda path: path.stem,
    )
    def test_runs(self, client: ComfyClient, object_info: dict[str, Any], path: Path) -> None:
        prompt = set_inputs(to_prompt(read(path), object_info), **BUDGET)
        run = client.run(prompt).raise_for_status()
        assert client.view(demo.saved_image(run)).startswith(b"\x89PNG")


class TestBigGan256:
    @pytest.fixture
    def models(self, server: ComfyServer) -> Iterator[Path]:
        """Files of the true names, shapes and types, where a download would put them."""
        models = server.base / "models"
        folders = (
            models / "gan" / "biggan-deep-256",
            models / "open_clip" / "ViT-B-32-quickgelu-openai",
        )
        write_biggan_deep_256(folders[0])
        write_vit_b_32_quickgelu(folders[1])
        yield models
        for folder in folders:
            shutil.rmtree(folder)

    def test_without_files_it_says_what_to_do(
        self, client: ComfyClient, object_info: dict[str, Any]
    ) -> None:
        prompt = to_prompt(read(BIGGAN), object_info)
        with pytest.raises(ExecutionError, match="HF_HUB_OFFLINE is set") as caught:
            client.run(prompt).raise_for_status()
        assert "https://" in str(caught.value)
        assert "by hand, and save it as" in str(caught.value)

    def test_runs_on_files_of_the_true_shape(
        self, client: ComfyClient, object_info: dict[str, Any], models: Path
    ) -> None:
        budget = {"num_candidates": 8, "num_steps": 2, "num_augments": 2}
        few = "goldfish, tench, hen"  # reading a thousand names would take a minute
        prompt = set_inputs(to_prompt(read(BIGGAN), object_info), **budget, classes=few)
        run = client.run(prompt).raise_for_status()
        assert pixels(client, run).shape == (256, 256, 3)
        client.free()


class TestLinkedNames:
    """A loader's model is named by a text, by way of a switch where ComfyUI has one."""

    @pytest.fixture
    def make_linked(
        self, object_info: dict[str, Any], make_prompt: Callable[..., Prompt]
    ) -> Callable[[str], Prompt]:
        def make(name: str) -> Prompt:
            prompt, source = make_prompt(seed=81), ["text", 0]
            prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": name}}
            if "ComfySwitchNode" in object_info:  # came after 0.3.75
                inputs = {"on_false": source, "on_true": source, "switch": True}
                prompt["switch"] = {"class_type": "ComfySwitchNode", "inputs": inputs}
                source = ["switch", 0]
            return set_inputs(prompt, "FuseDreamLoadGAN", gan_name=source)

        return make

    def test_runs(
        self,
        client: ComfyClient,
        make_prompt: Callable[..., Prompt],
        make_linked: Callable[[str], Prompt],
    ) -> None:
        expected = client.run(make_prompt(seed=81)).raise_for_status()
        made = client.run(make_linked("demo")).raise_for_status()
        assert np.array_equal(pixels(client, made), pixels(client, expected))

    def test_a_wrong_one_is_said_when_it_runs(
        self, client: ComfyClient, make_linked: Callable[[str], Prompt]
    ) -> None:
        with pytest.raises(ExecutionError, match="There is no model 'gone'"):
            client.run(make_linked("gone")).raise_for_status()

    def test_a_number_is_refused_by_its_type(
        self, client: ComfyClient, make_linked: Callable[[str], Prompt]
    ) -> None:
        prompt = make_linked("demo")
        prompt["text"] = {"class_type": "PrimitiveInt", "inputs": {"value": 3}}
        with pytest.raises(ClientError, match=r"mismatch|is a text, .* but 3 was given"):
            client.run(prompt).raise_for_status()


class TestComposition:
    def test_all_of_it(self, client: ComfyClient, make_prompt: Callable[..., Prompt]) -> None:
        prompt = make_prompt("composition", seed=61)
        run = client.run(prompt).raise_for_status()
        (id_,) = ids(prompt, COMPOSE)
        shown = [data["value"] for data in run.of("progress") if data["node"] == id_]
        assert len(set(shown)) > 1
        assert run.of(PREVIEW)
        assert pixels(client, run).shape == (128, 128, 3)
        texts = [out["text"][0] for out in run.outputs.values() if "text" in out]
        assert len(texts) == 3  # score, placement, report
        report = max(texts, key=len)
        assert report.splitlines().count("Placements, best first:") == 1
        assert len([text for text in texts if text in report]) == 2  # the placement and itself

    def test_the_basis_is_of_more_than_one_class(
        self, client: ComfyClient, object_info: dict[str, Any]
    ) -> None:
        """As shipped, with as many candidates as a person gets."""
        prompt = to_prompt(read(PACK / "workflows" / "composition.json"), object_info)
        (search,) = ids(prompt, SEARCH)
        for id_ in downstream(prompt, search) - {search}:
            del prompt[id_]
        show = {"class_type": "PreviewAny", "inputs": {"source": [search, 2]}}
        prompt["scores"] = {**show, "_meta": {"title": "Scores"}}
        run = client.run(prompt).raise_for_status()
        lines = run.outputs["scores"]["text"][0].splitlines()
        classes = [line.split(maxsplit=2)[2] for line in lines if line[:1].isdigit()]
        assert len(classes) == 16
        assert len(set(classes)) > 1

    def test_another_place_needs_no_new_search(
        self, client: ComfyClient, make_prompt: Callable[..., Prompt]
    ) -> None:
        client.run(make_prompt("composition", seed=61)).raise_for_status()
        prompt = make_prompt("composition", seed=61, position="left", scale=0.5)
        run = client.run(prompt).raise_for_status()
        (id_,) = ids(prompt, COMPOSE)
        assert set(run.executed) == downstream(prompt, id_)
        assert "left 0.5" in [out["text"][0] for out in run.outputs.values() if "text" in out]

    def test_without_lpips(self, client: ComfyClient, make_prompt: Callable[..., Prompt]) -> None:
        prompt = make_prompt("composition", seed=61, position="left")
        for id_ in ids(prompt, COMPOSE):
            del prompt[id_]["inputs"]["lpips"]
        with pytest.raises(ExecutionError, match="needs a perceptual model"):
            client.run(prompt).raise_for_status()
        client.run(set_inputs(prompt, consistency="none")).raise_for_status()


class TestRefine:
    def test_the_ring_lies_along_the_border_of_the_paste(
        self, client: ComfyClient, make_prompt: Callable[..., Prompt]
    ) -> None:
        """All that needs no checkpoint is run."""
        prompt = make_prompt(REFINE.stem, seed=71, position="center", scale=0.5)
        (loader,) = ids(prompt, CHECKPOINT)
        for id_ in downstream(prompt, loader):
            del prompt[id_]
        run = client.run(prompt).raise_for_status()
        (id_,) = ids(prompt, "MaskPreview")
        shown = client.view(run.outputs[id_]["images"][0])
        ring = np.asarray(Image.open(io.BytesIO(shown)).convert("L")) > 127
        assert ring.shape == (512, 512)
        for line in (ring[256], ring[:, 256]):  # the paste goes from 128 to 384
            assert np.flatnonzero(np.diff(line.astype(int))).tolist() == [103, 151, 359, 407]


class TestMistakes:
    """One clear sentence each, of our own, by way of the queue."""

    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ({"text": "  "}, r"(?i)prompt.*empty|empty.*prompt"),
            ({"num_candidates": 0}, r"(?i)candidate"),
            ({"num_candidates": 3, "num_basis": 5}, r"(?i)candidate|basis"),
            ({"classes": "unicornfish"}, r"unicornfish"),
        ],
        ids=["empty prompt", "no candidates", "k above M", "unknown class"],
    )
    def test_said(
        self,
        client: ComfyClient,
        make_prompt: Callable[..., Prompt],
        values: dict[str, Any],
        sentence: str,
    ) -> None:
        with pytest.raises(ClientError, match=sentence) as complaint:
            client.run(make_prompt(**values)).raise_for_status()
        assert "Traceback" not in str(complaint.value)

    def test_the_largest_seed_is_accepted(
        self, client: ComfyClient, make_prompt: Callable[..., Prompt]
    ) -> None:
        assert client.run(make_prompt(seed=2**64 - 1)).raise_for_status().outputs

    def test_a_long_prompt_is_cut(
        self, client: ComfyClient, make_prompt: Callable[..., Prompt]
    ) -> None:
        assert client.run(make_prompt(text="a red apple " * 100)).raise_for_status().outputs

    def test_pictures_of_odd_sizes_are_scored(
        self, client: ComfyClient, object_info: dict[str, Any]
    ) -> None:
        assert client.run(rank_prompt(object_info, width=33, height=70)).raise_for_status().outputs

    def test_a_single_pixel_is_refused(
        self, client: ComfyClient, object_info: dict[str, Any]
    ) -> None:
        with pytest.raises(ExecutionError, match="1 x 1 pixels"):
            client.run(rank_prompt(object_info, width=1, height=1)).raise_for_status()
