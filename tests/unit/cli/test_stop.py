"""Signals while training: the first asks, the second forces, and the old handlers come back."""

import os
import signal

import pytest

from distsgd.cli.terminal.stop import StopSignals, signals_interrupt, stoppable
from distsgd.errors import Interrupted, StoppedAtOnce

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


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


def test_hang_up_that_comes_twice_is_one_wish_and_does_not_force() -> None:
    asked: list[int] = []

    def request_stop() -> bool:
        asked.append(1)
        return True

    with StopSignals(request_stop, lambda _: None):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    assert asked == [1]


def _never() -> bool:
    raise AssertionError("a signal that is ignored asks for nothing")


def test_hang_up_that_is_ignored_from_outside_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_interrupt(), StopSignals(_never, lambda _: None) as signals:
            signals.keep()
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_while_a_command_works_is_its_interruption(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in SIGNALS}
    with pytest.raises(Interrupted), stoppable(), signals_interrupt():
        os.kill(os.getpid(), number)
    assert {one: signal.getsignal(one) for one in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_before_training_has_begun_stops_at_once(number: signal.Signals) -> None:
    with (
        pytest.raises(StoppedAtOnce, match="before training began") as caught,
        stoppable(lambda: StoppedAtOnce(False)),
        StopSignals(lambda: False, lambda _: None),
    ):
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == 6
