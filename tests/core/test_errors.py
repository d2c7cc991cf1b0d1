from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fusedream_core import ConfigError, MissingDependencyError
from fusedream_core.config.require import require_count
from fusedream_core.models.clip.package import open_clip_package
from fusedream_core.models.download import _hub
from fusedream_core.models.gan.deep_checkpoint import make_network
from fusedream_core.models.lpips import make_lpips


class TestConfigError:
    def test_names_its_setting(self) -> None:
        with pytest.raises(ConfigError, match="num is 0, but it must be") as caught:
            require_count("num", 0, 1)
        assert caught.value.setting == "num"
        assert ConfigError("Two things do not fit.").setting is None


class TestMissingDependencyError:
    def test_for_this_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A plain "pip" is often another Python's, as with ComfyUI's portable build."""
        monkeypatch.setattr(sys, "executable", "C:\\Comfy UI\\python.exe")
        error = MissingDependencyError.of("open_clip", "CLIP", "open_clip_torch")
        assert str(error) == (
            "The package open_clip is needed for CLIP; run: "
            '"C:\\Comfy UI\\python.exe" -m pip install open_clip_torch'
        )

    @pytest.mark.parametrize(
        ("package", "distribution", "work"),
        [
            ("lpips", "lpips", lambda: make_lpips("squeeze")),
            (
                "pytorch_pretrained_biggan",
                "pytorch-pretrained-biggan",
                lambda: make_network({}, {}, Path("x")),
            ),
            ("open_clip", "open_clip_torch", open_clip_package),
            ("huggingface_hub", "huggingface_hub", _hub),
        ],
    )
    def test_wherever_a_package_is_missing(
        self,
        monkeypatch: pytest.MonkeyPatch,
        package: str,
        distribution: str,
        work: Callable[[], object],
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)  # whose import then fails
        with pytest.raises(MissingDependencyError) as caught:
            work()
        assert str(caught.value).endswith(f'"{sys.executable}" -m pip install {distribution}')
