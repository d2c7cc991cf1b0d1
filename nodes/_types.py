"""Socket types of FuseDream, and inputs that several nodes share.

Values of ``FUSEDREAM_GAN``, ``FUSEDREAM_CLIP`` and ``FUSEDREAM_LPIPS`` are ``_models.Managed``
handles. Those of ``FUSEDREAM_TRACE`` are a ``Trace``. The others are dataclasses of
``fusedream_core`` with tensors on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar, get_args

from comfy_api.latest import io

from ..fusedream_core.config import DEFAULT, PAPER, REFERENCE_CODE, BlendMode, ComposeConfig
from ..fusedream_core.errors import ConfigError
from ..fusedream_core.rng import MAX_SEED

ValueT = TypeVar("ValueT")

CATEGORY = "FuseDream"
PRESETS = {"default": DEFAULT, "paper": PAPER, "reference code": REFERENCE_CODE}
AS_PRESET = -1

GanSocket = io.Custom("FUSEDREAM_GAN")
ClipSocket = io.Custom("FUSEDREAM_CLIP")
LpipsSocket = io.Custom("FUSEDREAM_LPIPS")
TargetSocket = io.Custom("FUSEDREAM_TARGET")
BankSocket = io.Custom("FUSEDREAM_BANK")
BasisSocket = io.Custom("FUSEDREAM_BASIS")
LatentSocket = io.Custom("FUSEDREAM_LATENT")
TraceSocket = io.Custom("FUSEDREAM_TRACE")


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """The value of a trace socket.

    Attributes:
        values: One value for each step.
        name: Name of the values, such as "AugCLIP".
        title: Title of the chart, such as the prompt.
    """

    values: tuple[float, ...]
    name: str
    title: str


_SCHEMA_FIELDS = frozenset(field.name for field in dataclasses.fields(io.Schema))


def make_schema(**fields: object) -> io.Schema:
    """Return a schema in our category, without fields that this ComfyUI does not support.

    ComfyUI 0.3.75 would raise ``TypeError`` for ``search_aliases``, for example.
    """
    fields.setdefault("category", CATEGORY)
    return io.Schema(**{name: value for name, value in fields.items() if name in _SCHEMA_FIELDS})


def chosen(options: Mapping[str, ValueT], name: object, what: str) -> ValueT:
    """Return the value of a widget's option; ComfyUI 0.3.75 does not check options.

    Raises:
        ConfigError: If the name is none of the options.
    """
    if not isinstance(name, str) or name not in options:
        raise ConfigError(f"{what} is {name!r}, but it must be one of {', '.join(options)}.")
    return options[name]


class NameInput(io.Combo.Input):
    """A list of names that also accepts a linked text.

    A linked value is not known before the run, so ``execute`` has to check it.
    """

    def __init__(self, id: str, **more: object) -> None:  # noqa: A002 - ComfyUI's name
        super().__init__(id, **more)
        self.widget_type = io.Combo.io_type

    def get_io_type(self) -> str:
        """Return the types of the socket; the widget is a list."""
        return f"{io.Combo.io_type},{io.String.io_type}"


def seed_input(tooltip: str, *, changes: bool = True) -> io.Int.Input:
    """Return the seed widget, with all 64 bits.

    Args:
        tooltip: The effect of the seed in this node.
        changes: Whether the frontend adds its "control after generate" widget.
    """
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MAX_SEED,
        control_after_generate=changes,
        tooltip=tooltip,
    )


def truncation_input() -> io.Float.Input:
    """Return the truncation widget; 0 stands for the GAN's own value."""
    return io.Float.Input(
        "truncation",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip=(
            "How far latents may deviate from their mean. Low values give clean pictures "
            "with little variety, high values more variety and more artefacts. 0: the GAN's "
            "own value."
        ),
    )


def blend_inputs() -> list[io.Input]:
    """Return the blend widgets, the same in every node that pastes."""
    default = ComposeConfig()
    return [
        io.Combo.Input(
            "blend",
            options=list(get_args(BlendMode)),
            default=default.blend,
            tooltip=(
                "How the border of the pasted picture is hidden. poisson: its colours are "
                "fitted to the surroundings. mixed: stronger edges of the background also "
                "show through. feather: a soft edge. none: a plain paste."
            ),
        ),
        io.Float.Input(
            "blend_strength",
            default=default.blend_strength,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Strength of the blend, from 0, the plain paste, to 1, the blended picture.",
        ),
    ]
