"""Several "hosts" on one machine, out of Linux namespaces.

A host has its own network, processes, name, /dev/shm and temporary directory; all hosts hang on one
bridge in a namespace of its own, so that the machine's network is not touched. The rest of the file
system is the same for all, as over NFS, but for what is hidden from one. Root only: `why_not`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

SUBNET = "10.77.0"
TEMP = "/tmp/ray"  # noqa: S108 -- where Ray puts its files; each host has one of its own.
START_TIMEOUT_S = 10.0
RUN_TIMEOUT_S = 120.0
# The first process of a host; it reaps what it inherits.
_INIT = r"""
set -e
hostname "$1"
mount --make-rprivate /
mount -t tmpfs -o size=2g tmpfs /dev/shm
mkdir -p "$2"
mount -t tmpfs -o size=1g tmpfs "$2"
chmod 1777 "$2"
ip link set lo up
echo up > "$2/.up"
trap 'exit 0' TERM
while :; do sleep 1000 & wait $! || true; done
"""


def why_not() -> str:
    """Why hosts cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"needs {program} (packages iproute2 and util-linux)"
    name = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else ""


class Host:
    """One of them; `address` is its IP address."""

    def __init__(self, tag: str, number: int) -> None:
        self.number = number
        self.name = f"{tag}h{number}"
        self.address = f"{SUBNET}.{number + 10}"
        self._holder: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def start(self) -> None:
        """Bring it up."""
        enter = f"ip netns exec {self.name} unshare --mount --uts --ipc --pid --mount-proc --fork"
        self._holder = subprocess.Popen(
            [*enter.split(), "--kill-child=KILL", "sh", "-c", _INIT, "init", self.name, TEMP],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        holder = self._holder.pid
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/root{TEMP}/.up").exists():
                self._pid = int(children[0])
                return
            time.sleep(0.02)
        raise TimeoutError(f"host {self.name} did not come up within {START_TIMEOUT_S:g} s")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """`arguments` as a command that runs in this host, in the present directory."""
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
        return ["nsenter", f"--target={self._pid}", *namespaces, f"--wdns={Path.cwd()}", *arguments]

    def popen(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a command in this host."""
        environment = {**os.environ, **env}
        return subprocess.Popen(self.command(arguments), env=environment, text=True, **options)

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] = MappingProxyType({}),
        timeout_s: float = RUN_TIMEOUT_S,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this host to its end."""
        process = self.popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{arguments}: no end in {timeout_s:g} s\n{out}\n{err}") from None
        assert not check or process.returncode == 0, f"{arguments}\n{out}\n{err}"
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)

    def hide(self, path: Path) -> None:
        """From now on, this host has an empty directory there."""
        self.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)])

    def show(self, path: Path) -> None:
        """What was hidden is there again."""
        self.run(["umount", str(path)])

    def kill(self) -> None:
        """Power off: every process in it is gone at once."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # A PID namespace ends with its first process.
            self._pid = 0
        if self._holder is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._holder.wait(START_TIMEOUT_S)
            self._holder.kill()
            self._holder.wait()
            self._holder = None


class Hosts:
    """Some hosts on one bridge; nothing is left of them when the block ends."""

    def __init__(self, count: int) -> None:
        self._tag = f"d{secrets.token_hex(2)}"
        self._switch = f"{self._tag}sw"
        self._hosts = [Host(self._tag, number) for number in range(count)]

    def __getitem__(self, number: int) -> Host:
        return self._hosts[number]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    def __enter__(self) -> Self:
        try:
            _ip("netns", "add", self._switch)
            bridge = ("link", "add", "br0", "type", "bridge", "forward_delay", "0")
            _ip("-n", self._switch, *bridge)
            _ip("-n", self._switch, "link", "set", "br0", "up")
            for host in self._hosts:
                self._plug_in(host)
                host.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plug_in(self, host: Host) -> None:
        port = f"p{host.number}"
        _ip("netns", "add", host.name)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("-n", self._switch, "link", "add", port, *pair)
        _ip("-n", self._switch, "link", "set", port, "master", "br0", "up")
        _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.name, "link", "set", "eth0", "up")
        # Ray finds its own address by a route outwards.
        _ip("-n", host.name, "route", "add", "default", "via", f"{SUBNET}.1")

    def cut(self, number: int) -> None:
        """Pull a host's cable: nobody is told."""
        _ip("-n", self._switch, "link", "set", f"p{number}", "nomaster")

    def mend(self, number: int) -> None:
        """Plug it in again."""
        _ip("-n", self._switch, "link", "set", f"p{number}", "master", "br0")

    def close(self) -> None:
        """Power all of them off, and take the network away."""
        for host in self._hosts:
            host.kill()
        for name in (*(host.name for host in self._hosts), self._switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
