"""The nodes of FuseDream: thin ComfyUI adapters over ``fusedream_core``."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ._folders import register_folders
from .bank import FuseDreamSeedBank
from .blend import FuseDreamPoissonBlend
from .charts import FuseDreamContactSheet, FuseDreamPlotTrace
from .compose import FuseDreamCompose
from .ensemble import FuseDreamMergeCLIP
from .invert import FuseDreamInvertImage
from .latent import (
    FuseDreamDecodeLatent,
    FuseDreamInterpolateLatents,
    FuseDreamLatentToBasis,
    FuseDreamLoadLatent,
    FuseDreamSaveLatent,
)
from .loaders import FuseDreamLoadCLIP, FuseDreamLoadGAN, FuseDreamLoadLPIPS
from .optimize import FuseDreamOptimize
from .prompt import FuseDreamEncodePrompt, FuseDreamImagePrompt
from .score import FuseDreamAugCLIPScore
from .search import FuseDreamSeedSearch

__all__ = ["FuseDreamExtension", "comfy_entrypoint"]

# Read by ComfyUI-Manager and the registry's tools, which scan for this literal. ComfyUI itself
# comes through comfy_entrypoint; the pack's root must not export this name.
NODE_CLASS_MAPPINGS = {
    "FuseDreamLoadGAN": FuseDreamLoadGAN,
    "FuseDreamLoadCLIP": FuseDreamLoadCLIP,
    "FuseDreamEncodePrompt": FuseDreamEncodePrompt,
    "FuseDreamSeedSearch": FuseDreamSeedSearch,
    "FuseDreamOptimize": FuseDreamOptimize,
    "FuseDreamAugCLIPScore": FuseDreamAugCLIPScore,
    "FuseDreamDecodeLatent": FuseDreamDecodeLatent,
    "FuseDreamLoadLPIPS": FuseDreamLoadLPIPS,
    "FuseDreamCompose": FuseDreamCompose,
    "FuseDreamPoissonBlend": FuseDreamPoissonBlend,
    "FuseDreamSeedBank": FuseDreamSeedBank,
    "FuseDreamMergeCLIP": FuseDreamMergeCLIP,
    "FuseDreamSaveLatent": FuseDreamSaveLatent,
    "FuseDreamLoadLatent": FuseDreamLoadLatent,
    "FuseDreamLatentToBasis": FuseDreamLatentToBasis,
    "FuseDreamInterpolateLatents": FuseDreamInterpolateLatents,
    "FuseDreamInvertImage": FuseDreamInvertImage,
    "FuseDreamImagePrompt": FuseDreamImagePrompt,
    "FuseDreamPlotTrace": FuseDreamPlotTrace,
    "FuseDreamContactSheet": FuseDreamContactSheet,
}


class FuseDreamExtension(ComfyExtension):
    """The extension that gives ComfyUI the list of nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Register the model folders and return all node classes."""
        register_folders()
        return list(NODE_CLASS_MAPPINGS.values())


async def comfy_entrypoint() -> FuseDreamExtension:
    """Return the extension; ComfyUI calls this once when it loads the pack."""
    return FuseDreamExtension()
