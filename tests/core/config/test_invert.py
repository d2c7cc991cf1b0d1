from __future__ import annotations

import pytest

from fusedream_core import AdamConfig, ConfigError, InvertConfig, OptimizeConfig
from fusedream_core.config import from_plain


def test_exception() -> None:
    with pytest.raises(ConfigError, match="trial_share is 2"):
        InvertConfig(trial_share=2.0)


def test_an_optimize_config_gives_what_it_shares() -> None:
    with pytest.warns(DeprecationWarning, match="takes an AdamConfig"):
        config = InvertConfig(optimize=OptimizeConfig(num_steps=3, start="alone"))
    assert config.optimize == AdamConfig(num_steps=3)


def test_settings_of_older_images_are_read() -> None:
    """Earlier versions wrote all settings of the optimisation, and those that are constants now."""
    older = {
        "optimize": {
            "num_steps": 5,
            "lr_z": 0.1,
            "lr_y": 0.1,
            "start": "best",
            "objective": "aug_clip",
            "num_starts": 3,
            "trial_share": 0.2,
            "first_augments": 0.5,
            "y_mode": "free",
            "patience": None,
            "z_clamp": 2.0,
            "ema_decay": 0.95,
        },
        "clip_weight": 0.3,
        "color_weight": 0.5,
    }
    found = from_plain(InvertConfig, older)
    assert found.optimize == AdamConfig(num_steps=5, lr_z=0.1, lr_y=0.1, start="best")


@pytest.mark.parametrize("name", ["patience", "z_clamp", "y_mode"])
def test_older_settings_that_changed_something_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting '{name}'"):
        from_plain(InvertConfig, {"optimize": {name: 1}})
