"""Lookup of architectures and weights in open_clip's tables: names, tags, preprocessing.

Bare weights determine neither their preprocessing nor their activation. Both come from the tables
where they are unique; otherwise an error lists the choices.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from ...errors import ConfigError
from .config_file import ClipConfig
from .package import open_clip_package

QUICK = "-quickgelu"
_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")
_MAX_NAMED = 4
# Entries of the state dict of OpenAI's archives only.
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def bare_config(name: str, digest: str) -> ClipConfig:
    """Return the configuration of weights without a config file.

    Args:
        name: open_clip's name of the architecture, as "RN50-quickgelu", or name and tag, as
            "ViT-B-32/laion2b_s34b_b79k".
        digest: First digits of the file's SHA-256, for open_clip's tables.

    Raises:
        ConfigError: If the name is unknown, ambiguous, or does not fit the weights.
    """
    check_architecture(name)
    architecture, tag = _split(name)
    known = known_weights(digest)
    if known is not None:
        if (architecture, tag or known[1]) != known:
            raise ConfigError(
                f"These weights are {'/'.join(known)}, by their SHA-256 in open_clip's tables, but "
                f"{name!r} was asked for; ask for {known[0]}."
            )
        tag = known[1]
    model = open_clip_package().get_model_config(architecture)
    return ClipConfig(model, _preprocess(architecture, tag))


def check_architecture(name: str) -> None:
    """Check a name before a file is read.

    Raises:
        ConfigError: If the architecture or the tag is unknown, or their activations differ.
    """
    architecture, tag = _split(name)
    open_clip = open_clip_package()
    known = open_clip.list_models()
    if architecture not in known:
        likely = _nearest(name, known) or known[:_MAX_NAMED]
        raise ConfigError(
            f"open_clip has no architecture {name!r}; it has {', '.join(likely)}, which are the "
            f"nearest, and {len(known) - len(likely)} more (open_clip.list_models() names those of "
            f"the installed version {open_clip.__version__})."
        )
    if not tag:
        return
    tags = _tags(architecture)
    if tag not in tags:
        likely = [known_tag for known_tag in tags if tag in known_tag]
        likely = likely or _nearest(tag, list(tags)) or list(tags)
        raise ConfigError(
            f"open_clip has no weights {tag!r} of {architecture}; it has "
            f"{', '.join(likely[:_MAX_NAMED]) or 'none'} ({len(tags)} in all)."
        )
    if tags[tag].get("quick_gelu") and not _is_quick(architecture):
        raise ConfigError(
            f"The weights {tag!r} are made for {architecture}{QUICK}, but {architecture!r} was "
            "asked for, which has another activation and gives other features; ask for "
            f"{architecture}{QUICK}."
        )


def known_weights(digest: str) -> tuple[str, str] | None:
    """Return architecture and tag of weights by their SHA-256, or None."""
    open_clip = open_clip_package()
    for architecture, tag in open_clip.list_pretrained():
        known = _url_digest(open_clip.get_pretrained_url(architecture, tag))
        same = known and (digest.startswith(known) or known.startswith(digest))
        if same and bool(_tags(architecture)[tag].get("quick_gelu")) == _is_quick(architecture):
            return architecture, tag
    return None


def is_openai(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights are from OpenAI's archive."""
    return all(name in state for name in OPENAI_EXTRAS)


