from __future__ import annotations

import io
import signal
import threading

import pytest
import torch

from fusedream_core import StepInfo
from fusedream_core.cli.console import StoppedError, Watch, say, stoppable, unstoppable


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


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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

    def test_a_picture_that_is_found_again_counts_more_than_a_random_one(self) -> None:
        """Distances are scores below 0, which no cosine of the search before them is."""
        watch = Watch()
        for stage, score in (("search", 0.9), ("invert", -0.7), ("invert", -0.5), ("invert", -0.6)):
            watch(report(stage, score))
        assert watch.best is not None
        assert (watch.best.stage, float(watch.best.score)) == ("invert", -0.5)
        watch(report("start", 0.1))
        assert watch.best.stage == "start"
        watch.close()
