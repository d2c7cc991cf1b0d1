"""CLIP, based on the package ``open_clip``: any of its models as an image-text encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...determinism import deterministic_attention
from ...finite import check_finite_output
from ..precision import MixedPrecision
from .fuse import activation_floats, fuse_image_tower
from .words import untrained_words

_MAX_CACHED_CALLS = 64
_PIXEL_EPS = 1e-6  # rounds 30 * (16 / 30) to 16, and truncates 26.7 to 26, as torchvision

Tokenizer = Callable[..., Tensor]


class OpenClip(MixedPrecision):
    """A frozen open_clip model that follows the ``ImageTextEncoder`` protocol.

    In half precision, as after ``.to(torch.bfloat16)``, only the image tower is; resizing, texts
    and features stay in float32.

    Attributes:
        clip_id: Name of the weights.
        image_size: Height and width of the model's input in pixels.
        context_length: Longest text in tokens, including start and end tokens.
        mean: Mean of training images in [0, 1], shape ``(1, 3, 1, 1)``.
        std: Standard deviation of the same, shape ``(1, 3, 1, 1)``.
    """

    half_prefixes = ("model.visual.",)
    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, *, clip_id: str) -> None:
        """Wrap and freeze a loaded model; its image tower is fused in place.

        Args:
            model: An open_clip model; size, mean, std, interpolation and resize mode come from its
                ``visual.preprocess_cfg``.
            tokenizer: The model's tokenizer.
            clip_id: Name of the weights.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        fuse_image_tower(model.visual)  # type: ignore[arg-type]
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
        self._texts: dict[tuple[torch.dtype, tuple[str, ...]], Tensor] = {}
        self._fill = preprocess["fill_color"] / 127.5 - 1.0
        for name in ("mean", "std"):
            constants = torch.tensor(preprocess[name], dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, constants, persistent=False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mean.device

    @property
    def activation_floats(self) -> int:
        """Floats saved per image for the backward pass, approximately."""
        return activation_floats(self.model.visual, self.image_size)  # type: ignore[arg-type]

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images with the model's preprocessing and an antialiased resize.

        Args:
            images: Images, shape ``(N, 3, H, W)`` of any size, in ``[-1, 1]``, or outside after
                colour augmentations.

        Returns:
            Unit-norm features, shape ``(N, D)``, float32 (float64 if the model is).

        References:
            gnobitab/FuseDream, ``AugmentLoss``. Differs: upstream's resize is not antialiased,
            so a quarter of the pixels of a 512 px image get no gradient.
        """
        pixels = (self._resize(images.to(self.mean)) + 1.0) / 2.0
        pixels = ((pixels - self.mean) / self.std).to(next(self.model.visual.parameters()))  # type: ignore[union-attr]
        with deterministic_attention(self.device):
            features = _unit(self.model.encode_image(pixels))  # type: ignore[operator]
        return self._checked(features, images, pixels.dtype)

    forward = encode_images

    def _checked(self, features: Tensor, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Return features if all values are finite."""
        return check_finite_output(
            features,
            f"the CLIP {self.clip_id}",
            dtype=dtype,
            inputs=(images,),
            source="the GAN or other source of the images",
        )

    def resizing(self, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """Return the matrices that resize images of this size to the model's input.

        Returns:
            Matrices ``(image_size[0], height)`` and ``(image_size[1], width)`` of rows and columns.
            None where padding has another colour than mid-grey, which no matrix can add.
        """
        rows, columns = self._axes(height, width)
        padded = (rows.sum(dim=1) == 0).any() or (columns.sum(dim=1) == 0).any()
        return None if padded and self._fill != 0.0 else (rows, columns)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; longer ones are truncated to the context.

        Results are cached, since every search encodes all class names. The key is the whole call,
        because rounding depends on the batch.

        Returns:
            Unit-norm features, shape ``(N, D)``, float32 (float64 if the model is).
        """
        key = (self.mean.dtype, tuple(texts))
        features = self._texts.get(key)  # a single access: another thread may clear the cache
        if features is None:
            with torch.no_grad():
                tokens = self.tokenizer(list(texts)).to(self.device)
                features = _unit(self.model.encode_text(tokens))  # type: ignore[operator]
            self._checked(features, tokens, self.mean.dtype)
            features = features.cpu()
            if len(self._texts) >= _MAX_CACHED_CALLS:
                self._texts.clear()
            self._texts[key] = features
        return features.to(self.device, copy=True)

    def truncates(self, text: str) -> bool:
        """Return whether a text is longer than the context."""
        # With a context of one more token, a text that fits has more padding only; a truncated one
        # has another token in place of the end token.
        roomy = self.tokenizer([text], context_length=self.context_length + 1)
        return not torch.equal(roomy[:, :-1], self.tokenizer([text]))

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return words that the model was not trained on, see ``untrained_words``."""
        return untrained_words(text, self.tokenizer, self.model)

    def _resize(self, images: Tensor) -> Tensor:
        """Resize images to the model's input, as its preprocessing does.

        Two matrix products have a deterministic gradient on every device; torch's antialiased
        resize does not.
        """
        if images.shape[-2:] == self.image_size:
            return images
        rows, columns = self._axes(*images.shape[-2:])
        covered = rows.sum(dim=1)[:, None] * columns.sum(dim=1)
        resized: Tensor = rows @ images @ columns.T + self._fill * (1.0 - covered)
        return resized

    def _axes(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the matrix of each axis, ``(new side, old side)``; padding rows are zero."""
        sides = (height, width)
        scales = [new / old for new, old in zip(self.image_size, sides, strict=True)]
        if self._resize_mode != "squash":
            # "shortest" covers the frame and is cropped, "longest" fits into it and is padded
            scale = max(scales) if self._resize_mode == "shortest" else min(scales)
            scales = [scale, scale]
        square = self.image_size[0] == self.image_size[1]
        # open_clip uses torchvision in this case only, which truncates where open_clip rounds.
        floor = self._resize_mode == "shortest" and square
        rows, columns = (
            self._axis(side, max(1, int(side * s + _PIXEL_EPS) if floor else round(side * s)), new)
            for side, s, new in zip(sides, scales, self.image_size, strict=True)
        )
        return rows, columns

    def _axis(self, side: int, scaled: int, new: int) -> Tensor:
        """Return the matrix that scales an axis, then crops or pads it about the centre."""
        matrix = F.interpolate(
            torch.eye(side)[None, None], (scaled, side), mode=self._interpolation, antialias=True
        )
        before = (new - scaled) // 2 if new > scaled else -round((scaled - new) / 2)
        matrix = F.pad(matrix, (0, 0, before, new - scaled - before))  # a negative border crops
        return matrix[0, 0].to(self.mean)


def _unit(features: Tensor) -> Tensor:
    """Normalise features, in float32 at least: half precision is too coarse to rank seeds."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
