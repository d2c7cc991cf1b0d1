"""Unfinished runs in files, to resume them."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from ..models.weights import read_safetensors
from ..output import write_whole
from ..state import State, flatten, unflatten
from .provenance import CHUNK, Provenance

logger = logging.getLogger(__name__)

SUFFIX = ".fusedream.safetensors"
_STATE = "state"  # metadata key of the JSON part of the state


@dataclass(frozen=True, slots=True, eq=False)
class SavedRun:
    """An unfinished run.

    Attributes:
        provenance: Record of the image.
        state: State of the run.
    """

    provenance: Provenance
    state: State


def save_run(run: SavedRun, path: Path) -> None:
    """Write a run to a safetensors file atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors.torch import save

    tensors, plain = flatten(run.state)
    notes = {CHUNK: run.provenance.to_json(), _STATE: json.dumps(plain)}
    write_whole(path, save({name: own.cpu().contiguous() for name, own in tensors.items()}, notes))


def load_run(path: Path) -> SavedRun:
    """Read a run.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another kind.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is no saved run; the name of one ends in {SUFFIX}.")
    tensors, notes = read_safetensors(path)
    if not {CHUNK, _STATE} <= notes.keys():
        raise CheckpointError(f"The file {path} holds no saved run of FuseDream.")
    try:
        provenance = Provenance.from_json(notes[CHUNK])
        state = unflatten(tensors, json.loads(notes[_STATE]))
    except (ConfigError, ValueError, RecursionError) as error:
        raise CheckpointError(f"The saved run {path} is damaged ({error}); start anew.") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"The saved run {path} is damaged; start anew.")
    return SavedRun(provenance, state)


class RunKeeper:
    """Stores the latest state of a run, and saves it periodically.

    Pass one to ``generate``; after an interruption, call ``save``.

    Attributes:
        path: The file.
        last: The run after its latest step; None before the first.
        is_saved: Whether the file was written.
    """

    def __init__(self, path: Path | str, *, every: int | None = None) -> None:
        """Set the file, and the number of steps between saves; None means manual saves."""
        if every is not None and every < 1:
            raise ConfigError(f"every is {every!r}, but it must be a whole number of at least 1.")
        self.path, self.is_saved = Path(path), False
        self.last: SavedRun | None = None
        self._every, self._waiting = every, 0

    def note(self, run: SavedRun) -> None:
        """Store the state of the run, after a step or a stage."""
        self.last = run
        is_step = run.state.get("engine") is not None
        self._waiting += 1
        if self._every is None or (is_step and self._waiting < self._every):
            return
        try:
            self.save()
        except OSError as error:  # the run goes on without saves
            self._every = None
            logger.warning("The run cannot be kept as %s any more: %s", self.path, error)

    def save(self) -> bool:
        """Write the file. Returns whether there was anything to write.

        Raises:
            OSError: If it cannot be written.
        """
        if self.last is None:
            return False
        save_run(self.last, self.path)
        self.is_saved, self._waiting = True, 0
        return True