def openai_config(state: Mapping[str, Tensor]) -> ClipConfig:
    """Return the configuration of OpenAI's weights, from their shapes.

    References:
        openai/CLIP, ``build_model``.
    """
    model = shape_config(state)
    if model is None:
        raise ConfigError(
            "The weights have OpenAI's extra numbers but not the towers of its CLIPs; type their "
            "architecture."
        )
    model["text_cfg"]["heads"] = max(1, model["text_cfg"]["width"] // 64)
    model["quick_gelu"] = True
    return ClipConfig(model, _preprocess(f"ViT-B-32{QUICK}", "openai"))


def shape_config(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the part of ``model_cfg`` that the shapes of weights determine.

    Args:
        state: State dict with the names of OpenAI and open_clip.

    Returns:
        All fields except heads, activation and epsilon; None for towers of other libraries.
    """
    text = {name.removeprefix("text."): tensor.shape for name, tensor in state.items()}
    needed = ("text_projection", "positional_embedding", "token_embedding.weight")
    if any(name not in text or len(text[name]) != 2 for name in needed):
        return None
    vision = _vision_shapes(state)
    if vision is None:
        return None
    return {
        "embed_dim": text["text_projection"][1],
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": text["positional_embedding"][0],
            "vocab_size": text["token_embedding.weight"][0],
            "width": text["positional_embedding"][1],
            "layers": _count(text, "transformer.resblocks."),
        },
    }


def fitting_architectures(state: Mapping[str, Tensor]) -> list[str]:
    """Return up to 4 names of open_clip architectures with the shapes of the weights."""
    found = shape_config(state)
    known = open_clip_package().list_models() if found else []
    return [name for name in known if found and _has_shapes(name, found)][:_MAX_NAMED]


def preprocess_of_shapes(state: Mapping[str, Tensor], *, quick: bool) -> list[dict[str, Any]]:
    """Return all preprocessing settings of open_clip for these shapes and this activation."""
    found = shape_config(state)
    ways: list[dict[str, Any]] = []
    for name in open_clip_package().list_models() if found else []:
        if found and _has_shapes(name, found):
            entries = (e for e in _tags(name).values() if bool(e.get("quick_gelu")) == quick)
            ways += (way for way in map(_way, entries) if way not in ways)
    return ways


def _split(name: str) -> tuple[str, str]:
    """Split a name into architecture and normalised tag, which may be empty."""
    architecture, _, tag = name.partition("/")
    return architecture, tag.lower().replace("-", "_")


def _preprocess(architecture: str, tag: str) -> dict[str, Any]:
    """Return the preprocessing of an architecture, or of one of its tags."""
    tags = _tags(architecture)
    if tag:
        return _complete(_way(tags[tag]))
    known = open_clip_package().list_models()
    if not _is_quick(architecture) and f"{architecture}{QUICK}" in known:
        plain = [name for name, entry in tags.items() if not entry.get("quick_gelu")]
        names = [f"{architecture}/{name}" for name in plain[:_MAX_NAMED]]
        raise ConfigError(
            f"Weights of {architecture} come with two activations, and the file does not say which "
            f"it has; ask for {' or '.join([f'{architecture}{QUICK}', *names])}, whichever they "
            "are or were trained from."
        )
    ways: list[tuple[dict[str, Any], str]] = []
    for name, entry in tags.items():
        if all(way != _way(entry) for way, _ in ways):
            ways.append((_way(entry), name))
    if len(ways) == 1:
        return _complete(ways[0][0])
    if not ways:
        raise ConfigError(
            f"open_clip knows no weights of {architecture}, so how images are prepared for it is "
            "not known; put the file into a folder of its own with an open_clip_config.json."
        )
    names = [f"{architecture}/{name}" for _, name in ways]
    raise ConfigError(
        f"Images are prepared in {len(ways)} ways for weights of {architecture}, and the file does "
        f"not say which is its own; ask for {' or '.join(names)}, whichever they are like."
    )


def _complete(way: dict[str, Any]) -> dict[str, Any]:
    return {"mode": "RGB", "fill_color": 0, **way}


def _way(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the preprocessing of an entry of open_clip's table."""
    return {key: entry[key] for key in _PREPROCESS}


def _tags(architecture: str) -> dict[str, dict[str, Any]]:
    """Return open_clip's entries of all tags of an architecture."""
    open_clip = open_clip_package()
    return {
        tag: open_clip.get_pretrained_cfg(architecture, tag)
        for tag in open_clip.pretrained.list_pretrained_tags_by_model(architecture)
    }


def _is_quick(architecture: str) -> bool:
    return bool(open_clip_package().get_model_config(architecture).get("quick_gelu", False))


def _url_digest(url: str) -> str:
    """Return the SHA-256 digits in an address, or an empty string."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    if "mlfoundations" in url:
        return url.rsplit("/", 1)[-1].rsplit(".", 1)[0].rsplit("-", 1)[-1]
    return ""


def _nearest(name: str, known: list[str]) -> list[str]:
    """Return the most similar names, ignoring case and separators."""
    plain = {known_name.lower().replace("_", "-"): known_name for known_name in known}
    wanted = name.lower()
    for sign in "/_: ":
        wanted = wanted.replace(sign, "-")
    return [plain[match] for match in difflib.get_close_matches(wanted, list(plain))]


def _vision_shapes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the ``vision_cfg`` of the shapes of an image tower, or None."""
    shapes = {
        name.removeprefix("visual."): tensor.shape
        for name, tensor in state.items()
        if name.startswith("visual.")
    }
    conv, pool = shapes.get("conv1.weight"), shapes.get("attnpool.positional_embedding")
    position = shapes.get("positional_embedding")
    if conv is not None and position is not None and len(conv) == 4:
        return {
            "layers": _count(shapes, "transformer.resblocks."),
            "width": conv[0],
            "patch_size": conv[-1],
            "image_size": conv[-1] * round((position[0] - 1) ** 0.5),
        }
    if pool is not None and "layer1.0.conv1.weight" in shapes:
        return {
            "layers": [_count(shapes, f"layer{stage}.") for stage in (1, 2, 3, 4)],
            "width": shapes["layer1.0.conv1.weight"][0],
            "image_size": 32 * round((pool[0] - 1) ** 0.5),
        }
    return None


def _count(names: Mapping[str, Any], start: str) -> int:
    """Count the numbered submodules under a name."""
    return len({name[len(start) :].split(".")[0] for name in names if name.startswith(start)})


def _has_shapes(architecture: str, found: Mapping[str, Any]) -> bool:
    """Return whether an architecture of open_clip has the given shapes."""
    open_clip = open_clip_package()
    config = open_clip.get_model_config(architecture)
    if config["embed_dim"] != found["embed_dim"] or "multimodal_cfg" in config:
        return False
    kinds = {"vision_cfg": open_clip.CLIPVisionCfg, "text_cfg": open_clip.CLIPTextCfg}
    for part, kind in kinds.items():
        if "timm_model_name" in config[part] or "hf_model_name" in config[part]:
            return False
        usual = {field.name: field.default for field in fields(kind)}
        whole = {**usual, **config[part]}
        if any(whole[key] != value for key, value in found[part].items()):
            return False
    return True
