"""Cancels, kills, flags, and many prompts in a row, on real servers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_client import ClientError, ComfyClient, Prompt
from comfy_server import SCRIPTS, ComfyServer, has_accelerator

from ..server.real_shapes import write_biggan_deep_256, write_vit_b_32_quickgelu
from .conftest import make_prompt, pixels, resident

Start = Callable[..., ComfyServer]
LONG = 10_000


def taken(server: ComfyServer) -> float:
    """Memory in MB: what PyTorch holds on the accelerator, or what is resident without one."""
    if not has_accelerator():
        return resident(server)
    (device,) = ComfyClient(server.url).system_stats()["devices"]
    return float(device["torch_vram_total"]) / 2**20


class Once:
    """Does something when a node starts: the first of a class, or the first of all."""

    def __init__(self, prompt: Prompt, node_class: str | None, action: Callable[[], None]) -> None:
        self.action, self.done = action, False
        self.ids = [id_ for id_, node in prompt.items() if node_class in (None, node["class_type"])]

    def __call__(self, kind: str, data: Any) -> None:  # noqa: ANN401
        if kind == "executing" and data.get("node") in self.ids and not self.done:
            self.done = True
            self.action()


def same_as_on_a_fresh_server(client: ComfyClient, start: Start, name: str) -> bool:
    """Whether a workflow still makes the pixels that it makes elsewhere."""
    fresh = ComfyClient(start(base="fresh").url)
    after, expected = (
        pixels(one, one.run(make_prompt(one, name, seed=7)).raise_for_status())
        for one in (client, fresh)
    )
    return np.array_equal(after, expected)


class TestCancel:
    @pytest.mark.parametrize(
        ("name", "node_class", "longer"),
        [
            ("text_to_image", "FuseDreamSeedBank", {"num_candidates": LONG, "bank": True}),
            ("text_to_image", "FuseDreamSeedSearch", {"num_candidates": LONG}),
            ("text_to_image", "FuseDreamOptimize", {"num_steps": LONG}),
            ("composition", "FuseDreamCompose", {"num_steps": LONG}),
            ("start_from_a_picture", "FuseDreamInvertImage", {"num_steps": LONG}),
            ("rank_images_with_augclip", "FuseDreamAugCLIPScore", {"num_augments": 512}),
        ],
    )
    def test_twenty_times_and_then_as_on_a_fresh_server(
        self, start: Start, name: str, node_class: str, longer: dict[str, int]
    ) -> None:
        server, moments = start(), random.Random(0)  # noqa: S311 - no secret
        client = ComfyClient(server.url)
        for turn in range(20):
            stop = threading.Timer(moments.uniform(0.05, 2.0), client.interrupt)
            prompt = make_prompt(client, name, seed=turn, **longer)
            run = client.run(prompt, on_event=Once(prompt, node_class, stop.start))
            assert run.status == "interrupted", turn
        assert same_as_on_a_fresh_server(client, start, name)

    @pytest.mark.parametrize("name", ["start_from_a_picture", "morph_between_prompts"])
    def test_twenty_times_in_whatever_node_runs(
        self, start: Start, name: str, tell: Callable[[str], None]
    ) -> None:
        """The nodes that are too short to wait for, loaders among them."""
        server, moments = start(), random.Random(0)  # noqa: S311 - no secret
        client, hit = ComfyClient(server.url), list[str]()
        client.run(make_prompt(client, name, seed=98)).raise_for_status()
        client.free()
        begin = time.monotonic()
        client.run(make_prompt(client, name, seed=99)).raise_for_status()
        seconds = time.monotonic() - begin
        for turn in range(20):
            client.free()
            stop = threading.Timer(moments.uniform(0.0, seconds), client.interrupt)
            prompt = make_prompt(client, name, seed=turn)
            run = client.run(prompt, on_event=Once(prompt, None, stop.start))
            stop.cancel()
            assert run.status in ("interrupted", "success"), turn
            if run.status == "interrupted":
                hit += [prompt[d["node_id"]]["class_type"] for d in run.of("execution_interrupted")]
        tell(f"cancelled in {', '.join(sorted(set(hit)))}")
        assert len(hit) > 5
        assert same_as_on_a_fresh_server(client, start, name)


class TestKill:
    def test_nothing_half_written_is_read(self, start: Start, tmp_path: Path) -> None:
        moments = random.Random(1)  # noqa: S311 - no secret
        for turn in range(5):
            server = start()
            client = ComfyClient(server.url)
            prompt = make_prompt(client, seed=turn)
            (optimize,) = (i for i, n in prompt.items() if n["class_type"] == "FuseDreamOptimize")
            save = {"latent": [optimize, 1], "filename_prefix": "latent"}
            prompt["save"] = {"class_type": "FuseDreamSaveLatent", "inputs": save}
            bank = {"gan": ["1", 0], "clip": ["2", 0], "num_candidates": 60, "truncation": 0.0}
            prompt["bank"] = {"class_type": "FuseDreamSeedBank", "inputs": {**bank, "seed": turn}}
            prompt["search"] = {
                "class_type": "FuseDreamSeedSearch",
                "inputs": {
                    **next(
                        n["inputs"]
                        for n in prompt.values()
                        if n["class_type"] == "FuseDreamSeedSearch"
                    ),
                    "bank": ["bank", 0],
                },
            }
            look = {"images": ["search", 1], "filename_prefix": "bank"}
            prompt["look"] = {"class_type": "SaveImage", "inputs": look}
            kill = threading.Timer(moments.uniform(0.5, 6.0), server.process.kill)  # type: ignore[union-attr]
            kill.start()
            with contextlib.suppress(ClientError, OSError):
                client.run(prompt)
            kill.cancel()
            server.stop()
        server = start()
        client = ComfyClient(server.url)
        client.run(make_prompt(client, seed=99)).raise_for_status()
        names = client.object_info()["FuseDreamLoadLatent"]["input"]["required"]["latent_name"]
        options = names[0] if isinstance(names[0], list) else names[1]["options"]
        for name in [name for name in options if name.endswith("[output]")]:
            node = {"class_type": "FuseDreamLoadLatent", "inputs": {"latent_name": name}}
            show = {"class_type": "PreviewAny", "inputs": {"source": ["load", 1]}}
            client.run({"load": node, "show": show}).raise_for_status()
        for path in (tmp_path / "base" / "output").rglob("*.png"):
            if not path.name.startswith(("FuseDream", "bank")):
                continue
            try:
                with Image.open(path) as picture:
                    picture.load()
            except OSError:  # ComfyUI's own node writes pictures in place
                pytest.xfail("ComfyUI's SaveImage was killed within a picture")
        assert not [line for line in server.log.splitlines() if "nodes/latent.py" in line]

    def test_interrupt_signal_leaves_nothing_running(self, start: Start) -> None:
        server = start()
        assert server.process is not None
        server.process.send_signal(signal.SIGINT)
        server.process.wait(30)


class TestMemory:
    def test_fifty_prompts_in_a_row(self, start: Start, tell: Callable[[str], None]) -> None:
        server = start()
        client = ComfyClient(server.url)
        marks = []
        for turn in range(50):
            client.run(make_prompt(client, seed=turn)).raise_for_status()
            marks.append(resident(server))
        settled, last = np.mean(marks[10:20]), np.mean(marks[40:])
        tell(f"resident after 10-20 prompts {settled:.0f} MB, after 40-50 {last:.0f} MB")
        assert last < 1.03 * settled, marks

    def test_free_gives_it_back(
        self, start: Start, tell: Callable[[str], None], tmp_path: Path
    ) -> None:
        """With weights of real size: those of the demo models are lost in the rest."""
        models = tmp_path / "base" / "models"
        write_biggan_deep_256(models / "gan" / "biggan-deep-256")
        write_vit_b_32_quickgelu(models / "open_clip" / "ViT-B-32-quickgelu-openai")
        weights = sum(p.stat().st_size for p in models.rglob("*") if p.is_file()) / 2**20
        server = start()
        client = ComfyClient(server.url)
        few = {"num_candidates": 8, "classes": "goldfish, tench, hen", "precision": "float32"}
        share = 0.9 if has_accelerator() else 1.0  # what it gives is had in pieces of some MB
        before = taken(server)
        for turn in range(3):
            prompt = make_prompt(client, "text_to_image_biggan256", seed=turn, **few)
            client.run(prompt).raise_for_status()
            used = taken(server)
            client.free()
            deadline = time.monotonic() + 30  # the server frees when it next looks at its queue
            while taken(server) > used - share * weights and time.monotonic() < deadline:
                time.sleep(0.2)
            freed = taken(server)
            tell(f"weights {weights:.0f}, before {before:.0f}, used {used:.0f}, freed {freed:.0f}")
            assert freed < used - share * weights


class TestFlags:
    @pytest.mark.parametrize("name", ["text_to_image", "composition"])
    def test_a_device_makes_the_same_picture_under_each(
        self, start: Start, name: str, tell: Callable[[str], None]
    ) -> None:
        if not has_accelerator():
            pytest.skip("ComfyUI takes no other beside --cpu; see tests/nodes/test_devices.py")
        made = {}
        for flag in ("--normalvram", "--lowvram", "--novram", "--highvram", "--gpu-only"):
            server = start(flag, base=flag)
            client = ComfyClient(server.url)
            begin = time.monotonic()
            run = client.run(make_prompt(client, name, seed=1)).raise_for_status()
            tell(f"{flag}: {time.monotonic() - begin:.1f} s, {taken(server):.0f} MB")
            made[flag] = pixels(client, run)
            server.stop()
        for flag, picture in made.items():
            assert np.array_equal(picture, made["--normalvram"]), flag

    def test_cpu(self, start: Start) -> None:
        client = ComfyClient(start("--cpu").url)
        run = client.run(make_prompt(client, seed=1)).raise_for_status()
        assert pixels(client, run).shape == (128, 128, 3)


class TestTwoModels:
    def test_queued_one_after_the_other(self, start: Start, tmp_path: Path) -> None:
        """Another GAN's prompt in between leaves the first one's pictures as they were."""
        server = start()
        client = ComfyClient(server.url)
        plain = make_prompt(client, seed=5)
        half = make_prompt(client, seed=5, precision="bfloat16")
        first = pixels(client, client.run(plain).raise_for_status())
        other = pixels(client, client.run(half).raise_for_status())
        again = pixels(client, client.run(make_prompt(client, seed=5)).raise_for_status())
        client.submit(make_prompt(client, seed=6), client_id="a")
        client.run(make_prompt(client, seed=7, precision="bfloat16")).raise_for_status()
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


class TestGpuCommand:
    def test_a_rehearsal_goes_through_all_parts(
        self, comfyui: Path, tmp_path: Path, tell: Callable[[str], None]
    ) -> None:
        """Without a GPU, on models of no size."""
        command = [sys.executable, str(SCRIPTS / "gpu.py"), "--out", str(tmp_path)]
        command += ["--device", "cpu", "--small", "--minutes", "120"]
        variables = {**os.environ, "COMFYUI_DIR": str(comfyui)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        tell(done.stderr)
        found = [json.loads(path.read_text("utf-8")) for path in sorted(tmp_path.glob("*.json"))]
        assert len(found) == 8
        assert [one["part"] for one in found if one["status"] != "passed"] == []
        assert done.returncode == 0
