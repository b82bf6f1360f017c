"""Signals while training: the first asks, the second forces, and the old handlers come back."""

import os
import signal

import pytest

from distsgd.cli.stop import StopSignals, stoppable
from distsgd.errors import StoppedAtOnce


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_second_forces(number: signal.Signals) -> None:
    asked: list[int] = []
    said: list[str] = []
    before = signal.getsignal(number)

    def request_stop() -> bool:
        asked.append(1)
        return True

    with StopSignals(request_stop, said.append) as signals:
        os.kill(os.getpid(), number)
        assert (asked, said) == ([1], [])
        signals.keep()
        signals.keep()
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert asked == [1]
    assert signal.getsignal(number) == before


def test_keep_takes_a_signal_back() -> None:
    asked: list[int] = []

    def request_stop() -> bool:
        asked.append(1)
        return True

    with StopSignals(request_stop, lambda _: None) as signals:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signals.keep()
        os.kill(os.getpid(), signal.SIGTERM)
    assert asked == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_before_training_has_begun_stops_at_once(number: signal.Signals) -> None:
    with (
        pytest.raises(StoppedAtOnce, match="before training began") as caught,
        stoppable(),
        StopSignals(lambda: False, lambda _: None),
    ):
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == 6
