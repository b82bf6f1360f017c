"""A proxy in front of an S3 server that misbehaves when told to."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_SIGNED = re.compile(rb"Credential=([^/]+)/\d+/([^/]+)/")
_CONDITIONS = re.compile(rb"(?i)(if-match|if-none-match): [^\r\n]*\r\n")
_UNAVAILABLE = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 70\r\n"
    b"Connection: close\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"
)


class FaultProxy:
    """Passes bytes on; `refusals`, `cuts` and `delay_s` say what goes wrong from now on.

    Attributes:
        on_request: Called with the first line of each request, before it is passed on.
        has_conditions: Whether If-Match and If-None-Match are passed on.
        spared: So many requests go well before anything goes wrong.
        refusals: So many requests are answered by 503.
        cuts: So many answers are cut after `cut_after` bytes.
        cut_after: Bytes of an answer, its head included.
        delay_s: Before each piece of an answer.
        requests: Requests that came, by their first line.
        keys: The names of the keys that signed them, each with its region.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.refusals, self.cuts, self.cut_after, self.delay_s = 0, 0, 1000, 0.0
        self.spared, self.has_conditions = 0, True
        self.on_request: Callable[[str], object] = str
        self.requests: list[str] = []
        self.keys: set[tuple[str, str]] = set()
        self._upstream = upstream
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuse all connections from now on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def fetches(self, name: str) -> int:
        """How often the content of an object was asked for."""
        return sum(line.startswith("GET ") and f"/{name} " in line for line in self.requests)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            for each in (self._requests, self._answers):
                threading.Thread(target=each, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                line = data.split(b"\r\n", 1)[0].decode(errors="replace")
                if line.endswith("HTTP/1.1"):
                    named = _SIGNED.findall(data)
                    self.keys |= {(key.decode(), region.decode()) for key, region in named}
                    self.requests.append(line)
                    self.on_request(line)
                    if not self.has_conditions:
                        data = _CONDITIONS.sub(b"", data)
                    if not self._take("spared") and self._take("refusals"):
                        client.sendall(_UNAVAILABLE)
                        break
                server.sendall(data)
        _close(client, server)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                time.sleep(self.delay_s)
                if not self.spared and len(data) > self.cut_after and self._take("cuts"):
                    client.sendall(data[: self.cut_after])
                    break
                client.sendall(data)
        _close(client, server)

    def _take(self, fault: str) -> bool:
        with self._lock:
            left = getattr(self, fault)
            setattr(self, fault, max(left - 1, 0))
            return bool(left > 0)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
