"""ComfyUI's cache under memory pressure knows how large banks, bases and latents are."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

Run = Callable[..., Any]
GB = 1024**3


def counted(outputs: object) -> int:
    """Bytes as newer versions of the cache count them: of tensors in lists and tuples alone."""
    if isinstance(outputs, Tensor):
        return outputs.numel() * outputs.element_size() if outputs.device.type == "cpu" else 0
    if isinstance(outputs, (list, tuple)):
        return sum(map(counted, outputs))
    return 0


@pytest.fixture
def outputs(pack: SimpleNamespace, gan: object, clip: object, target: object) -> dict[str, Any]:
    """What ComfyUI caches of nodes whose outputs are records."""
    execute = {node_id: node.EXECUTE_NORMALIZED for node_id, node in pack.nodes.items()}
    with torch.inference_mode():
        bank = execute["FuseDreamSeedBank"](
            gan=gan, clip=clip, num_candidates=50, truncation=0.5, seed=0
        )
        basis = execute["FuseDreamSeedSearch"](
            gan=gan,
            clip=clip,
            target=target,
            seed=0,
            num_candidates=12,
            num_basis=3,
            truncation=0.5,
            classes="",
            max_per_class=0,
            preset="default",
        )
        prompt = execute["FuseDreamEncodePrompt"](clip=clip, text="a dog")
    return {"bank": bank.args[0], "basis": basis.args[0], "target": prompt.args[0]}


def test_sizes(outputs: dict[str, Any]) -> None:
    bank, basis, target = (outputs[name].record for name in ("bank", "basis", "target"))
    expected = {
        "bank": bank.features.nbytes + bank.class_index.nbytes,
        "basis": sum(
            tensor.nbytes
            for tensor in (basis.latent.z, basis.latent.y, basis.scores, basis.class_index)
        ),
        "target": target.features.nbytes,
    }
    assert min(expected.values()) > 0
    assert {name: value.get_ram_usage() for name, value in outputs.items()} == expected
    assert {name: counted([[value]]) for name, value in outputs.items()} == expected


def test_the_largest_goes_first(
    pack: SimpleNamespace, outputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the cache of the ComfyUI that is here, beside an image that is less than half as large."""
    caching = pytest.importorskip("comfy_execution.caching")
    if not hasattr(getattr(caching, "RAMPressureCache", None), "poll"):
        pytest.skip("this ComfyUI asks in another way, see test_sizes, or never")
    image = torch.zeros(outputs["bank"].get_ram_usage() // 16)
    cache = caching.RAMPressureCache(None)
    cache.cache = {"bank": ([[outputs["bank"]]], None), "image": ([[image]], None)}
    cache.used_generation = {"bank": 0, "image": 0}
    cache.timestamps = {"bank": 2.0, "image": 1.0}  # by age alone the image would go

    def memory() -> SimpleNamespace:
        return SimpleNamespace(available=100 * GB if len(cache.cache) < 2 else 0)

    monkeypatch.setattr(psutil, "virtual_memory", memory)
    cache.poll(ram_headroom=1.0)
    assert list(cache.cache) == ["image"]


def test_what_travels_is_shown_by_its_name(outputs: dict[str, Any]) -> None:
    """Nodes that show any value print it."""
    assert str(outputs["bank"]) == "<Bank>"
