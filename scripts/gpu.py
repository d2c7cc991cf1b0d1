"""All that a machine with a GPU is asked, in minutes, the most important first.

    python scripts/dev.py gpu --out FOLDER

Each part is a process with a time limit of its own, and what it finds is in FOLDER as soon as it is
there: ``NAME.json``, with the status and the tests or rows, and ``NAME.log`` with all that was
said. At the end, or after Ctrl-C, ``report.md`` has the tables for docs/performance.md; made anew
from the folder with ``--report``. ``--device cpu --small`` goes through all of it without a GPU, on
models of no size.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from comfy_server import terminate_as_interrupt
from environment import ROOT, SCRIPTS
from stages import say, stage

sys.path.insert(0, str(SCRIPTS / "bench"))

from _table import HEAD, line

REAL = SCRIPTS / "bench" / "real.py"
MINUTES = 8.0
CPU_PATIENCE = 15  # times the limits of a GPU
LEAST_SECONDS = 5.0  # with less left a part is not begun
TAIL_LINES = 30
FACTS = """
import json, sys, torch
device = torch.device(sys.argv[1])
facts = {"python": sys.version.split()[0], "torch": torch.__version__, "device": str(device)}
if device.type == "cuda":
    properties = torch.cuda.get_device_properties(device)
    facts |= {"name": properties.name, "memory MB": properties.total_memory // 2**20}
    facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    torch.ones(8, device=device).sum().item()
print(json.dumps(facts))
"""
OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process.

    Attributes:
        name: What its files are called.
        seconds: How long it may take.
        command: The program and its arguments.
        soak: Whether the long tests are to be collected.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    soak: bool = False


def make_parts(device: str, small: bool, out: Path) -> list[Part]:
    """All parts in their order."""
    python = sys.executable
    pytest = (str(Path(python).with_name("pytest")), "-v", "-p", "no:cacheprovider", "--tb=short")
    cuda = device.startswith("cuda")
    flags = "TestFlags and " + ("text_to_image" if cuda else "test_cpu")
    files = ("tests/core/test_cuda.py", "tests/core/test_devices.py", "tests/nodes/test_devices.py")
    few = ("-k", "refuses or gradients_stay or TestSameSeed") if small else ()
    tail = ("--device", device, *(("--small",) if small else ()))
    patience = 1 if cuda else CPU_PATIENCE

    def part(name: str, seconds: float, command: tuple[str, ...], *, soak: bool = False) -> Part:
        return Part(name=name, seconds=patience * seconds, command=command, soak=soak)

    def real(name: str, seconds: float) -> Part:
        rows = ("--rows", str(rows_path(out, name)))
        return part(name, seconds, (python, str(REAL), name, *tail, *rows))

    return [
        part("device", 60, (python, "-c", FACTS, device)),
        part("tests", 120, (*pytest, *files, *few)),
        part("flags", 120, (*pytest, "tests/soak", "-k", flags), soak=True),
        real("step", 90),
        real("generator", 60),
        real("composition", 60),
        real("memory", 30),
        real("bits", 40),
    ]


def rows_path(out: Path, name: str) -> Path:
    """Where a part's rows go, one after another."""
    return out / f"{name}.rows.jsonl"


def run_part(part: Part, limit: float, out: Path) -> dict[str, Any]:
    """Run a part within a time limit; returns what its file says."""
    log, variables = out / f"{part.name}.log", dict(os.environ)
    rows_path(out, part.name).unlink(missing_ok=True)
    if part.soak:
        variables["FUSEDREAM_SOAK"] = "1"
    begin = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            status = "passed" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "cut off by its time limit"
        finally:
            end_family(process)
    seconds = time.monotonic() - begin
    found = {"part": part.name, "status": status, "seconds": round(seconds, 1), "limit": limit}
    return found | read_results(part.name, out) | {"command": list(part.command)}


def end_family(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        member.terminate()
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for member in alive:
        member.kill()
    process.wait()


def read_results(name: str, out: Path) -> dict[str, Any]:
    """What a part has left in its files: rows, tests, facts, and the end of its log."""
    text = (out / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    found: dict[str, Any] = {"log": text.splitlines()[-TAIL_LINES:]}
    if rows_path(out, name).is_file():
        lines = rows_path(out, name).read_text(encoding="utf-8").splitlines()
        found["rows"] = [json.loads(row) for row in lines]
    outcomes = OUTCOME.findall(text)
    if outcomes:
        found["tests"] = {
            word.lower(): [test for test, outcome in outcomes if outcome == word]
            for word in dict.fromkeys(outcome for _, outcome in outcomes)
        }
    if name == "device" and text.rstrip().endswith("}"):
        found["facts"] = json.loads(text.splitlines()[-1])
    return found


def run_all(parts: Sequence[Part], out: Path, minutes: float) -> list[dict[str, Any]]:
    """Run parts until the time is over, and write each one's file when it ends."""
    end, results = time.monotonic() + 60 * minutes, []
    for part in parts:
        limit = min(part.seconds, end - time.monotonic())
        if limit < LEAST_SECONDS:
            result: dict[str, Any] = {"part": part.name, "status": "not begun: no time left"}
        else:
            with stage(f"{part.name} (at most {limit:.0f} s)"):
                result = run_part(part, limit, out)
        text = json.dumps(result, indent=1) + "\n"
        (out / f"{part.name}.json").write_text(text, encoding="utf-8")
        say(f"  {summary(result)}")
        results.append(result)
    return results


def summary(result: dict[str, Any]) -> str:
    """A part's result in some words."""
    words = [str(result["status"])]
    words += [f"{len(tests)} {outcome}" for outcome, tests in result.get("tests", {}).items()]
    if "rows" in result:
        words.append(f"{len(result['rows'])} rows")
    return ", ".join(words)


def report(out: Path, names: Sequence[str]) -> str:
    """What the folder has, as a section of docs/performance.md."""
    found = {}
    for name in names:
        path = out / f"{name}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    facts = found.get("device", {}).get("facts", {})
    lines = ["`python scripts/dev.py gpu`: " + ", ".join(f"{k} {v}" for k, v in facts.items())]
    for name, result in found.items():
        lines += ["", f"{name}: {summary(result)}."]
        lines += [f"- {test} failed" for test in result.get("tests", {}).get("failed", [])]
        if result.get("rows"):
            lines += ["", HEAD, *map(line, result["rows"])]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all parts; 0 if each of them passed."""
    parser = argparse.ArgumentParser(prog="dev.py gpu", description="All that a GPU is asked.")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the results")
    parser.add_argument("--device", default="cuda", help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="models of no size: a rehearsal")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="(default: %(default)s)")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="these alone (default: all)")
    parser.add_argument("--report", action="store_true", help="make report.md anew, run nothing")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = make_parts(args.device, args.small, out)
    names = [part.name for part in parts]
    wrong = sorted(set(args.parts or []) - set(names))
    if wrong:
        parser.error(f"there is no part {wrong[0]!r}; there are {', '.join(names)}")
    results: list[dict[str, Any]] = []
    try:
        if not args.report:
            chosen = [part for part in parts if part.name in (args.parts or names)]
            with terminate_as_interrupt():
                results = run_all(chosen, out, args.minutes)
    except KeyboardInterrupt:
        say("Stopped.")
    finally:
        (out / "report.md").write_text(report(out, names), encoding="utf-8")
    say(f"The results are in {out}; report.md has the tables.")
    return 0 if all(result["status"] == "passed" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
