"""FuseDream for ComfyUI: text to image with a GAN, CLIP and the AugCLIP score.

ComfyUI imports this file and awaits :func:`comfy_entrypoint`. Nothing else happens at import, so
tools that import it outside ComfyUI (pytest does) are not disturbed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"  # help pages of the nodes, and their texts in other languages

logger = logging.getLogger(__name__)


async def comfy_entrypoint() -> ComfyExtension:
    """Return the extension that lists the nodes.

    Raises:
        Exception: Whatever went wrong; ComfyUI prints its message alone, so the traceback is
            logged here.
    """
    try:
        from .nodes import comfy_entrypoint as make_extension

        return await make_extension()
    except Exception:
        logger.exception("FuseDream could not load its nodes.")
        raise
