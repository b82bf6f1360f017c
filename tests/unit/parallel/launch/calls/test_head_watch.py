"""A head that is gone is noticed long before Ray's own end. A socket stands for the head."""

from __future__ import annotations

import socket
import threading
import time
import types
from collections.abc import Iterator

import pytest

from distsgd.errors import HeadLostError, WaitTimeoutError
from distsgd.parallel.launch.calls.calls import Calls
from distsgd.parallel.launch.calls.head_watch import HeadWatch, patience_s


@pytest.fixture
def head() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def watch_of(head: socket.socket, **options: object) -> HeadWatch:
    address = f"127.0.0.1:{head.getsockname()[1]}"
    return HeadWatch(address, longest_s=0.2, every_s=0.02, **options)  # type: ignore[arg-type]


def test_head_that_answers_is_there_for_as_long_as_it_does(head: socket.socket) -> None:
    with watch_of(head) as watch:
        for _ in range(20):
            head.accept()[0].close()
        watch.check()
        watch.confirm()


def test_head_that_is_gone_is_told_of_once_it_was_silent_for_too_long(head: socket.socket) -> None:
    lost = threading.Event()
    with watch_of(head, on_lost=lost.set) as watch:
        head.accept()[0].close()
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
    watch = HeadWatch(f"127.0.0.1:{port}", longest_s=60.0, every_s=0.02)
    found: list[str] = []

    def confirm() -> None:
        watch.confirm()
        found.append("there")

    thread = threading.Thread(target=confirm)
    thread.start()
    with socket.create_server(("127.0.0.1", port)):
        thread.join(30)
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
