"""A disk that fills up, and other hindrances: one sentence, and nothing half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fusedream_core import (
    Bank,
    FuseDreamError,
    GanLatent,
    Latent,
    SaveError,
    save_bank,
    save_latent,
)
from fusedream_core.images import save_png
from fusedream_core.output import write_whole

NUM = 200_000


def latent(path: Path) -> None:
    save_latent(GanLatent(Latent(torch.zeros(1, NUM), torch.zeros(1, 4), 0.5), "tiny"), path)


def bank(path: Path) -> None:
    features, classes = torch.zeros(NUM, 2), torch.zeros(NUM, dtype=torch.int64)
    save_bank(Bank(features, classes, "gan", "clip", 0.5), path)


def png(path: Path) -> None:
    save_png(torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0)), path, {})


SAVERS: dict[str, Callable[[Path], None]] = {
    "latent.safetensors": latent,
    "bank.safetensors": bank,
    "image.png": png,
}


@contextmanager
def little_space(num: int) -> Iterator[None]:
    """While it lasts, the system itself refuses files of more than so many bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", SAVERS)
class TestFullDisk:
    def test_in_the_middle_of_a_file(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b"old")
        with pytest.raises(SaveError) as caught, little_space(50_000):
            SAVERS[name](path)
        sentence = (
            f"The file {path} could not be written (the disk is full); free some space there, or "
            "choose a folder that can be written to"
        )
        # An image is kept elsewhere, and no place takes so much here.
        elsewhere = "; nor into the folder for temporary files" if name.endswith(".png") else ""
        assert str(caught.value) == f"{sentence}{elsewhere}."
        assert path.read_bytes() == b"old"
        assert [file.name for file in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_by_its_number(
        self, tmp_path: Path, name: str, code: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(FuseDreamError, match="the disk is full") as caught:
            SAVERS[name](tmp_path / name)
        assert "Errno" not in str(caught.value)
        assert not any(tmp_path.iterdir())

    def test_a_folder_that_cannot_be(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SaveError, match="could not be written"):
            SAVERS[name](tmp_path / "file" / name)
        with pytest.raises(SaveError, match=r"null (byte|character)"):
            SAVERS[name](tmp_path / f"a\0{name}")


def test_write_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "file", b"content")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
