"""CLIP, over the package ``open_clip``: any of its models as an encoder of images and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...determinism import repeatable, repeatable_attention
from ...finite import check_finite_output
from .fuse import kept_numbers, make_lean
from .words import untrained_words

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
            features = _unit(self.model.encode_image(pixels))  # type: ignore[operator]
        return self._checked(features, images, pixels.dtype)

    def _checked(self, features: Tensor, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Features of images or texts, if all of them are finite."""
        return check_finite_output(
            features,
            f"the CLIP {self.clip_id}",
            dtype=dtype,
            inputs=(images,),
            source="the GAN or whatever made the images",
        )

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
                features = _unit(self.model.encode_text(tokens))  # type: ignore[operator]
            self._checked(features, tokens, self.mean.dtype)
            features = features.cpu()
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

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of this text that the model was never trained on, as far as can be told."""
        return untrained_words(text, self.tokenizer, self.model)

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


def _unit(features: Tensor) -> Tensor:
    """Features of length 1; at least float32, as half precision blurs the ranking of seeds."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
