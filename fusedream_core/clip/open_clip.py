"""CLIP, over the package ``open_clip``: any of its models, by name or from a local folder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, MissingDependencyError
from ..repeatable import repeatable, repeatable_attention
from ..weights import find_file, fingerprint, reading
from .lean import kept_numbers, make_lean

WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)

_MOST_CALLS = 64  # remembered
_ROUNDING = 1e-6  # so that 30 * (16 / 30) pixels are 16, and yet 26.7 are 26, as in torchvision

Tokenizer = Callable[..., Tensor]


class OpenClip(nn.Module):
    """A frozen open_clip model that follows the ``ImageTextEncoder`` protocol.

    Attributes:
        clip_id: Name of the weights.
        image_size: Height and width of the pictures that the model sees, in pixels.
        context_length: Longest text in tokens, its begin and end marks included.
        mean: Mean of its pictures in [0, 1], shape ``(1, 3, 1, 1)``.
        std: Standard deviation of the same, shape ``(1, 3, 1, 1)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, *, clip_id: str) -> None:
        """Wrap a model that has its weights; its image tower is rewritten to do less work.

        Args:
            model: An open_clip model; size, mean, std, interpolation and resize mode are taken
                from its ``visual.preprocess_cfg``.
            tokenizer: The model's tokenizer.
            clip_id: Name of the weights.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        make_lean(model.visual)  # type: ignore[arg-type]
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tokenizer = tokenizer
        self.clip_id = clip_id
        preprocess: dict[str, Any] = model.visual.preprocess_cfg  # type: ignore[union-attr, assignment]
        size = preprocess["size"]
        self.image_size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self.context_length: int = tokenizer([""]).shape[1]
        bilinear = preprocess["interpolation"] == "bilinear"
        self._interpolation = "bilinear" if bilinear else "bicubic"  # "random" is for training
        self._resize_mode: str = preprocess["resize_mode"]
        self._precision: torch.dtype | None = None
        self._texts: dict[tuple[torch.dtype, tuple[str, ...]], Tensor] = {}
        self._fill = preprocess["fill_color"] / 127.5 - 1.0
        for name in ("mean", "std"):
            constants = torch.tensor(preprocess[name], dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, constants, persistent=False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    @property
    def kept_numbers(self) -> int:
        """How many numbers are kept of one picture for its gradient, roughly."""
        return kept_numbers(self.model.visual, self.image_size)  # type: ignore[arg-type]

    @repeatable()
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode pictures as the model was trained to see them, with an antialiased resize.

        Args:
            images: Pictures, shape ``(N, 3, H, W)`` of any size, in ``[-1, 1]`` or, where an
                augmentation took them, outside.

        Returns:
            Unit-norm features, shape ``(N, D)``, float32 (float64 if the model is).

        References:
            gnobitab/FuseDream, ``AugmentLoss``. Differs: its resize has no antialias, so a
            quarter of the pixels of a 512 px picture get no gradient.
        """
        pixels = (self._resize(images.to(self.mean)) + 1.0) / 2.0
        pixels = ((pixels - self.mean) / self.std).to(self._precision or pixels.dtype)
        with repeatable_attention(self.device):
            return _unit(self.model.encode_image(pixels))  # type: ignore[operator]

    def compute_in(self, dtype: torch.dtype) -> None:
        """Look at pictures in this precision, for devices that are good at a lower one.

        Resizing, features and all of the text stay as they are.
        """
        self.model.visual.to(dtype)
        self._precision = dtype

    def resizing(self, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """The matrices by which pictures of this size are brought to the model's own.

        Returns:
            What makes the rows, ``(image_size[0], height)``, and the columns,
            ``(image_size[1], width)``. None where borders have another colour than mid-grey, which
            no matrix can add.
        """
        rows, columns = self._axes(height, width)
        padded = (rows.sum(dim=1) == 0).any() or (columns.sum(dim=1) == 0).any()
        return None if padded and self._fill != 0.0 else (rows, columns)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; those longer than the context are cut as CLIP does it.

        What was asked for is remembered, as a search compares each prompt with all class names:
        by the whole call, since texts round in another way in other company.

        Returns:
            Unit-norm features, shape ``(N, D)``, float32 (float64 if the model is).
        """
        asked = (self.mean.dtype, tuple(texts))
        features = self._texts.get(asked)  # once: another thread may clear them
        if features is None:
            with torch.no_grad():
                tokens = self.tokenizer(list(texts)).to(self.device)
                features = _unit(self.model.encode_text(tokens)).cpu()  # type: ignore[operator]
            if len(self._texts) >= _MOST_CALLS:
                self._texts.clear()
            self._texts[asked] = features
        return features.to(self.device, copy=True)

    def truncates(self, text: str) -> bool:
        """Whether the end of this text is cut off."""
        # Given room for one more token, a text that fits is only padded, while one that is cut
        # shows a token where its end mark was.
        roomy = self.tokenizer([text], context_length=self.context_length + 1)
        return not torch.equal(roomy[:, :-1], self.tokenizer([text]))

    def _resize(self, images: Tensor) -> Tensor:
        """Bring pictures to the model's size, as its own preprocessing would.

        By two matrix products, which have the same gradient twice on every device; torch's own
        antialiased resize has not.
        """
        if images.shape[-2:] == self.image_size:
            return images
        rows, columns = self._axes(*images.shape[-2:])
        covered = rows.sum(dim=1)[:, None] * columns.sum(dim=1)
        resized: Tensor = rows @ images @ columns.T + self._fill * (1.0 - covered)
        return resized

    def _axes(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The matrix of each axis, ``(new side, old side)``; rows of borders are zero."""
        sides = (height, width)
        scales = [new / old for new, old in zip(self.image_size, sides, strict=True)]
        if self._resize_mode != "squash":
            # "shortest" covers the frame and is cropped, "longest" lies inside it and is padded
            scale = max(scales) if self._resize_mode == "shortest" else min(scales)
            scales = [scale, scale]
        square = self.image_size[0] == self.image_size[1]
        # The one case that open_clip leaves to torchvision, which cuts where open_clip rounds.
        cut = self._resize_mode == "shortest" and square
        rows, columns = (
            self._axis(side, max(1, int(side * s + _ROUNDING) if cut else round(side * s)), new)
            for side, s, new in zip(sides, scales, self.image_size, strict=True)
        )
        return rows, columns

    def _axis(self, side: int, scaled: int, new: int) -> Tensor:
        """The matrix that scales an axis and then crops or pads it about the centre."""
        matrix = F.interpolate(
            torch.eye(side)[None, None], (scaled, side), mode=self._interpolation, antialias=True
        )
        before = (new - scaled) // 2 if new > scaled else -round((scaled - new) / 2)
        matrix = F.pad(matrix, (0, 0, before, new - scaled - before))  # a negative border crops
        return matrix[0, 0].to(self.mean)


@torch.inference_mode(False)
def load_open_clip_folder(folder: Path | str) -> OpenClip:
    """Load a CLIP from a local folder, never touching the network.

    Args:
        folder: An open_clip "local-dir": ``open_clip_config.json`` and
            ``open_clip_model.safetensors`` (or one of open_clip's other names).

    Returns:
        The frozen model on the CPU.

    Raises:
        CheckpointError: If a file is missing, damaged, unsafe or of another model.
        MissingDependencyError: If ``open_clip`` is not installed.
    """
    folder = Path(folder)
    config_path = find_file(folder, ("open_clip_config.json",))
    weights_path = find_file(folder, WEIGHT_NAMES)
    clip_id = f"open_clip-{fingerprint(config_path, weights_path)}"
    with reading(weights_path):
        return _load(f"local-dir:{folder}", None, clip_id)


def holds_open_clip(path: Path | str) -> bool:
    """Whether a safetensors file has the names of a whole open_clip model, both of its towers.

    Only its header is read. Other files, and those that cannot be read, do not.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as stream:
            names = set(stream.keys())
    except (OSError, SafetensorError):
        return False
    text = {"token_embedding.weight", "text.token_embedding.weight"} & names
    return bool(text) and any(name.startswith("visual.") for name in names)


@torch.inference_mode(False)
def load_open_clip(architecture: str, pretrained: str) -> OpenClip:
    """Load a CLIP that open_clip knows, downloading its weights if they are not in its cache.

    Args:
        architecture: open_clip's name, as "ViT-B-32-quickgelu".
        pretrained: Its tag, as "openai", or the path of a weight file.

    Returns:
        The frozen model on the CPU.

    Raises:
        ConfigError: If open_clip does not know the architecture.
        CheckpointError: If the weights cannot be had or do not fit.
        MissingDependencyError: If ``open_clip`` is not installed.
    """
    known = _open_clip().list_models()
    if architecture not in known:
        raise ConfigError(
            f"open_clip has no architecture {architecture!r}; it has {', '.join(known[:5])} and "
            f"{len(known) - 5} more (open_clip.list_models() names them)."
        )
    if pretrained == "openai" and f"{architecture}-quickgelu" in known:
        raise ConfigError(
            f"OpenAI's weights are made for {architecture}-quickgelu, but {architecture!r} was "
            "asked for, which would see pictures wrongly; ask for the other."
        )
    path = Path(pretrained)
    if path.is_file():
        with reading(path):
            return _load(architecture, pretrained, f"{architecture}/{fingerprint(path)}")
    try:
        return _load(architecture, pretrained, f"{architecture}/{pretrained}")
    except RuntimeError as error:
        raise CheckpointError(
            f"The CLIP {architecture!r} with the weights {pretrained!r} cannot be loaded "
            f"({str(error).splitlines()[0]}); check the tag, the network or the file."
        ) from error


def _open_clip() -> ModuleType:
    """The package, imported when first needed: it takes seconds."""
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise MissingDependencyError(
            "The package open_clip is needed for CLIP; run 'pip install open_clip_torch'."
        ) from error


def _load(name: str, pretrained: str | None, clip_id: str) -> OpenClip:
    """Build model and tokenizer, leaving the global generator as it was."""
    open_clip = _open_clip()
    with torch.random.fork_rng(devices=[]):
        model = open_clip.create_model(name, pretrained, require_pretrained=True)
    return OpenClip(model, open_clip.get_tokenizer(name), clip_id=clip_id)


def _unit(features: Tensor) -> Tensor:
    """Features of length 1; at least float32, as half precision blurs the ranking of seeds."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
