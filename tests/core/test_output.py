from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fusedream_core import SaveError
from fusedream_core.output import try_output, write_or_keep


class TestTryOutput:
    def test_leaves_nothing_behind(self, tmp_path: Path) -> None:
        try_output(tmp_path / "new" / "image.png")
        assert list((tmp_path / "new").iterdir()) == []

    def test_leaves_what_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        path.write_bytes(b"old")
        os.utime(path, (1.0, 1.0))
        try_output(path)
        assert path.read_bytes() == b"old"
        assert path.stat().st_mtime == 1.0

    @pytest.mark.parametrize("there", [False, True])
    def test_link_is_written_through(self, there: bool, tmp_path: Path) -> None:
        link, target = tmp_path / "link.png", tmp_path / "far" / "image.png"
        if there:
            target.parent.mkdir()
            target.write_bytes(b"old")
        link.symlink_to(target)
        try_output(link)
        assert target.exists() == there
        write_or_keep(link, b"new")
        assert link.is_symlink()
        assert target.read_bytes() == b"new"
        assert sorted(file.name for file in tmp_path.rglob("*")) == [
            "far",
            "image.png",
            "link.png",
        ]

    def test_links_that_lead_to_themselves(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
        with pytest.raises(SaveError, match="cannot be written"):
            try_output(tmp_path / "a.png")
        with pytest.raises(SaveError, match="could not be written"):
            write_or_keep(tmp_path / "a.png", b"new")

    @pytest.mark.parametrize("how", ["written", "replaced"])
    def test_image_of_another_process_is_not_deleted(
        self, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It finishes between our trying of the name and our clearing away."""
        path, usual = tmp_path / "image.png", os.close

        def close(handle: int) -> None:
            usual(handle)
            if how == "written":
                path.write_bytes(b"theirs")
            else:
                (tmp_path / "theirs").write_bytes(b"theirs")
                (tmp_path / "theirs").replace(path)

        monkeypatch.setattr("fusedream_core.output.os.close", close)
        try_output(path)
        assert path.read_bytes() == b"theirs"

    def test_leaves_a_link_to_nothing(self, tmp_path: Path) -> None:
        """It removed the link, and left an empty file where that led."""
        path = tmp_path / "image.png"
        path.symlink_to(tmp_path / "later.png")
        try_output(path)
        assert list(tmp_path.iterdir()) == [path]
        assert path.is_symlink()

    def test_longest_name(self, tmp_path: Path) -> None:
        """What is written first has another name, which must not be too long where this is not."""
        path = tmp_path / ("\u00e9" * 125 + ".png")  # 254 bytes
        try_output(path)
        write_or_keep(path, b"new")
        assert path.read_bytes() == b"new"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("/proc/x.png", "cannot be written"),
            ("/dev/null", "is there and is no file"),
            (f"{__file__}/image.png", "is a file, so"),
            ("x" * 300, "File name too long"),
            ("a\0b.png", "cannot be written"),
        ],
    )
    def test_exception(self, name: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(SaveError, match=message):
            try_output(tmp_path / name)

    def test_name_that_is_no_text(self) -> None:
        with pytest.raises(SaveError) as caught:
            try_output(Path("/proc/\udcff.png"))
        str(caught.value).encode()

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
    def test_folder_without_the_right(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(SaveError, match="Permission denied"):
            try_output(tmp_path / "image.png")


class TestWriteOrKeep:
    def test_content_is_kept_at_a_place_that_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        gone = tmp_path / "gone"
        gone.write_bytes(b"")
        with pytest.raises(SaveError, match="could not be written") as caught:
            write_or_keep(gone / "image.png", b"content")
        (kept,) = tmp_path.glob("fusedream-*.png")
        assert str(kept) in str(caught.value)
        assert kept.read_bytes() == b"content"

    def test_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/proc")
        with pytest.raises(SaveError, match="nor into the folder for temporary files"):
            write_or_keep(Path("/proc/x.png"), b"content")
