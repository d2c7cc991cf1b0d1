"""Loading of a CLIP from a folder, from a bare weights file, or by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..weights import find_file, find_weights, fingerprint, part_of, read_state_dict, weight_files
from .architectures import (
    OPENAI_EXTRAS,
    bare_config,
    check_architecture,
    fitting_architectures,
    is_openai,
    known_weights,
    openai_config,
)
from .build import build_clip
from .config_file import CONFIG_NAME, ClipConfig, read_open_clip_config
from .open_clip import OpenClip
from .package import in_one_line, open_clip_package
from .text_files import make_tokenizer
from .transformers_layout import CONFIG_NAME as TRANSFORMERS_CONFIG_NAME
from .transformers_layout import (
    PREPROCESSOR_NAME,
    is_transformers_layout,
    read_transformers_config,
    to_open_clip_names,
)

CONFIG_NAMES = (CONFIG_NAME, TRANSFORMERS_CONFIG_NAME)  # a CLIP folder has one of them
WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
_PREFIXES = ("clip.", "clip_model.", "model.", "module.")  # of a CLIP inside another model


@torch.inference_mode(False)
def load_open_clip_folder(folder: Path | str) -> OpenClip:
    """Load a CLIP from a local folder, without network access and without running its code.

    Args:
        folder: An open_clip "local-dir" with ``open_clip_config.json``, or a ``CLIPModel`` of
            transformers with ``config.json``. It has the weights, under a usual name or as the only
            file; and the files of the tokenizer and text tower, if these are of another library.

    Returns:
        The frozen model on the CPU.

    Raises:
        CheckpointError: If a file is missing, damaged, unsafe or of another model.
        MissingDependencyError: If ``open_clip`` is not installed, or too old.
    """
    open_clip_package()
    folder = Path(folder)
    config_path = find_file(folder, CONFIG_NAMES)
    own = config_path.name == CONFIG_NAMES[0]
    config = read_open_clip_config(config_path) if own else None
    path = find_weights(folder, WEIGHT_NAMES)
    state = _read_weights(path)
    files = [config_path, *weight_files(path)]
    if config is None:
        config = read_transformers_config(folder, state)
        files += [file for file in (folder / PREPROCESSOR_NAME,) if file.is_file()]
    clip_id = f"{'open_clip' if own else 'transformers'}-{fingerprint(*files)}"
    return _build(config, state, path, clip_id)


@torch.inference_mode(False)
def load_open_clip_file(path: Path | str, architecture: str = "") -> OpenClip:
    """Load a CLIP from a bare weights file, without network access.

    Args:
        path: Weights with the names of open_clip, OpenAI or transformers, or an OpenAI archive.
        architecture: open_clip's name, as "ViT-B-32-quickgelu"; or name and tag, as
            "ViT-L-14/laion2b_s32b_b82k", where the name does not determine the activation or the
            preprocessing. Empty for OpenAI archives and for files with a SHA-256 in open_clip's
            tables.

    Returns:
        The frozen model on the CPU.

    Raises:
        ConfigError: If the architecture is unknown, ambiguous, or does not fit the file.
        CheckpointError: If the file is missing, damaged, unsafe or of another architecture.
        MissingDependencyError: If ``open_clip`` is not installed, or too old.
    """
    open_clip_package()
    path = Path(path)
    if architecture:
        check_architecture(architecture)
    state = _read_weights(path)
    digest = fingerprint(*weight_files(path))
    known = known_weights(digest)
    if known and not architecture:
        architecture = known[0]
    if is_openai(state) and not architecture:
        return _build(openai_config(state), state, path, f"openai-{digest}")
    if not architecture:
        fitting = fitting_architectures(state) or ["ViT-B-32-quickgelu"]
        raise ConfigError(
            f"The file {path.name} is a bare weights file; type its open_clip architecture, such "
            f"as {' or '.join(fitting)}, as nothing in the file says which it is."
        )
    config = bare_config(architecture, digest)
    return _build(config, state, path, f"{architecture}/{digest}")


def holds_open_clip(path: Path | str) -> bool:
    """Return whether a safetensors file has the names of both towers of a CLIP.

    Only the header is read. The result is False for unreadable and other files.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as stream:
            names = set(stream.keys())
    except (OSError, SafetensorError):
        return False
    text = {
        "token_embedding.weight",
        "text.token_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
    }
    images = ("visual.", "vision_model.")
    return bool(text & names) and any(name.startswith(images) for name in names)


@torch.inference_mode(False)
def load_open_clip(architecture: str, pretrained: str) -> OpenClip:
    """Load a CLIP by open_clip's names, downloading its weights if they are not cached.

    Args:
        architecture: open_clip's name, as "ViT-B-32-quickgelu".
        pretrained: Tag, as "openai"; or the path of a weights file, see ``load_open_clip_file``,
            without a download.

    Returns:
        The frozen model on the CPU.

    Raises:
        ConfigError: If the architecture is unknown, or does not fit the weights.
        CheckpointError: If the weights cannot be downloaded or do not fit.
        MissingDependencyError: If ``open_clip`` is not installed, or too old.
    """
    open_clip = open_clip_package()
    if Path(pretrained).is_file():
        check_architecture(architecture)
        return load_open_clip_file(pretrained, architecture)
    tagged = open_clip.pretrained.is_pretrained_cfg(architecture, pretrained)
    check_architecture(f"{architecture}/{pretrained}" if tagged else architecture)
    try:
        with torch.random.fork_rng(devices=[]):
            model = open_clip.create_model(architecture, pretrained, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(architecture)
    except (RuntimeError, OSError, ValueError) as error:  # the last two from the tokenizer's hub
        raise CheckpointError(
            f"The CLIP {architecture!r} with the weights {pretrained!r} cannot be loaded "
            f"({in_one_line(error)}); check the tag, the network or the file."
        ) from error
    return OpenClip(model, tokenizer, clip_id=f"{architecture}/{pretrained}")


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights and convert them to open_clip's names."""
    state = part_of(read_state_dict(path), _PREFIXES, _is_clip)
    if is_transformers_layout(state):
        return to_open_clip_names(state, path)
    if not _is_clip(state):
        raise CheckpointError(
            f"The file {path} holds no CLIP (its first tensor is {next(iter(state))[:60]!r}, and "
            "none is of an image tower); use the weights of a whole CLIP."
        )
    return state


def _is_clip(state: Mapping[str, Tensor]) -> bool:
    """Return whether these are the names of a CLIP."""
    return any(name.startswith(("visual.", "vision_model.")) for name in state)


def _build(config: ClipConfig, state: Mapping[str, Tensor], path: Path, clip_id: str) -> OpenClip:
    """Build model and tokenizer from files beside the weights."""
    if is_openai(state) and not config.model.get("quick_gelu"):
        raise ConfigError(
            f"The file {path.name} is OpenAI's, whose CLIPs have another activation (quick_gelu) "
            "than was asked for; load it without an architecture, or with one that ends in "
            "-quickgelu."
        )
    state = {name: tensor for name, tensor in state.items() if name not in OPENAI_EXTRAS}
    tokenizer = make_tokenizer(config.model["text_cfg"], path.parent)
    return OpenClip(build_clip(config, state, path, path.parent), tokenizer, clip_id=clip_id)
