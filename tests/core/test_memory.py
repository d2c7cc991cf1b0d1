from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fusedream_core import (
    AugmentConfig,
    Basis,
    BigGan,
    ConfigError,
    OpenClip,
    OptimizeConfig,
    SearchConfig,
    Target,
    make_generator,
    optimize,
    search_basis,
)
from fusedream_core.compose import compose
from fusedream_core.compose.placement import all_placements
from fusedream_core.config import ALL, ComposeConfig
from fusedream_core.memory import AutoBatchSize, is_out_of_memory

AUGMENT = AugmentConfig(num_augments=4)
STEPS = OptimizeConfig(num_steps=4, num_snapshots=2, eval_augments=6, num_starts=4)


class Small:
    """A model with memory for a few images only."""

    def __init__(self, model: Any, method: str, most: int) -> None:  # noqa: ANN401
        self._model, self._method, self._most = model, method, most
        self.largest = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        found = getattr(self._model, name)
        if name != self._method:
            return found

        def call(images: Tensor, *args: Any, **options: Any) -> Tensor:  # noqa: ANN401
            if len(images) > self._most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            self.largest = max(self.largest, len(images))
            return found(images, *args, **options)

        return call


class TestAutoBatchSize:
    def test_halves_until_it_fits(self, caplog: pytest.LogCaptureFixture) -> None:
        tried = []

        def work(size: int) -> str:
            tried.append(size)
            if size > 3:
                raise MemoryError
            return "done"

        batch_size = AutoBatchSize()
        with caplog.at_level(logging.WARNING):
            assert batch_size.run(work, most=20) == "done"
            assert batch_size.run(work, most=20) == "done"
        assert tried == [20, 10, 5, 3, 3]  # it remembers
        assert len(caplog.messages) == 3
        assert batch_size.run(work, most=2) == "done"
        assert tried[-1] == 2

    def test_gives_up_at_one(self) -> None:
        def work(size: int) -> None:
            raise MemoryError

        with pytest.raises(MemoryError):
            AutoBatchSize().run(work, most=8)

    def test_other_errors_pass(self) -> None:
        tried = []

        def work(size: int) -> None:
            tried.append(size)
            raise RuntimeError("shapes do not match")

        with pytest.raises(RuntimeError, match="shapes"):
            AutoBatchSize().run(work, most=8)
        assert tried == [8]

    def test_exception(self) -> None:
        with pytest.raises(ConfigError, match="clip_batch is 0"):
            AutoBatchSize(0)

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (torch.OutOfMemoryError(), True),
            (MemoryError(), True),
            (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
            (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"), True),
            (RuntimeError("expected scalar type Half"), False),
            (KeyError("memory"), False),
        ],
    )
    def test_is_out_of_memory(self, error: Exception, expected: bool) -> None:
        assert is_out_of_memory(error) == expected


class TestGoesOnWithLess:
    """Every stage ends as it would with all the memory it wants."""

    def check(
        self,
        run: Callable[[Any], Tensor],
        ample: object,
        small: Small,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        expected = run(ample)
        with caplog.at_level(logging.WARNING):
            found = run(small)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        assert 0 < small.largest <= 3
        assert any("Out of memory" in message for message in caplog.messages)

    @pytest.mark.parametrize("which", ["clip", "gan"])
    def test_search(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        which: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        config = SearchConfig(num_candidates=12, num_basis=3, num_reranked=6, batch_size=8)
        models: dict[str, Any] = {"clip": clip64, "gan": gan64}

        def run(model: Any) -> Tensor:  # noqa: ANN401
            chosen = models | {which: model}
            (basis,) = search_basis(
                chosen["gan"],
                chosen["clip"],
                targets64[:1],
                config=config,
                augment=AUGMENT,
                generator=make_generator(1),
            )
            return torch.cat([basis.latent.z.flatten(), basis.scores])

        method = {"clip": "encode_images", "gan": "decode"}[which]
        self.check(run, models[which], Small(models[which], method, 3), caplog)

    @pytest.mark.parametrize("objective", ["aug_clip", "clip"])
    @pytest.mark.parametrize("which", ["clip", "gan"])
    def test_optimize(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        bases64: list[Basis],
        which: str,
        objective: Any,  # noqa: ANN401
        caplog: pytest.LogCaptureFixture,
        grouping: str,
    ) -> None:
        models: dict[str, Any] = {"clip": clip64, "gan": gan64}

        def run(model: Any) -> Tensor:  # noqa: ANN401
            chosen = models | {which: model}
            return optimize(
                chosen["gan"],
                chosen["clip"],
                targets64[:2],
                bases64[:2],
                config=replace(STEPS, objective=objective),
                augment=AUGMENT,
                generators=[make_generator(row) for row in range(2)],
            ).images

        method = {"clip": "encode_images", "gan": "decode"}[which]
        self.check(run, models[which], Small(models[which], method, 2), caplog)

    @pytest.mark.parametrize("which", ["clip", "gan"])
    def test_compose(
        self,
        gan64: BigGan,
        clip64: OpenClip,
        targets64: list[Target],
        bases64: list[Basis],
        which: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Its last batch of a single configuration has room for its two images at least."""
        models: dict[str, Any] = {"clip": clip64, "gan": gan64}
        steps = replace(STEPS.adam(), start="alone")
        config = ComposeConfig(
            optimize=steps, rungs=((ALL, 0.5), (2, 1.0)), batch_size=4, consistency="none"
        )

        def run(model: Any) -> Tensor:  # noqa: ANN401
            chosen = models | {which: model}
            (result,) = compose(
                chosen["gan"],
                chosen["clip"],
                targets64[:1],
                bases64[:1],
                bases64[1:2],
                config=config,
                augment=AUGMENT,
                generators=[make_generator(1)],
                placements=all_placements(scales=(0.5,))[:4],
            )
            return result.images

        method = {"clip": "encode_images", "gan": "decode"}[which]
        self.check(run, models[which], Small(models[which], method, 3), caplog)
