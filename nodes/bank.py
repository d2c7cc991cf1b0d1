"""The node that looks at a fixed set of random pictures once, for all prompts."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..fusedream_core.bank import BANK_SIZE, Bank, build_bank, load_bank, save_bank
from ..fusedream_core.config import DEFAULT
from ..fusedream_core.demo import demo_bank_path
from ..fusedream_core.errors import CheckpointError
from ._boundary import Progress, autograd_scope
from ._models import Managed, activation_bytes, on_cpu, use_models
from ._types import AS_PRESET, BankSocket, ClipSocket, GanSocket, make_schema, seed_input

if TYPE_CHECKING:
    from ..fusedream_core.clip.base import ImageTextEncoder
    from ..fusedream_core.gan.base import Gan

logger = logging.getLogger(__name__)

_SIZE_ON_CPU = 1_000
_MOST_BYTES = 256 << 20  # of all banks that are kept


class FuseDreamSeedBank(io.ComfyNode):
    """Looks at a fixed set of random pictures once, so that searches need not."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="FuseDreamSeedBank",
            display_name="Seed Bank (FuseDream)",
            description=(
                "Draws a fixed set of random pictures and remembers how CLIP sees each, in a file "
                "in ComfyUI's user folder. The first time takes as long as a search of as many; "
                "after that every Seed Search over it, for any prompt, takes moments. The demo "
                "models' bank comes with the pack."
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
                        "How many pictures there are; each search looks at a random half of them. "
                        f"-1: {BANK_SIZE:,} with the demo models or on a GPU, {_SIZE_ON_CPU:,} "
                        "on a CPU."
                    ),
                ),
                io.Float.Input(
                    "truncation",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip=(
                        "How far from the usual the pictures may be: low is clean and alike, 1 is "
                        "varied. 0: what suits the GAN best."
                    ),
                ),
                seed_input("Which random pictures these are.", changes=False),
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
        return io.NodeOutput(bank)


def _usual_size(
    gan: Managed[Gan], clip: Managed[ImageTextEncoder], truncation: float, seed: int
) -> int:
    """As many as are there already, or as can be looked at in reasonable time."""
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
        os.utime(path)  # the last used is the last to go
    except CheckpointError:
        return None
    except OSError:  # a folder that must not be written to
        pass
    return bank if bank.key == like.key else None


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
    try:
        save_bank(bank, path)
        files = sorted(path.parent.glob("*.safetensors"), key=lambda file: -file.stat().st_mtime)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > _MOST_BYTES and file != path:
                file.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("FuseDream: the seed bank could not be kept in %s (%s).", path, error)
