"""The node that encodes a fixed set of random images once, for all prompts."""

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
_MOST_BYTES = 256 << 20  # of all saved banks
_STALE_SECONDS = 24 * 60 * 60  # age at which files of interrupted writes are deleted


class FuseDreamSeedBank(Node):
    """Encodes a fixed set of random images once, so that searches reuse their features."""

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
        truncation = truncation or gan.model.truncation
        num = num_candidates
        if num == AS_PRESET:
            num = _usual_size(gan, clip, truncation, seed)
        own = Bank.empty(num, gan.model, clip.model, truncation=truncation, seed=seed)
        path = _folder() / f"{own.key}.safetensors"
        bank = _read(demo_bank_path(), own) or _read(path, own)
        if bank is None:
            bank = _build(gan, clip, own)
            _save(bank, path)
        else:
            _touch(path)
        return io.NodeOutput(bank)


def _usual_size(
    gan: Managed[Gan], clip: Managed[ImageTextEncoder], truncation: float, seed: int
) -> int:
    """Return the size of the demo models' bank if it fits, or else the device's default.

    Saved banks do not count, so that a workflow always gives the same result.
    """
    demo = Bank.empty(BANK_SIZE, gan.model, clip.model, truncation=truncation, seed=seed)
    if not on_cpu() or _read(demo_bank_path(), demo) is not None:
        return BANK_SIZE
    return _SIZE_ON_CPU


def _folder() -> Path:
    """Return the folder of saved banks."""
    import folder_paths

    return Path(folder_paths.get_user_directory()) / "fusedream" / "banks"


def _read(path: Path, like: Bank) -> Bank | None:
    """Return the bank in a file, or None if it is missing, damaged or another one."""
    try:
        bank = load_bank(path)
    except (CheckpointError, OSError):
        return None
    return bank if bank.key == like.key else None


def _touch(path: Path) -> None:
    """Mark a file as used; the least recently used one is deleted first."""
    with contextlib.suppress(OSError):  # the demo's is elsewhere
        os.utime(path)


def _build(gan: Managed[Gan], clip: Managed[ImageTextEncoder], like: Bank) -> Bank:
    """Build a bank with the settings of an empty one."""
    batch_size = DEFAULT.search.batch_size
    memory = activation_bytes(gan, clip, images=batch_size)
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


def _save(bank: Bank, path: Path) -> None:
    """Save a bank, and delete the least recently used ones beyond the size limit."""
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
            is_leftover = file.suffix == ".part" and time.time() - _last_used(file) > _STALE_SECONDS
            if (total > _MOST_BYTES and file != path) or is_leftover:
                file.unlink()


def _last_used(file: Path) -> float:
    """Return the time in seconds; 0 if the file was deleted."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
