"""Whether a cluster is there is known within seconds; Ctrl-C ends the question. No Ray starts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distsgd.errors import ClusterError
from distsgd.parallel.launch.session.address import _Reached, _why, check_address, chosen_address


@pytest.fixture(autouse=True)
def _no_ray_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "outside", "inside"),
    [(None, "local", "auto"), ("local", "local", "local"), ("head:1", "head:1", "head:1")],
)
def test_run_inside_a_job_is_trained_on_its_cluster_unless_told(
    monkeypatch: pytest.MonkeyPatch, given: str | None, outside: str, inside: str
) -> None:
    assert chosen_address(given) == outside
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert chosen_address(given) == inside


@pytest.mark.parametrize(
    ("address", "reason"),
    [("ray://head:10001", "concurrency groups"), ("http://head:8265", "dashboard takes jobs")],
)
def test_url_is_refused_with_the_reason(address: str, reason: str) -> None:
    with pytest.raises(ClusterError, match=f'address is "{address}".*auto.*{reason}.*job submit'):
        check_address(address)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:0", "head:65536", "head:x", "a b:1", "::1:6379"]
)
def test_address_that_is_none_is_refused_with_the_rule(address: str) -> None:
    with pytest.raises(ClusterError, match=r'must be "local", "auto" or host:port'):
        check_address(address)


@pytest.mark.parametrize("given", ["ray://head:10001", "head"])
def test_bad_address_of_the_environment_is_named_as_such(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(ClusterError, match=f'RAY_ADDRESS is "{given}"'):
        check_address("auto")


@pytest.mark.parametrize("is_in_environment", [False, True])
def test_port_where_nothing_listens(
    monkeypatch: pytest.MonkeyPatch, *, is_in_environment: bool
) -> None:
    with socket.socket() as bound:
        bound.bind(("", 0))  # Taken, so that nobody else listens there.
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        if is_in_environment:
            monkeypatch.setenv("RAY_ADDRESS", address)
        asked = "auto" if is_in_environment else address
        with pytest.raises(ClusterError) as caught:
            check_address(asked)
    text = str(caught.value)
    assert f'no Ray cluster at address "{asked}": cannot connect to' in text
    assert address.rpartition(":")[2] in text
    assert "refused" in text
    assert ("from RAY_ADDRESS" in text) == is_in_environment
    assert "ray start --head" in text


@pytest.mark.parametrize("is_stale", [True, False])
def test_cluster_that_is_to_be_found_and_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_stale: bool
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = tmp_path / "ray" / "ray_current_cluster"
    with socket.socket() as bound:
        bound.bind(("", 0))
        port = bound.getsockname()[1]
        if is_stale:
            file.parent.mkdir()
            file.write_text(f"127.0.0.1:{port}")
        try:
            check_address("auto")
            text = "a running process of Ray"
        except ClusterError as error:
            text = str(error)
    if "a running process of Ray" in text:
        pytest.skip("somebody else's Ray runs on this machine, and is found")
    assert (f":{port} (from {file}) (ConnectionRefused" in text) == is_stale
    assert ("Could not find any running Ray" in text) != is_stale
    assert ".;" not in text
    assert "ray start --head" in text


def test_host_that_does_not_resolve() -> None:
    with pytest.raises(ClusterError, match=r"no-such-host.invalid:6379.*ray start --head"):
        check_address("no-such-host.invalid:6379")


def test_host_that_swallows_connections_is_not_waited_for() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("", 0))
        full.listen(0)
        port = full.getsockname()[1]
        for _ in range(4):  # Until the kernel answers no more of them.
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        with pytest.raises(ClusterError, match=rf"cannot connect to .*:{port}") as caught:
            check_address(f"127.0.0.1:{port}", stage_s=1.0)
    assert "refused" not in str(caught.value)


def test_port_that_accepts_and_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match="does not answer as Ray does") as caught:
            check_address(address, stage_s=1.0)
    assert "no answer within 1 s" in str(caught.value)


def test_port_that_speaks_something_else_is_not_waited_for() -> None:
    with socket.create_server(("", 0)) as listener:
        threading.Thread(target=greet_all, args=(listener,), daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ClusterError, match="does not answer as Ray does"):
            check_address(address, stage_s=1.0)
        listener.shutdown(socket.SHUT_RDWR)


def test_cluster_that_refuses_the_token_is_told_from_one_that_is_not_there() -> None:
    reached = _Reached("ask", "head:6379", "AuthenticationError: RPC error: pages of it")
    why = _why(reached, 6.0)
    assert why.startswith("head:6379 answers and refuses this process; set RAY_AUTH_MODE")


@pytest.mark.parametrize("variable", [None, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_process_without_a_token_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "token"
    file.write_text("0" * 32)
    if variable is not None:
        monkeypatch.setenv(variable, str(file))
    why = _why(_Reached("ask", "head:6379"), 6.0)
    assert ("has no token for head:6379" in why) == (variable is None)
    assert ("does not answer as Ray does" in why) == (variable is not None)


def greet_all(listener: socket.socket) -> None:
    """Answer every connection as a server that is no Ray."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"220 mail.example ESMTP\r\n")


ASK = """
import signal, sys
from distsgd.parallel.launch.session.address import check_address
# A shell starts what it has in the background deaf to Ctrl-C, and the tests with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("asks", flush=True)
check_address(sys.argv[1], stage_s=100.0)
"""


def test_interruption_ends_it_at_once() -> None:
    with socket.create_server(("", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-c", ASK, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "asks\n"
                silent.settimeout(60)
                silent.accept()[0].close()  # It is connected: now it waits for an answer.
                asked = time.monotonic()
                os.kill(process.pid, signal.SIGINT)
                _, said = process.communicate(timeout=30)
            finally:
                process.kill()
    assert time.monotonic() - asked < 15
    assert "KeyboardInterrupt" in said
