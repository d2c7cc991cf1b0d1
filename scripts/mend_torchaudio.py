"""Make torchaudio importable beside a PyTorch that its compiled operators were not built for.

The package index has one torchaudio build per system; on Linux it is linked against CUDA, and its
import fails beside a CPU build of PyTorch. torchaudio works without its operators (all but forced
alignment does) where their file is not there, so this script puts that file aside. It changes
nothing where the import works or where there is no torchaudio.

Run it with the Python of the environment to mend.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

OPERATORS = "_torchaudio*"
ASIDE = ".aside"


def import_problem() -> str:
    """What ``import torchaudio`` says in a fresh interpreter; empty if it works."""
    command = [sys.executable, "-c", "import torchaudio"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stderr.strip() or "unknown reason" if result.returncode else ""


def put_aside(package: Path) -> list[Path]:
    """Rename the file of operators in ``package`` (its folder); returns what was renamed."""
    found = [path for path in sorted((package / "lib").glob(OPERATORS)) if path.suffix != ASIDE]
    for path in found:
        path.replace(path.with_name(path.name + ASIDE))
    return found


def main() -> int:
    """Mend if needed; 0 if torchaudio works afterwards, or is not there at all."""
    if importlib.util.find_spec("torchaudio") is None:
        return 0
    problem = import_problem()
    if "Could not load this library" in problem:
        put_aside(Path(sysconfig.get_path("platlib")) / "torchaudio")
        problem = import_problem()
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    raise SystemExit(main())
