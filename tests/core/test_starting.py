from __future__ import annotations

import signal

import pytest

from fusedream_core import starting


def test_another_program_keeps_its_handler() -> None:
    """Only the command line's own process ends at once."""
    assert signal.getsignal(signal.SIGINT) is not starting.exit_at_once


def test_the_end_of_the_start_restores_pythons_handler() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, starting.exit_at_once)
        starting.end_startup()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_others_stays() -> None:
    def own(*_: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGINT, own)
    try:
        starting.end_startup()
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_line_and_the_usual_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(starting.os, "_exit", leave)
    with pytest.raises(SystemExit):
        starting.exit_at_once(signal.SIGINT, None)
    assert codes == [130]
    assert capfd.readouterr().err == "Stopped.\n"
