"""Make torchvision importable beside a PyTorch that its compiled operators were not built for.

The package index has one torchvision build per system; on Linux it is linked against CUDA. Beside a
CPU build of PyTorch its operators cannot be loaded. torchvision is meant to work without them (all
but detection does), yet it describes two of them without asking whether they are there, and its
import fails with "operator torchvision::nms does not exist". This script gives those two the check
that torchvision makes for all the others. It changes nothing where the import works.

Run it with the Python of the environment to mend.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

UNGUARDED = '@torch.library.register_fake("torchvision::'
GUARDED = '@_register_fake("torchvision::'
HELPER = '''

def _register_fake(name):
    """Describe an operator only if the compiled operators are there (FuseDream's mend)."""
    if torchvision.extension._has_ops():
        return torch.library.register_fake(name)
    return lambda function: function
'''
AFTER = "import torchvision.extension  # noqa: F401\n"


def import_problem() -> str:
    """What ``import torchvision`` says in a fresh interpreter; empty if it works."""
    command = [sys.executable, "-c", "import torchvision"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stderr.strip() or "unknown reason" if result.returncode else ""


def mend_source(source: str) -> str:
    """The text of torchvision's ``_meta_registrations.py`` with the missing check.

    Raises:
        ValueError: If this is not the text that the mend knows.
    """
    if UNGUARDED not in source or source.count(AFTER) != 1:
        raise ValueError("This torchvision is laid out in a way that the mend does not know.")
    return source.replace(AFTER, AFTER + HELPER).replace(UNGUARDED, GUARDED)


def mend(package: Path) -> None:
    """Mend the torchvision in ``package`` (its folder)."""
    module = package / "_meta_registrations.py"
    mended = module.with_suffix(".mended")
    mended.write_text(mend_source(module.read_text(encoding="utf-8")), encoding="utf-8")
    # A new file in its place: installers may share the old one with other environments.
    mended.replace(module)


def main() -> int:
    """Mend if needed; 0 if torchvision works afterwards."""
    problem = import_problem()
    if "torchvision::nms does not exist" in problem:
        try:
            mend(Path(sysconfig.get_path("platlib")) / "torchvision")
        except (OSError, ValueError) as error:
            problem = f"{problem}\n{error}"
        else:
            problem = import_problem()
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    raise SystemExit(main())
