"""A first question has an end, whatever it asks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from distsgd.base import first_contact, locations
from distsgd.base.first_contact import within
from distsgd.base.locations import Location
from distsgd.errors import StorageError


def test_answer_and_error_of_a_question_are_its_own() -> None:
    assert within(60.0, "it", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60.0, "it", lambda: 1 // 0)


def test_question_without_an_end_is_given_up() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, "it", never.wait)
    never.set()


def test_silence_is_told_of_before_the_question_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert first_contact.QUIET_S <= 3.0
    monkeypatch.setattr(first_contact, "QUIET_S", 0.01)
    never = threading.Event()
    with (
        pytest.warns(UserWarning, match=r"it has not answered yet; it is waited for up to 0\.1 s"),
        pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"),
    ):
        within(0.1, "it", never.wait)
    never.set()


def test_storage_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert locations.CONTACT_TIMEOUT_S <= 10.0
    monkeypatch.setattr(locations, "CONTACT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # Where the client asks for keys before all else.
        monkeypatch.setenv("GCE_METADATA_ROOT", f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StorageError, match=r"gs://silent/a: connecting: no answer within"):
            Location("gs://silent/a").stat()


LOOK = """
import signal
from distsgd.base import locations
# A shell starts what it has in the background deaf to Ctrl-C, and the tests with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
locations.CONTACT_TIMEOUT_S = 100.0
locations.Location("gs://silent/a").stat()
"""


def test_interruption_ends_it_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-c", LOOK],
            env=os.environ | {"GCE_METADATA_ROOT": where},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                with silent.accept()[0]:
                    process.send_signal(signal.SIGINT)
                    said = process.communicate(timeout=30)[1]
            finally:
                process.kill()
    assert "KeyboardInterrupt" in said
