"""Addresses, and what is said where no job server answers; a cluster is in tests/integration."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from distsgd.errors import ClusterError, ConfigError, MissingExtraError
from distsgd.jobs import client
from distsgd.jobs.client import Jobs


class Nothing(BaseHTTPRequestHandler):
    """A web server that knows of no Ray."""

    def do_GET(self) -> None:
        status, text = (200, b"<html>") if self.path == "/api/version" else (404, b"")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Nothing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections, and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("address", ["ray://head:10001", "ftp://head", "http://", "a b", ""])
def test_address_that_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="must be that of the dashboard"):
        Jobs(address)


def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_NEEDED", ("ray", "not_installed_anywhere"))
    with pytest.raises(MissingExtraError, match=r"ray\[default\].*\.\[cluster\]"):
        Jobs("http://127.0.0.1:8265")


def test_other_server_is_no_dashboard(stranger: str) -> None:
    with pytest.raises(ClusterError, match="not as Ray's dashboard does"):
        Jobs(stranger)


def test_host_without_an_address_and_a_server_without_tls_are_told_apart(stranger: str) -> None:
    with pytest.raises(ClusterError, match=r"no-such-host\.invalid:8265: the name of its host is"):
        Jobs("http://no-such-host.invalid:8265")
    with pytest.raises(ClusterError, match="does not speak TLS"):
        Jobs(stranger.replace("http://", "https://"))


def test_server_that_never_answers_is_given_up(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.CONNECT_S + client.ANSWER_S <= 15.0
    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    with pytest.raises(ClusterError, match=f"no Ray dashboard answers at {silent}"):
        Jobs(silent)


def test_address_that_was_asked_for_counts_and_the_environment_stays(
    stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.9.8.7:6379")
    with pytest.raises(ClusterError, match=stranger):
        Jobs(stranger.removeprefix("http://"))
    assert os.environ["RAY_ADDRESS"] == "10.9.8.7:6379"
