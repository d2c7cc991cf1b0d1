"""A step of AugCLIP: the reference code's against ours, and the noise of its gradient."""

from __future__ import annotations

import copy
import gc
import math
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

import fusedream_core as core
from _measures import forget_peak, peak_memory
from _peers import reference_copies
from _timing import PROMPTS, Row, compare, demo_on, flops_of, flops_per_second
from fusedream_core.augclip.augment import NUM_DRAWN, params_at
from fusedream_core.config import DEFAULT, REFERENCE_CODE
from fusedream_core.rng import independent, make_generator, stratified


def step_calls(num: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """One step's gradient at a picture of 256 px, under a ViT-B-32 of random weights."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None).eval().requires_grad_(False)
    model = model.to(device)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    clip = core.OpenClip(copy.deepcopy(model), tokenizer, clip_id="random").to(device)
    target = core.encode_target(clip, "a blue dog")
    tokens = tokenizer(["a blue dog"]).to(device)
    image = torch.rand(1, 3, 256, 256).to(device) * 2 - 1
    draws, theirs = make_generator(0), torch.Generator(device).manual_seed(0)

    def reference() -> None:
        leaf = image.clone().requires_grad_()
        copies = reference_copies(leaf, num, 224, theirs)
        pixels = ((copies + 1) / 2 - clip.mean) / clip.std
        features = F.normalize(model.encode_image(pixels), dim=-1)
        text = F.normalize(model.encode_text(tokens), dim=-1)[0]  # anew at each step, as there
        (features @ text).mean().backward()

    def ours(clip_batch: int | None) -> None:
        leaf = image.clone().requires_grad_()
        params = core.sample_params(num, 256, 256, config=DEFAULT.augment, generator=draws)
        score = core.aug_clip_score(leaf, target, clip, params=params, clip_batch=clip_batch)
        score.mean.sum().backward()

    return {
        "reference code": reference,
        "ours": lambda: ours(None),
        "ours, 16 views at most at once": lambda: ours(16),
    }


def peak_of_step(which: str, num: int, device: torch.device) -> float:
    """How much a fresh process's memory on the device rises above its models', in MB."""
    torch.set_num_threads(1)
    call = step_calls(num, device)[which]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    gc.collect()
    forget_peak()
    before = peak_memory()
    call()
    return peak_memory() - before


def step(rounds: int, device: torch.device) -> list[Row]:
    """The reference code's 50 views, forward and backward, against ours."""
    num = REFERENCE_CODE.augment.num_augments
    calls = step_calls(num, device)
    rows = compare(f"AugCLIP step, {num} views, 256 px, ViT-B-32", calls, rounds)
    rows[1]["bound"] = flops_of(calls["ours"]) / flops_per_second(device)
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        for row in rows:
            row["peak MB"] = pool.submit(peak_of_step, row["which"], num, device).result()
    return rows


def drawn(kind: str, num: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers for the changes of some views, in one of several ways."""
    if kind == "antithetic":
        half = independent(num // 2, NUM_DRAWN, generator=generator)
        return torch.cat([half, 1 - half])
    if kind == "Sobol":
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return torch.quasirandom.SobolEngine(NUM_DRAWN, scramble=True, seed=seed).draw(num)
    draw = stratified if kind == "stratified" else independent
    return draw(num, NUM_DRAWN, generator=generator)


def equal_noise(rounds: int, device: torch.device) -> list[Row]:
    """A step on the demo pair: the reference code's 50 views, and ours with the same noise.

    The noise of a gradient falls as one over the number of views; how many of ours are as good as
    50 of theirs is measured first.
    """
    import open_clip

    gan, clip = demo_on(device)
    plain = open_clip.create_model(f"local-dir:{core.demo_clip_dir()}").eval()
    plain = plain.requires_grad_(False).to(device)
    num, side = REFERENCE_CODE.augment.num_augments, clip.image_size[0]
    target = core.encode_target(clip, PROMPTS[1])
    image = core.generate(PROMPTS[1], gan=gan, clip=clip, bank=core.load_demo_bank()).images
    draws, theirs = make_generator(1), torch.Generator(device).manual_seed(1)

    def reference(num: int) -> Tensor:
        leaf = image.clone().requires_grad_()
        copies = reference_copies(leaf, num, side, theirs)
        pixels = ((copies + 1) / 2 - clip.mean) / clip.std
        features = F.normalize(plain.encode_image(pixels), dim=-1)
        return torch.autograd.grad((features @ target.features).mean(), leaf)[0]

    def ours(num: int) -> Tensor:
        leaf = image.clone().requires_grad_()
        size = image.shape[-1]
        params = core.sample_params(num, size, size, config=DEFAULT.augment, generator=draws)
        score = core.aug_clip_score(leaf, target, clip, params=params)
        return torch.autograd.grad(score.mean.sum(), leaf)[0]

    spread = [
        float(torch.stack([way(32) for _ in range(64)]).var(dim=0).sum())
        for way in (reference, ours)
    ]
    enough = max(1, math.ceil(num * spread[1] / spread[0]))
    calls: dict[str, Callable[[], object]] = {
        f"reference code, {num} views": lambda: reference(num),
        f"ours, {num} views": lambda: ours(num),
        f"ours, {enough} views, as much noise": lambda: ours(enough),
    }
    return compare("AugCLIP step at a picture, demo pair", calls, rounds)


def noise(rounds: int, device: torch.device) -> list[Row]:
    """Variance of the gradient at a picture, by the way of drawing; independent draws are 1."""
    gan, clip = demo_on(device)
    kinds, num, repeats = ("independent", "antithetic", "stratified", "Sobol"), 8, 16 * rounds
    ratios: dict[str, list[float]] = {kind: [] for kind in kinds}
    for prompt in PROMPTS[:3]:
        target = core.encode_target(clip, prompt)
        image = core.generate(prompt, gan=gan, clip=clip, bank=core.load_demo_bank()).images
        leaf = image.clone().requires_grad_()
        variance = {}
        for kind in kinds:
            draws = make_generator(1)
            gradients = []
            for _ in range(repeats):
                params = params_at(
                    drawn(kind, num, draws), *image.shape[-2:], config=DEFAULT.augment
                )
                score = core.aug_clip_score(leaf, target, clip, params=params).mean.sum()
                gradients.append(torch.autograd.grad(score, leaf)[0].flatten())
            variance[kind] = float(torch.stack(gradients).var(dim=0).sum())
        for kind in kinds:
            ratios[kind].append(variance[kind] / variance["independent"])
    return [
        {
            "what": f"variance of the gradient, {num} views, demo pair",
            "which": kind,
            "ratio": statistics.mean(own),
            "low": min(own),
            "high": max(own),
        }
        for kind, own in ratios.items()
    ]
