from __future__ import annotations

from pathlib import Path

import pytest

from fusedream_core.__main__ import main
from fusedream_core.models.catalogue import CatalogueModel


class TestMain:
    def test_models(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models"]) == 0
        listed = capsys.readouterr().out
        assert "biggan-deep-256" in listed
        assert "for research only" in listed

    def test_download(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def download(model: CatalogueModel, root: Path) -> Path:
            return root / model.name

        monkeypatch.setattr("fusedream_core.__main__.download_model", download)
        assert main(["download", "lpips-vgg", "--to", str(tmp_path)]) == 0
        assert str(tmp_path / "lpips" / "lpips-vgg") in capsys.readouterr().out
        assert main(["download", "gone"]) == 2
        assert "There is no model 'gone'; there are biggan-deep-128" in capsys.readouterr().err

    def test_stop_of_a_download(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def download(*_: object) -> Path:
            raise KeyboardInterrupt

        monkeypatch.setattr("fusedream_core.__main__.download_model", download)
        assert main(["download", "lpips-vgg", "--to", str(tmp_path)]) == 130
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", "Stopped.\n")

    def test_help_says_where_files_go(self, capsys: pytest.CaptureFixture[str]) -> None:
        said = {}
        for command in ("generate", "compose", "download"):
            with pytest.raises(SystemExit):
                main([command, "--help"])
            said[command] = "".join(capsys.readouterr().out.split())
        for command in ("generate", "compose"):
            assert "NAME.pngismadeasNAME-again.png" in said[command]
            assert "asNAME.fusedream.safetensorsforNAME.png" in said[command]
        assert "./models,inthecurrentfolder" in said["download"]
