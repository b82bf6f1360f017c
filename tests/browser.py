"""A real headless Chromium, driven over a pipe by its DevTools protocol, without any library.

One page at a time. It records what the page asks of the network and what its console says; every
wait has a timeout, and the processes end with the context.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0


def chromium() -> str | None:
    """The program, where the machine has one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """A page of the browser.

    Attributes:
        requests: The addresses that were asked for, but the page's own.
        problems: What the console or the browser's log holds of warnings and errors.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session = ""
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.problems: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def look(self, width: int, *, dark: bool = False, scripts: bool = True) -> None:
        """The size and kind of screen for the pages that are opened from now on."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self._call("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def open(self, path: Path) -> None:
        """Open a file and wait until it has loaded."""
        self._events.clear()
        address = path.absolute().as_uri()
        self._call("Page.navigate", url=address)
        self._wait("Page.loadEventFired")
        self.requests = [one for one in self.requests if one != address]

    def ask(self, expression: str) -> Any:
        """The value of an expression on the page, as JSON knows it; also with scripts off."""
        told = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def text(self) -> str:
        """What a reader sees of the page as text."""
        return str(self.ask("document.body.innerText"))

    def shoot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        made = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(made["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _wait(self, event: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while all(one["method"] != event for one in self._events):
            self._read(deadline)

    def _read(self, deadline: float) -> dict[str, Any]:
        """The next message; an event is remembered as well."""
        while b"\0" not in self._buffer:
            left_s = deadline - time.monotonic()
            ready, _, _ = select.select([self._from], [], [], max(0.0, left_s))
            assert ready, "the browser did not answer in time"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._events.append(message)
            self._note(message["method"], message["params"])
        return message

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning"}:
            self.problems.append(str(told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.problems.append(str(told["entry"]))


@contextlib.contextmanager
def opened_browser() -> Iterator[Page]:
    """A browser with one page and a profile of its own; all its processes end with the context."""
    program = chromium()
    assert program is not None
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The pipe is at 3 and 4 there; that it is headless also keeps it off any screen.
        command = (
            f'exec 3<&{their_in} 4>&{their_out}; exec "$0" --headless=new --no-sandbox '
            "--disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
            f'--remote-debugging-pipe --user-data-dir="{profile}" about:blank'
        )
        process = subprocess.Popen(
            ["bash", "-c", command, program],
            pass_fds=(their_in, their_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # What it leaves when it is killed ends with its profile.
            env=os.environ | {"TMPDIR": profile},
            start_new_session=True,
        )
        os.close(their_in)
        os.close(their_out)
        try:
            yield Page(our_out, our_in)
        finally:
            os.close(our_out)
            os.close(our_in)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(TIMEOUT_S)
