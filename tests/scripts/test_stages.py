"""What the first run says: one line a stage, the details in a log."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

import stages
from stages import PipProgress, Stage, reasons, run_logged, stage


class Terminal(io.StringIO):
    """A standard error that a person watches."""

    def isatty(self) -> bool:
        return True


class TestStage:
    def test_is_one_line_with_its_seconds(self, capsys: pytest.CaptureFixture[str]) -> None:
        with stage("Installing") as line:
            for done in range(9):
                line.show(done, 9, "installed")
        said = capsys.readouterr()
        assert re.fullmatch(r"Installing \.\.\. \d+ s\n", said.err)
        assert said.out == ""  # results alone go there

    def test_that_fails_says_so_in_its_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ZeroDivisionError), stage("Dividing"):
            _ = 1 / 0
        assert re.fullmatch(r"Dividing \.\.\. failed after \d+ s\n", capsys.readouterr().err)

    def test_a_bar_moves_where_a_person_watches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "60")
        with stage("Installing") as line:
            line.show(3, 12, "a name that is longer than there is room for in the line")
            line.show(12, 12)
        shown = terminal.getvalue().split("\r")
        assert "[######..................] 3/12" in shown[2]
        assert f"[{'#' * stages.BAR_CELLS}] 12/12" in shown[3]
        assert shown[4].rstrip(" \n").endswith(" s")
        assert len(shown[4].rstrip("\n")) >= len(shown[3].rstrip("\n"))  # nothing is left of it
        assert terminal.getvalue().count("\n") == 1
        assert max(len(line.rstrip("\n")) for line in shown) < 60  # or it would wrap


class TestRunLogged:
    def test_what_is_said_goes_to_the_log(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        log, seen = tmp_path / "new" / "setup.log", list[str]()
        code = "import sys; print('out'); print('err', file=sys.stderr)"
        for _ in range(2):
            assert run_logged([sys.executable, "-c", code], log, seen.append)[0] == 0
        text = log.read_text("utf-8")
        assert text.count("out\n") == text.count("err\n") == 2
        assert sorted(seen) == ["err", "err", "out", "out"]
        assert capfd.readouterr() == ("", "")

    def test_the_reason_comes_back(self, tmp_path: Path) -> None:
        code = "print('a'); print('ERROR: No such package'); print('b'); raise SystemExit(3)"
        found = run_logged([sys.executable, "-c", code], tmp_path / "log")
        assert found == (3, "ERROR: No such package")

    @pytest.mark.parametrize(
        ("said", "expected"),
        [("", ""), ("one\n\ntwo\n\n", "two"), ("ERROR: a\nERROR: b\nafter", "ERROR: a\nERROR: b")],
    )
    def test_reasons(self, said: str, expected: str) -> None:
        assert reasons(said) == expected


class TestPipProgress:
    def test_counts_what_is_found_and_what_appears(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown = SimpleQueue[tuple[int, int | None]]()
        monkeypatch.setattr(stages, "POLL_SECONDS", 0.001)
        line = Stage("Installing", watched=False)
        monkeypatch.setattr(line, "show", lambda done, total, what: shown.put((done, total)))
        (tmp_path / "old-1.dist-info").mkdir()
        progress = PipProgress(line, tmp_path)
        progress("Collecting one>=1 (from -r file)")
        progress("  Downloading one-1.whl (3 kB)")
        progress("Collecting two")
        assert (shown.get(), shown.get()) == ((1, None), (2, None))
        progress("Installing collected packages: two, one")
        assert shown.get() == (0, 2)
        for name in ("one", "two"):
            (tmp_path / f"{name}-1.dist-info").mkdir()
        while shown.get() != (2, 2):
            pass
        progress.close()
