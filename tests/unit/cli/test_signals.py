"""Signals before a command is known and after it has ended, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from distsgd.cli.terminal import signals
from distsgd.errors import Interrupted

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# A finder sees each import, so that a signal comes in the middle of one, at no time of chance.
AT_IMPORT = """
import os, signal, sys
from importlib.abc import MetaPathFinder


class Sends(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            for number in {numbers}:
                os.kill(os.getpid(), number)


sys.meta_path.insert(0, Sends())
from distsgd.__main__ import main
main()
"""
AFTER_THE_END = """
import os, threading
from distsgd.cli.terminal import signals
signals.hold()
signals.end_with(5)


def send():
    threading.main_thread().join()
    os.kill(os.getpid(), {number})


threading.Thread(target=send).start()
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_exit_code_is_that_of_an_interruption() -> None:
    assert Interrupted.exit_code == signals.EXIT_CODE


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["typer", "distsgd.cli.show"])
def test_signal_while_the_program_loads_is_its_interruption(
    module: str, number: signal.Signals
) -> None:
    done = run(AT_IMPORT.format(module=module, numbers=[int(number)]), "show", "nothing", "--json")
    assert done.returncode == 6
    assert done.stderr == "interrupted: stopped before its end\n"
    assert done.stdout == (
        '{"status": "interrupted", "error": "interrupted: stopped before its end", "exit_code": 6}'
        "\n"
    )


def test_second_signal_while_the_program_loads_ends_it_at_once() -> None:
    numbers = [int(signal.SIGTERM), int(signal.SIGINT)]
    done = run(AT_IMPORT.format(module="typer", numbers=numbers), "show", "nothing")
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr == "interrupted: stopped before its end\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_after_the_end_changes_no_exit_code(number: signal.Signals) -> None:
    done = run(AFTER_THE_END.format(number=int(number)))
    assert (done.returncode, done.stderr) in {(5, ""), (0, "")}


def test_hang_up_that_is_ignored_from_outside_is_not_held() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signals.heeded() == [signal.SIGINT, signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGHUP)
        assert not signals.was_held()
    finally:
        signal.signal(signal.SIGHUP, before)
