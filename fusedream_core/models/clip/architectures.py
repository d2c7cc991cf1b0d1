"""What open_clip's own tables say of an architecture and of weights: names, tags, preprocessing.

Bare weights do not say how images are prepared for them, nor which activation they were trained
with. Both are taken from the tables where they have one answer; otherwise the error asks.
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
_MOST_NAMED = 4
# Numbers in the state dict of OpenAI's archives, which no other CLIP has.
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def bare_config(name: str, digest: str) -> ClipConfig:
    """The configuration of weights that come without one.

    Args:
        name: open_clip's name of the architecture, as "RN50-quickgelu", or name and tag, as
            "ViT-B-32/laion2b_s34b_b79k".
        digest: Beginning of the file's SHA-256, by which open_clip's tables know some weights.

    Raises:
        ConfigError: If the name is not known, does not belong to these weights, or leaves it open
            how they are used.
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
    """Check a name before anything is read.

    Raises:
        ConfigError: If open_clip does not know the architecture or the tag, or if the two have
            different activations.
    """
    architecture, tag = _split(name)
    open_clip = open_clip_package()
    known = open_clip.list_models()
    if architecture not in known:
        likely = _nearest(name, known) or known[:_MOST_NAMED]
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
            f"{', '.join(likely[:_MOST_NAMED]) or 'none'} ({len(tags)} in all)."
        )
    if tags[tag].get("quick_gelu") and not _is_quick(architecture):
        raise ConfigError(
            f"The weights {tag!r} are made for {architecture}{QUICK}, but {architecture!r} was "
            "asked for, which has another activation and gives other features; ask for "
            f"{architecture}{QUICK}."
        )


def known_weights(digest: str) -> tuple[str, str] | None:
    """Architecture and tag of weights whose SHA-256 begins so, if open_clip's tables have it."""
    open_clip = open_clip_package()
    for architecture, tag in open_clip.list_pretrained():
        known = _url_digest(open_clip.get_pretrained_url(architecture, tag))
        same = known and (digest.startswith(known) or known.startswith(digest))
        if same and bool(_tags(architecture)[tag].get("quick_gelu")) == _is_quick(architecture):
            return architecture, tag
    return None


def is_openai(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are OpenAI's own, by the numbers that its archives hold."""
    return all(name in state for name in OPENAI_EXTRAS)


def openai_config(state: Mapping[str, Tensor]) -> ClipConfig:
    """The configuration of OpenAI's own weights, from their shapes.

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
    """What the shapes of weights say of their ``model_cfg``.

    Args:
        state: Names with tensors, as OpenAI and open_clip name them.

    Returns:
        All but heads, activation and epsilon; None for towers of other libraries.
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
    """Names of open_clip's architectures whose shapes are those of the weights; few or none."""
    found = shape_config(state)
    if found is None:
        return []
    open_clip = open_clip_package()
    names = (name for name in open_clip.list_models() if _has_shapes(name, found))
    return list(names)[:_MOST_NAMED]


def preprocess_of_shapes(state: Mapping[str, Tensor], *, quick: bool) -> list[dict[str, Any]]:
    """The ways in which open_clip prepares images for weights of these shapes and activation."""
    found = shape_config(state)
    open_clip = open_clip_package()
    ways: list[dict[str, Any]] = []
    for name in open_clip.list_models() if found else []:
        if found and _has_shapes(name, found):
            entries = (e for e in _tags(name).values() if bool(e.get("quick_gelu")) == quick)
            ways += (way for way in map(_way, entries) if way not in ways)
    return ways


def _split(name: str) -> tuple[str, str]:
    """Architecture and tag of a name; the tag as open_clip's tables spell it, or empty."""
    architecture, _, tag = name.partition("/")
    return architecture, tag.lower().replace("-", "_")


def _preprocess(architecture: str, tag: str) -> dict[str, Any]:
    """How images are prepared for an architecture, or for one of its tags."""
    tags = _tags(architecture)
    if tag:
        return _complete(_way(tags[tag]))
    known = open_clip_package().list_models()
    if not _is_quick(architecture) and f"{architecture}{QUICK}" in known:
        plain = [name for name, entry in tags.items() if not entry.get("quick_gelu")]
        names = [f"{architecture}/{name}" for name in plain[:_MOST_NAMED]]
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
    """How images are prepared for weights of open_clip's table."""
    return {key: entry[key] for key in _PREPROCESS}


def _tags(architecture: str) -> dict[str, dict[str, Any]]:
    """The weights that open_clip knows of an architecture, with what it says of each."""
    open_clip = open_clip_package()
    return {
        tag: open_clip.get_pretrained_cfg(architecture, tag)
        for tag in open_clip.pretrained.list_pretrained_tags_by_model(architecture)
    }


def _is_quick(architecture: str) -> bool:
    return bool(open_clip_package().get_model_config(architecture).get("quick_gelu", False))


def _url_digest(url: str) -> str:
    """What an address says of the SHA-256 of its file."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    if "mlfoundations" in url:
        return url.rsplit("/", 1)[-1].rsplit(".", 1)[0].rsplit("-", 1)[-1]
    return ""


def _nearest(name: str, known: list[str]) -> list[str]:
    """The names that are most like a name, whatever its case and signs."""
    plain = {known_name.lower().replace("_", "-"): known_name for known_name in known}
    wanted = name.lower()
    for sign in "/_: ":
        wanted = wanted.replace(sign, "-")
    return [plain[match] for match in difflib.get_close_matches(wanted, list(plain))]


def _vision_shapes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The ``vision_cfg`` of an image tower's shapes, by tower."""
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
    """How many numbered parts there are under a name."""
    return len({name[len(start) :].split(".")[0] for name in names if name.startswith(start)})


def _has_shapes(architecture: str, found: Mapping[str, Any]) -> bool:
    """Whether an architecture of open_clip has the shapes that were found in weights."""
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
