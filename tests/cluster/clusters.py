"""A Ray cluster over hosts, and the program on one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.cluster.hosts import Host, Hosts, why_not

RAY = str(Path(sys.executable).parent / "ray")
PORT = 6379
NOTHING: Mapping[str, str] = MappingProxyType({})
NEEDS_HOSTS = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(240)]


def prepare_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The present directory is `place`, which all hosts see: the digits, and a HOME of its own."""
    for name in ("RAY_ADDRESS", "OPENBLAS_CORETYPE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path or "." for path in sys.path))
    monkeypatch.chdir(place)
    subprocess.run([sys.executable, "-m", "distsgd", "init", "digits"], check=True)


def start_ray(
    host: Host, head: Host, *, num_cpus: int, takes_jobs: bool = False, **env: str
) -> None:
    """Start a node of Ray on `host`, the head where it is that, which may have a server of jobs."""
    dashboard = ["--dashboard-host=0.0.0.0"] if takes_jobs else ["--include-dashboard=false"]
    role = ["--head", *dashboard, f"--port={PORT}"]
    if host is not head:
        role = [f"--address={head.address}:{PORT}"]
    own = [f"--node-ip-address={host.address}", f"--num-cpus={num_cpus}"]
    small = ["--object-store-memory=80000000", "--disable-usage-stats"]
    host.run([RAY, "start", *role, *own, *small], env=env)


def started(host: Host, *words: str, env: Mapping[str, str] = NOTHING) -> subprocess.Popen[str]:
    """A ``distsgd`` that runs on `host`."""
    command = [sys.executable, "-m", "distsgd", *words]
    return host.popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str], timeout_s: float = 100) -> dict[str, Any]:
    """What a command's last line says, its exit code (``code``) and what was ``said``."""
    out, said = process.communicate(timeout=timeout_s)
    lines = out.strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return found | {"code": process.returncode, "said": said}


def training(
    host: Host, run: str, *words: str, env: Mapping[str, str] = NOTHING
) -> subprocess.Popen[str]:
    """A ``train`` of the digits that runs on `host`; `words` are overrides, and options of it."""
    command = ["train", "digits.toml", "--json", "--run-dir", run]
    command += [part for it in words for part in ([it] if it[:2] == "--" else ["--set", it])]
    return started(host, *command, env=env)


def train(host: Host, run: str, *words: str, env: Mapping[str, str] = NOTHING) -> dict[str, Any]:
    """The same, two epochs to the end; ``seconds_taken`` with the rest."""
    begun = time.monotonic()
    found = ended(training(host, run, "train.epochs=2", *words, env=env))
    return found | {"seconds_taken": time.monotonic() - begun}


def said_until(process: subprocess.Popen[str], words: str) -> str:
    """What a command says until it says `words`."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it never said {words!r}: {said}")


def cluster_of(*num_cpus: int) -> Iterator[Hosts]:
    """Hosts with so many CPUs, the first of them the head."""
    with Hosts(len(num_cpus)) as hosts:
        for host, count in zip(hosts, num_cpus, strict=True):
            start_ray(host, hosts[0], num_cpus=count)
        yield hosts
