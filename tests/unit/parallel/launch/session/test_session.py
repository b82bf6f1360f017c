"""What a Ray of our own changes in a process, and that it is put back. No Ray is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from distsgd.errors import ClusterError
from distsgd.parallel.launch.session import session

KEPT = """
import logging, os
from contextlib import ExitStack, suppress

FIRST
from distsgd.parallel.launch.session import private_ray, session
import ray
from ray._private import ray_constants
from ray._private.services import get_node_ip_address
from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, get_authentication_mode

handlers = list(logging.getLogger("ray").handlers)
assert handlers
before = dict(os.environ)
tokens = AuthenticationTokenLoader.instance()


def is_as_before():
    return (
        get_authentication_mode() == AuthenticationMode.DISABLED
        and ray_constants.ENABLE_RAY_CLUSTER
        and not tokens.has_token(ignore_auth_mode=True)
        and dict(os.environ) == before
        and logging.getLogger("ray").handlers == handlers
    )


assert is_as_before()
seen = set()
for error in (None, KeyError, KeyboardInterrupt):
    with suppress(KeyError, KeyboardInterrupt):
        with ExitStack() as settings:
            settings.enter_context(session._process_as_it_was())
            private_ray.set_environment()
            settings.enter_context(session._settings_of_the_environment())
            assert get_authentication_mode() == AuthenticationMode.TOKEN
            seen.add(tokens.get_token_for_http_header()["authorization"])
            assert get_node_ip_address() == "127.0.0.1"
            logging.getLogger("ray").handlers.clear()  # As `ray.init` does.
            if error:
                raise error
    assert is_as_before()
assert len(seen) == 3, seen
"""


@pytest.mark.parametrize("first", ["", "import ray"])
def test_process_is_as_it_was_whichever_was_imported_first(
    first: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    code = KEPT.replace("FIRST", first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_second_run_of_a_process_is_refused_while_the_first_has_its_ray() -> None:
    for _ in range(2):
        with session._alone_in_this_process():
            second = session._alone_in_this_process()
            with pytest.raises(ClusterError, match="a process has one at a time"), second:
                pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_waits_until_ray_has_started_or_ended_and_a_second_does_not(
    number: signal.Signals,
) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        with session._signals_kept():
            os.kill(os.getpid(), number)
            assert came == []
        assert came == [number]
        with session._signals_kept():
            os.kill(os.getpid(), number)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert came == [number, number]
    finally:
        signal.signal(number, before)
