"""What the demo command refuses before its work, and keeps after it; without a server."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import pytest

import demo
import demo_options


def test_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    too_long = "x" * 300 + ".png"
    for name, said in (
        ("/proc/x.png", "cannot be written"),
        (str(tmp_path / too_long), "cannot be written"),
        (f"{__file__}/x.png", "is a file, so"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=said):
            demo_options.png_path(name)
    assert demo_options.png_path(str(tmp_path / "new" / "x.png")) == tmp_path / "new" / "x.png"
    assert not list((tmp_path / "new").iterdir())


def test_link_to_a_file_that_is_not_there(tmp_path: Path) -> None:
    link, target = tmp_path / "link.png", tmp_path / "target.png"
    link.symlink_to(target)
    assert demo_options.png_path(str(link)) == target
    assert link.is_symlink()
    assert not target.exists()


def test_image_of_another_process_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, usual = tmp_path / "x.png", os.close

    def close(handle: int) -> None:
        usual(handle)
        path.write_bytes(b"theirs")

    monkeypatch.setattr("demo_options.os.close", close)
    demo_options.try_output(path)
    assert path.read_bytes() == b"theirs"


def test_prompt_of_another_locale() -> None:
    """UTF-8 that an ASCII locale took apart is put together; what is no text is refused."""
    torn = "ein H\u00fcndchen".encode().decode("ascii", "surrogateescape")
    assert demo_options.prompt(torn) == "ein H\u00fcndchen"
    with pytest.raises(argparse.ArgumentTypeError, match="something that is no character"):
        demo_options.prompt("a dog \udcff")


def test_file_name_is_no_longer_than_a_name_may_be() -> None:
    """Sixty letters of some scripts are 240 bytes."""
    path = demo.default_path("\U00020000" * 99, 2**64 - 1, "composition")
    assert len(path.name.encode()) <= 255
    assert path.name.startswith("\U00020000")


def test_picture_that_cannot_be_saved_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = demo.save_picture(b"content", Path("/proc/x.png"))
    assert kept.parent == tmp_path
    assert kept.read_bytes() == b"content"
    assert "/proc/x.png could not be written" in capsys.readouterr().err
    assert demo.save_picture(b"content", tmp_path / "x.png") == tmp_path / "x.png"
