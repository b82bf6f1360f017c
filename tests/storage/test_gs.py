"""Google's storage, as far as it can be had on one machine: one that refuses."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from distsgd.base import locations
from distsgd.base.locations import Location
from distsgd.errors import StorageError


class Unavailable(BaseHTTPRequestHandler):
    """Refuses each request for a while."""

    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def unavailable() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Unavailable) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.timeout(60)
def test_storage_that_refuses_for_a_while_is_tried_for_a_bounded_time(
    unavailable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locations, "RETRY_S", 1.0)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", unavailable)
    with pytest.raises(StorageError, match=r"^gs://anonymous@bucket/a: reading: .*exhausted"):
        (Location("gs://anonymous@bucket") / "a").read_bytes()
