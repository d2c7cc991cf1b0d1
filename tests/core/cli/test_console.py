from __future__ import annotations

import io
import signal
import threading

import pytest
import torch

from fusedream_core import StepInfo
from fusedream_core.cli.console import StoppedError, Watch, flush, say, stoppable, unstoppable

# Windows has no SIGHUP.
SIGNALS = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]


class TestSay:
    @pytest.mark.parametrize(
        ("encoding", "said"),
        [("ascii", b"h\\xfcnd \\udcff\n"), ("utf-8", b"h\xc3\xbcnd \\udcff\n")],
    )
    def test_what_the_terminal_does_not_have(self, encoding: str, said: bytes) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding, newline="")
        say("h\u00fcnd \udcff", stream)
        assert raw.getvalue() == said

    @pytest.mark.parametrize("error", [OSError(28, "full"), BrokenPipeError(), ValueError()])
    def test_stream_that_cannot_be_written(self, error: Exception) -> None:
        class Broken(io.StringIO):
            def flush(self) -> None:
                raise error

        assert say("dog", Broken()) is error
        assert flush(Broken()) is error

    def test_stream_that_was_closed_from_the_start(self) -> None:
        assert say("dog", None) is None
        assert flush(None) is None


class TestSignals:
    @pytest.mark.parametrize("number", SIGNALS)
    def test_stop(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        with pytest.raises(StoppedError) as stopped, stoppable():
            signal.raise_signal(number)
        assert stopped.value.number == number
        assert signal.getsignal(number) is before

    def test_unstoppable(self) -> None:
        done = []
        with stoppable(), unstoppable():
            signal.raise_signal(signal.SIGINT)
            done.append(1)
        assert done == [1]

    def test_other_threads_have_no_signals(self) -> None:
        done = []

        def work() -> None:
            with stoppable(), unstoppable():
                done.append(1)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert done == [1]


def report(stage: str, score: float) -> StepInfo:
    return StepInfo(stage, 1, 2, torch.tensor([score]), torch.zeros(1, 3, 2, 2))  # type: ignore[arg-type]


class TestWatch:
    def test_best(self) -> None:
        watch = Watch()
        found = []
        for stage, score in (
            *(("search", 0.9), ("optimize", 0.2), ("optimize", 0.4), ("optimize", 0.3)),
            *(("review", 0.9), ("search", 0.8), ("select", 0.1)),
        ):
            watch(report(stage, score))
            assert watch.best is not None
            found.append((watch.best.stage, round(float(watch.best.score), 1)))
        assert found == [
            *(("search", 0.9), ("optimize", 0.2), ("optimize", 0.4), ("optimize", 0.4)),
            *(("optimize", 0.4), ("optimize", 0.4), ("select", 0.1)),
        ]
        watch.close()

    @pytest.mark.parametrize("closed", [True, False])
    def test_terminal_that_is_gone(self, closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        class Gone(io.StringIO):
            def write(self, _: str) -> int:
                raise OSError(5, "Input/output error")

        monkeypatch.setattr("sys.stderr", None if closed else Gone())
        watch = Watch()
        for stage in ("search", "optimize", "optimize"):
            watch(report(stage, 0.5))
        assert watch.last is not None
        watch.close()

    def test_inverted_image_counts_more_than_a_random_one(self) -> None:
        """Distances are scores below 0, which no cosine of the search before them is."""
        watch = Watch()
        for stage, score in (("search", 0.9), ("invert", -0.7), ("invert", -0.5), ("invert", -0.6)):
            watch(report(stage, score))
        assert watch.best is not None
        assert (watch.best.stage, float(watch.best.score)) == ("invert", -0.5)
        watch(report("start", 0.1))
        assert watch.best.stage == "start"
        watch.close()
