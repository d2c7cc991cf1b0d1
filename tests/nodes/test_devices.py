"""The nodes where ComfyUI computes on a device that is not the CPU, and keeps models on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from ..elsewhere import ELSEWHERE, elsewhere, full_precision, needs_cuda

Run = Callable[..., Any]
STEPS = {"num_steps": 3, "num_augments": 2}
SEARCH = {"num_candidates": 20, "num_basis": 3}


def measure(_: object = None, torch_free_too: bool = False, **__: object) -> Any:  # noqa: ANN401
    """Memory in ComfyUI's way: all of it, and what PyTorch holds ready."""
    return (8 * 2**30, 0) if torch_free_too else 8 * 2**30


FLAGS = {  # what ComfyUI makes of them
    "--normalvram": "NORMAL_VRAM",
    "--lowvram": "LOW_VRAM",
    "--novram": "NO_VRAM",
    "--gpu-only": "HIGH_VRAM",
}


@pytest.fixture
def accelerator(
    pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, torch.device], ModuleType]:
    """ComfyUI's model management as on a machine with an accelerator, by memory flag.

    A pretended one has 8 GB.
    """

    def start(flag: str, device: torch.device) -> ModuleType:
        import comfy.model_management as management

        monkeypatch.setattr(management, "get_torch_device", lambda: device)
        if device == ELSEWHERE:
            monkeypatch.setattr(management, "get_free_memory", measure)
            monkeypatch.setattr(management, "get_total_memory", measure)
            monkeypatch.setattr(management, "soft_empty_cache", lambda *_: None)
        else:
            torch.cuda.init()  # as ComfyUI does when it starts with a device
        monkeypatch.setattr(management, "cpu_state", management.CPUState.GPU)
        monkeypatch.setattr(management, "vram_state", management.VRAMState[FLAGS[flag]])
        monkeypatch.setattr(management.args, "gpu_only", flag == "--gpu-only")
        monkeypatch.setattr(management, "current_loaded_models", [])
        monkeypatch.setattr(pack.module("nodes._models"), "_cache", {})  # none of the CPU's models
        return management

    return start


@pytest.fixture(scope="module", autouse=True)
def _few_candidates(pack: SimpleNamespace) -> Iterator[None]:
    """As few where a node leaves it to the device, and as many on both."""
    recipe = pack.module("fusedream_core.config.recipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "CANDIDATES_ON_ACCELERATOR", 20)
        patch.setattr(recipe, "CANDIDATES_ON_CPU", 20)
        yield


@pytest.fixture(scope="module")
def expected(run: Run, tiny_models: Path) -> dict[str, Any]:
    """What comes out on the CPU."""
    return use_all(run)


def use_all(run: Run) -> dict[str, Any]:
    """The outputs of every node that computes."""
    gan = run("FuseDreamLoadGAN", gan_name="tiny", precision="float32")[0]
    clip = run("FuseDreamLoadCLIP", clip_name="tiny", precision="float32")[0]
    other = run("FuseDreamLoadCLIP", clip_name="other", precision="float32")[0]
    lpips = run("FuseDreamLoadLPIPS", lpips_name="tiny.safetensors")[0]
    target = run("FuseDreamEncodePrompt", clip=clip, text="a blue dog")[0]
    all_ = {"gan": gan, "clip": clip, "target": target}
    bank = run("FuseDreamSeedBank", gan=gan, clip=clip, num_candidates=30)[0]
    basis, seeds, _ = run("FuseDreamSeedSearch", **all_, **SEARCH)
    found, *_ = run("FuseDreamSeedSearch", **all_, num_basis=3, bank=bank)
    image, latent, score, *_ = run("FuseDreamOptimize", **all_, **STEPS, basis=basis)
    chosen, *_ = run("FuseDreamOptimize", **all_, **STEPS, basis=found, selector=other)
    merged = run("FuseDreamMergeCLIP", gan=gan, clip_a=clip, clip_b=other)[0]
    both = run("FuseDreamEncodePrompt", clip=merged, text="a blue dog")[0]
    shown = run("FuseDreamImagePrompt", clip=clip, images=image, text="a dog")[0]
    again, *_ = run("FuseDreamLatentToBasis", gan=gan, clip=clip, target=shown, latent=latent)
    bases = {"foreground": basis, "background": again}
    pair = run("FuseDreamCompose", **all_, **STEPS, **bases, scale=0.5, lpips=lpips)
    inverted = run(
        "FuseDreamInvertImage", gan=gan, clip=clip, lpips=lpips, image=pair[0], num_steps=3
    )
    way = run("FuseDreamInterpolateLatents", gan=gan, first=latent, last=inverted[1], num_frames=3)
    decoded = run("FuseDreamDecodeLatent", gan=gan, latent=pair[4])
    ranked = run("FuseDreamAugCLIPScore", clip=clip, target=target, images=way[0])
    blended = run("FuseDreamPoissonBlend", foreground=image, background=pair[0], scale=0.5)
    return {
        "search": seeds,
        "optimize": image,
        "score": torch.tensor(score),
        "selector": chosen,
        "merge": both.features,
        "image prompt": shown.features,
        "compose": pair[0],
        "mask": pair[1],
        "invert": inverted[0],
        "interpolate": way[0],
        "decode": decoded[0],
        "rank": ranked[1],
        "blend": blended[0],
    }


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", ["elsewhere", pytest.param("cuda", marks=needs_cuda)])
def test_same_as_on_the_cpu(
    run: Run,
    expected: dict[str, Any],
    accelerator: Callable[[str, torch.device], ModuleType],
    flag: str,
    name: str,
) -> None:
    device = ELSEWHERE if name == "elsewhere" else torch.device("cuda", 0)
    management = accelerator(flag, device)
    with elsewhere() if device == ELSEWHERE else full_precision():
        found = use_all(run)
        assert {loaded.device for loaded in management.current_loaded_models} == {device}
        management.unload_all_models()
        # But for what ComfyUI wants elsewhere itself, all that nodes hand on is on the CPU.
        assert flag == "--gpu-only" or {v.device.type for v in found.values()} == {"cpu"}
        found = {name: value.cpu() for name, value in found.items()}
    for output, value in found.items():
        torch.testing.assert_close(value, expected[output], rtol=0, atol=1e-3, msg=output)
