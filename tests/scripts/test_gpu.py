"""The command for a machine with a GPU, on parts of its own and on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import environment
import gpu
from gpu import Part, make_parts, report, run_all

ROW = {"what": "a step", "which": "ours", "seconds": 1.5, "ratio": 2.0, "low": 1.0, "high": 3.0}


def python(name: str, code: str, seconds: float = 60, *arguments: str) -> Part:
    return Part(name=name, seconds=seconds, command=(sys.executable, "-c", code, *arguments))


def written(out: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((out / f"{name}.json").read_text(encoding="utf-8")))


class TestRunAll:
    def test_each_part_has_a_file_whatever_became_of_it(self, tmp_path: Path) -> None:
        rows = str(gpu.rows_path(tmp_path, "good"))
        write = f"import json, sys; open(sys.argv[1], 'a').write(json.dumps({ROW!r}) + '\\n')"
        parts = [
            python("good", write, 60, rows),
            python("bad", "print('why'); raise SystemExit(3)"),
        ]
        assert [one["status"] for one in run_all(parts, tmp_path, 2)] == ["passed", "failed"]
        assert written(tmp_path, "good")["rows"] == [ROW]
        assert written(tmp_path, "bad")["log"] == ["why"]

    def test_a_limit_ends_a_part_and_all_that_it_started(self, tmp_path: Path) -> None:
        code = (
            "import subprocess, sys; sleep = 'import time; time.sleep(600)';"
            "child = subprocess.Popen([sys.executable, '-c', sleep]);"
            "print(child.pid, flush=True); child.wait()"
        )
        (found,) = run_all([python("slow", code, gpu.LEAST_SECONDS)], tmp_path, 2)
        assert found["status"] == "cut off by its time limit"
        (pid,) = map(int, found["log"])
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    def test_what_there_is_no_time_for_is_not_begun(self, tmp_path: Path) -> None:
        (found,) = run_all([python("late", "raise SystemExit(1)")], tmp_path, 0.01)
        assert found["status"] == written(tmp_path, "late")["status"] == "not begun: no time left"
        assert not (tmp_path / "late.log").exists()

    def test_rows_of_an_earlier_run_do_not_count(self, tmp_path: Path) -> None:
        gpu.rows_path(tmp_path, "again").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
        (found,) = run_all([python("again", "pass")], tmp_path, 2)
        assert "rows" not in found

    def test_tests_are_counted_even_where_they_were_cut_off(self, tmp_path: Path) -> None:
        said = (
            "tests/a.py::test_x[1 2] PASSED [ 1%]\ntests/a.py::test_y FAILED\ntests/a.py::test_z "
        )
        (found,) = run_all([python("tests", f"print({said!r})")], tmp_path, 2)
        assert found["tests"] == {
            "passed": ["tests/a.py::test_x[1 2]"],
            "failed": ["tests/a.py::test_y"],
        }


class TestReport:
    def test_has_the_rows_and_the_failures(self, tmp_path: Path) -> None:
        facts = {"facts": {"name": "A card"}, "status": "passed"}
        tests = {"status": "failed", "tests": {"failed": ["a.py::b"], "passed": ["a.py::c"]}}
        for name, result in (("device", facts), ("tests", tests)):
            (tmp_path / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
        result = json.dumps({"status": "passed", "rows": [ROW]})
        (tmp_path / "step.json").write_text(result, encoding="utf-8")
        text = report(tmp_path, ["device", "tests", "flags", "step"])
        assert "name A card" in text
        assert "- a.py::b failed" in text
        assert "tests: failed, 1 failed, 1 passed." in text
        assert "| a step | ours | 1.500 |  | 2.00 (1.00-3.00) |  |  |" in text
        assert "flags" not in text


class TestParts:
    def test_take_less_than_eight_minutes_and_begin_with_the_tests(self, tmp_path: Path) -> None:
        names = [part.name for part in make_parts("cuda", False, tmp_path)]
        assert names[:4] == ["device", "tests", "flags", "step"]
        assert gpu.MINUTES <= 8

    @pytest.mark.slow
    def test_a_rehearsal_without_a_gpu(self, tmp_path: Path) -> None:
        """The short ones; the long tests go through all parts."""
        names = ["device", "tests", "step", "bits"]
        command = [sys.executable, str(environment.SCRIPTS / "gpu.py"), "--out", str(tmp_path)]
        command += ["--device", "cpu", "--small", "--minutes", "120", "--parts", *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = {name: written(tmp_path, name) for name in names}
        assert done.returncode == 0, {name: one["log"] for name, one in found.items()}
        assert found["device"]["facts"]["device"] == "cpu"
        assert found["tests"]["tests"]["passed"]
        assert [row["which"] for row in found["step"]["rows"][:2]] == [
            "reference code, one by one",
            "ours",
        ]
        assert all(row["equal"] for row in found["bits"]["rows"])
        assert "| gradient of a step, " in (tmp_path / "report.md").read_text(encoding="utf-8")

    def test_an_unknown_part_is_refused(self, tmp_path: Path) -> None:
        command = [sys.executable, str(environment.SCRIPTS / "gpu.py"), "--out", str(tmp_path)]
        done = subprocess.run(
            [*command, "--parts", "x"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "there is no part 'x'; there are device, tests" in done.stderr
