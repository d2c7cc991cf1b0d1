"""Casts to half precision that leave sensitive tensors of a model in float32."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self


class MixedPrecision(nn.Module):
    """A module that casts only some of its tensors to half precision.

    This applies to ``.to(torch.float16)``, ``.half()`` and ``.bfloat16()``. Other casts, and moves
    between devices, apply to the whole module.

    Attributes:
        half_prefixes: Prefixes of the names of parameters and buffers that may be in half
            precision.
    """

    half_prefixes: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        named = chain(self.named_parameters(), self.named_buffers())
        half = {id(tensor) for name, tensor in named if name.startswith(self.half_prefixes)}

        def cast(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            keep = result.dtype in (torch.float16, torch.bfloat16) and id(tensor) not in half
            return tensor.to(result.device) if keep else result

        super()._apply(cast, recurse)  # type: ignore[no-untyped-call]
        return self
