"""A head that is gone is noticed long before Ray's own end. A socket stands for the head.

It takes connections from the first, as a kernel does; it answers to those that are accepted.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest

from distsgd.errors import HeadLostError, WaitTimeoutError
from distsgd.parallel.launch.calls.calls import Calls
from distsgd.parallel.launch.calls.head_watch import HeadWatch, patience_s


@pytest.fixture
def head() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def answering(head: socket.socket) -> Iterator[socket.socket]:
    """One that answers by itself until it is closed."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                answer(head)

    thread = threading.Thread(target=serve)
    thread.start()
    yield head
    end(head)
    thread.join(30)


def end(head: socket.socket) -> None:
    """Also where a thread waits in `accept`."""
    with contextlib.suppress(OSError):
        head.shutdown(socket.SHUT_RDWR)
    head.close()


def answer(head: socket.socket) -> None:
    """Once, as an HTTP/2 server does."""
    connection = head.accept()[0]
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        connection.recv(1000)


def watch_of(head: socket.socket, **options: object) -> HeadWatch:
    address = f"127.0.0.1:{head.getsockname()[1]}"
    given: Any = {"longest_s": 0.2, "every_s": 0.02} | options
    return HeadWatch(address, **given)


def test_head_that_answers_is_there_for_as_long_as_it_does(head: socket.socket) -> None:
    with watch_of(head, longest_s=60.0) as watch:
        for _ in range(20):
            answer(head)
        watch.check()


def test_head_that_answers_by_ending_the_connection_is_there(head: socket.socket) -> None:
    with watch_of(head, longest_s=60.0) as watch:
        for _ in range(20):
            head.accept()[0].close()
        watch.check()

    def end_one() -> None:
        head.accept()[0].close()

    thread = threading.Thread(target=end_one)
    thread.start()
    assert watch_of(head, every_s=30.0).answers()
    thread.join(30)


def test_head_whose_process_is_stopped_is_gone_though_its_kernel_takes_connections(
    head: socket.socket,
) -> None:
    lost = threading.Event()
    with watch_of(head, on_lost=lost.set) as watch:
        assert not watch.answers()
        assert lost.wait(10)
        with pytest.raises(HeadLostError):
            watch.confirm()


def test_head_that_was_not_asked_for_long_is_asked_before_it_is_lost(
    answering: socket.socket,
) -> None:
    watch = watch_of(answering, longest_s=-1.0, every_s=30.0)  # As after a Ctrl-Z.
    watch.check()
    end(answering)
    with pytest.raises(HeadLostError):
        watch.check()


def test_head_that_is_gone_is_told_of_once_it_was_silent_for_too_long(head: socket.socket) -> None:
    lost = threading.Event()
    with watch_of(head, on_lost=lost.set, longest_s=1.0) as watch:
        answer(head)
        head.close()
        watch.check()
        with pytest.raises(HeadLostError, match=r"head of the Ray cluster at 127\.0\.0\.1:"):
            watch.confirm()
        assert lost.wait(10)
        with pytest.raises(HeadLostError):
            watch.check()


def test_head_that_comes_back_in_time_is_not_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
    watch = HeadWatch(f"127.0.0.1:{port}", longest_s=60.0, every_s=0.5)
    found: list[str] = []

    def confirm() -> None:
        watch.confirm()
        found.append("there")

    thread = threading.Thread(target=confirm)
    thread.start()
    with socket.create_server(("127.0.0.1", port)) as head:
        while thread.is_alive():
            with contextlib.suppress(TimeoutError):
                head.settimeout(0.1)
                answer(head)
    assert found == ["there"]


@pytest.mark.parametrize(("given", "found"), [("600", 200.0), ("soon", 20.0)])
def test_patience_is_a_third_of_rays_own(
    monkeypatch: pytest.MonkeyPatch, given: str, found: float
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", given)
    assert patience_s() == pytest.approx(found)


class GetTimeoutError(TimeoutError):
    pass


class SilentRay:
    """Never answers."""

    exceptions = types.SimpleNamespace(
        GetTimeoutError=GetTimeoutError, ActorUnavailableError=KeyError, RayActorError=KeyError
    )

    def get(self, _: object, *, timeout: float) -> None:
        time.sleep(min(timeout, 0.05))
        raise GetTimeoutError


def test_call_that_waits_ends_with_the_head(head: socket.socket) -> None:
    with watch_of(head) as watch:
        head.close()
        with pytest.raises(HeadLostError):
            Calls(SilentRay(), watch).get("a call", "an answer", 60.0)


def test_call_that_waits_says_for_what_and_how_long(head: socket.socket) -> None:
    calls = Calls(SilentRay(), watch_of(head))
    with pytest.raises(WaitTimeoutError, match=r"waited 0\.1 s for an answer"):
        calls.get("a call", "an answer", 0.1)
