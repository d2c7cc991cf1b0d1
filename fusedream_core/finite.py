"""A check of model outputs for NaN and infinite values.

One such value makes every later score NaN and the image black. The check is one sum per output,
which is finite only if all values are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import NonFiniteError


def check_finite_output(
    output: Tensor, model: str, *, dtype: torch.dtype, inputs: tuple[Tensor, ...], source: str
) -> Tensor:
    """Return a model's output if all values are finite.

    Args:
        output: Output of the model; its sum must not overflow.
        model: Kind and name of the model, for the message.
        dtype: Compute dtype of the model.
        inputs: Inputs of the model.
        source: Origin of the inputs, for the message.

    Raises:
        NonFiniteError: If a value is NaN or infinite.
    """
    if math.isfinite(float(output.detach().sum())):
        return output
    if dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        advice = f"it computes in {name}, and a half precision can overflow; load it in float32"
    else:
        advice = "if another model is in half precision, which can overflow, load it in float32"
    if all(math.isfinite(float(part.detach().sum())) for part in inputs):
        raise NonFiniteError(f"The output of {model} holds NaN or infinite numbers; {advice}.")
    raise NonFiniteError(
        f"The input of {model} holds NaN or infinite numbers, which come from {source}; {advice}."
    )
