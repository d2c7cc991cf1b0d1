"""The node that looks at a fixed set of random pictures once, for all prompts."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.config import DEFAULT
from ..fusedream_core.errors import CheckpointError
from ..fusedream_core.models.demo import demo_bank_path
from ..fusedream_core.search.bank import BANK_SIZE, Bank, build_bank, load_bank, save_bank
from ._boundary import Progress, autograd_scope
from ._models import Managed, activation_bytes, on_cpu, use_models
from ._node import Node
from ._types import (
    AS_PRESET,
    BankSocket,
    ClipSocket,
    GanSocket,
    make_schema,
    seed_input,
    truncation_input,
)

if TYPE_CHECKING:
    from ..fusedream_core.models.clip.base import ImageTextEncoder
    from ..fusedream_core.models.gan.base import Gan

logger = logging.getLogger(__name__)

_SIZE_ON_CPU = 1_000
_MOST_BYTES = 256 << 20  # of all banks that are kept
_STALE_SECONDS = 24 * 60 * 60  # after which what an interrupted write left is swept away


class FuseDreamSeedBank(Node):
    """Looks at a fixed set of random pictures once, so that searches need not."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamSeedBank",
            display_name="Seed Bank (FuseDream)",
            description=(
                "Generates a fixed set of random pictures and stores their CLIP features in "
                "a file in ComfyUI's user folder. The first run takes as long as a search of "
                "the same size. After that, every Seed Search over the bank takes moments, "
                "for any prompt. The bank of the demo models comes with the pack."
            ),
            search_aliases=["FuseDream", "cache", "fast search"],
            inputs=[
                GanSocket.Input("gan", tooltip="From Load GAN (FuseDream)."),
                ClipSocket.Input("clip", tooltip="From Load CLIP (FuseDream)."),
                io.Int.Input(
                    "num_candidates",
                    default=AS_PRESET,
                    min=AS_PRESET,
                    max=1_000_000,
                    tooltip=(
                        "Number of pictures; each search uses a random half of them. -1: "
                        f"{BANK_SIZE:,} on a GPU, or where the demo models' own bank serves "
                        f"(seed 0, truncation 0); otherwise {_SIZE_ON_CPU:,} on a CPU."
                    ),
                ),
                truncation_input(),
                seed_input("Which random pictures are drawn.", changes=False),
            ],
            outputs=[
                BankSocket.Output(
                    display_name="bank", tooltip="For Seed Search, with the same models."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        gan: Managed[Gan],
        clip: Managed[ImageTextEncoder],
        num_candidates: int,
        truncation: float,
        seed: int,
    ) -> io.NodeOutput:
        tau = truncation or gan.model.truncation
        num = _usual_size(gan, clip, tau, seed) if num_candidates == AS_PRESET else num_candidates
        own = Bank.empty(num, gan.model, clip.model, truncation=tau, seed=seed)
        path = _folder() / f"{own.key}.safetensors"
        bank = _read(demo_bank_path(), own) or _read(path, own)
        if bank is None:
            bank = _build(gan, clip, own)
            _keep(bank, path)
        else:
            _touch(path)
        return io.NodeOutput(bank)


def _usual_size(
    gan: Managed[Gan], clip: Managed[ImageTextEncoder], truncation: float, seed: int
) -> int:
    """As many as the demo pair's bank has, if that is the one, or as can be looked at in time.

    Not as many as happen to be kept: the same workflow always finds the same.
    """
    demo = Bank.empty(BANK_SIZE, gan.model, clip.model, truncation=truncation, seed=seed)
    if not on_cpu() or _read(demo_bank_path(), demo) is not None:
        return BANK_SIZE
    return _SIZE_ON_CPU


def _folder() -> Path:
    """Where banks are kept."""
    import folder_paths

    return Path(folder_paths.get_user_directory()) / "fusedream" / "banks"


def _read(path: Path, like: Bank) -> Bank | None:
    """The bank in a file, if it is there and whole and the one that is wanted."""
    try:
        bank = load_bank(path)
    except (CheckpointError, OSError):
        return None
    return bank if bank.key == like.key else None


def _touch(path: Path) -> None:
    """Note that a file was used: the last used is the last to go."""
    with contextlib.suppress(OSError):  # the demo's lies elsewhere
        os.utime(path)


def _build(gan: Managed[Gan], clip: Managed[ImageTextEncoder], like: Bank) -> Bank:
    """The bank that is wanted, from its pictures."""
    batch_size = DEFAULT.search.batch_size
    memory = activation_bytes(gan, clip, pictures=batch_size)
    with autograd_scope():
        generator, encoder = use_models(gan, clip, activation_bytes=memory)
        return build_bank(
            generator,
            encoder,
            truncation=like.truncation,
            num=len(like),
            seed=like.seed,
            batch_size=batch_size,
            callback=Progress(),
        )


def _keep(bank: Bank, path: Path) -> None:
    """Write a bank for later, and forget those that were not used for longest."""
    if bank.features.half().nbytes > _MOST_BYTES:
        logger.warning("FuseDream: the seed bank is too large to be kept for the next start.")
        return
    try:
        save_bank(bank, path)
    except OSError as error:
        logger.warning("FuseDream: the seed bank could not be kept in %s (%s).", path, error)
        return
    total = 0
    for file in sorted(path.parent.iterdir(), key=_last_used, reverse=True):
        with contextlib.suppress(OSError):  # in use, or another server was quicker
            total += file.stat().st_size
            left_over = file.suffix == ".part" and time.time() - _last_used(file) > _STALE_SECONDS
            if (total > _MOST_BYTES and file != path) or left_over:
                file.unlink()


def _last_used(file: Path) -> float:
    """When, in seconds; 0 for a file that is gone."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
