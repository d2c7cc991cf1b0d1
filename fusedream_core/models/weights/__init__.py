"""Safe reading of weight files: no code is run, and every error is one sentence."""

from .files import (
    INDEX_SUFFIX,
    WEIGHT_SUFFIXES,
    find_file,
    find_weights,
    fingerprint,
    read_json,
    reading,
    weight_files,
)
from .state_dict import (
    check_finite,
    check_floats,
    load_weights,
    name_faults,
    read_checkpoint,
    read_safetensors,
    read_state_dict,
)
from .unwrap import part_of

__all__ = [
    "INDEX_SUFFIX",
    "WEIGHT_SUFFIXES",
    "check_finite",
    "check_floats",
    "find_file",
    "find_weights",
    "fingerprint",
    "load_weights",
    "name_faults",
    "part_of",
    "read_checkpoint",
    "read_json",
    "read_safetensors",
    "read_state_dict",
    "reading",
    "weight_files",
]
