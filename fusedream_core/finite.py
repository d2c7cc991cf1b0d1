"""What a model makes is checked for NaN and infinite numbers where it comes out of the model.

One such number spoils every score after it, and ends in a black image. Checked is one sum, which is
not finite if a number is not; numbers that are finite stay as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import NonFiniteError


def check_finite_output(
    output: Tensor, model: str, *, dtype: torch.dtype, inputs: tuple[Tensor, ...], source: str
) -> Tensor:
    """The output of a model, if all of it is finite.

    Args:
        output: What the model made, of numbers that are small where they are finite.
        model: What the model is and its name, for the message.
        dtype: What it computes in.
        inputs: What it was made of.
        source: Where these come from, for the message.

    Raises:
        NonFiniteError: If a number is NaN or infinite.
    """
    if math.isfinite(float(output.detach().sum())):
        return output
    if dtype in (torch.float16, torch.bfloat16):
        computes = f"it computes in {str(dtype).removeprefix('torch.')}"
        advice = f"{computes}, and a half precision can overflow; load it in float32"
    else:
        advice = "if another model is in half precision, which can overflow, load it in float32"
    if all(math.isfinite(float(part.detach().sum())) for part in inputs):
        raise NonFiniteError(f"The output of {model} holds NaN or infinite numbers; {advice}.")
    raise NonFiniteError(
        f"The input of {model} holds NaN or infinite numbers, which come from {source}; {advice}."
    )
