"""Nodes that come late, are drained, cut off or die in the middle of a run: the same bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.clusters import (
    NEEDS_HOSTS,
    PORT,
    RAY,
    ended,
    prepare_place,
    said_until,
    start_ray,
    started,
)
from tests.cluster.hosts import Host, Hosts
from tests.integration.program import wait_until

pytestmark = [*NEEDS_HOSTS, pytest.mark.long]
LENGTH = ("train.epochs=4000", "checkpoint.every_s=1", "train.digest_every=10000")
AUTO = ("parallel.address=auto", "parallel.assignment=all")
NODES = """
import ray

ray.init(address="auto", log_to_driver=False, logging_level="error")
for node in ray.nodes():
    if node["Alive"]:
        print(node["NodeManagerHostname"], node["NodeID"])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        place = tmp_path_factory.mktemp("shared")
        prepare_place(place, monkeypatch)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "7" * 64)
        yield place


@pytest.fixture
def hosts(place: Path) -> Iterator[Hosts]:
    """A head without CPUs and two nodes with three; a fourth host that has not joined."""
    del place
    with Hosts(4) as made:
        for number, num_cpus in enumerate((0, 3, 3)):
            start_ray(made[number], made[0], num_cpus=num_cpus)
        yield made


@pytest.fixture(scope="module")
def digest_alone(place: Path) -> str:
    del place
    command = [sys.executable, "-m", "distsgd", *words("alone", "parallel.workers=0")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return digest_of(ended(subprocess.Popen(command, text=True, **pipes)))


def words(run: str, *overrides: str) -> list[str]:
    found = ["train", "digits.toml", "--json", "--run-dir", run, "--resume", "auto"]
    return [*found, *(word for it in (*LENGTH, *overrides) for word in ("--set", it))]


def train(host: Host, run: str, *overrides: str) -> subprocess.Popen[str]:
    return started(host, *words(run, *AUTO, *overrides))


def digest_of(found: dict[str, Any]) -> str:
    assert found["code"] == 0, found
    return str(found["weights_digest"])


def host_of_the_server(hosts: Hosts) -> Host:
    """The one where the process of the server is."""
    (host,) = (
        host
        for host in hosts
        if not host.run(["pgrep", "-f", "^ray::ServerActor"], check=False).returncode
    )
    return host


def saves(name: str, run: subprocess.Popen[str]) -> None:
    """Blocks until there is a checkpoint of a step that was made."""

    def has_saved() -> bool:
        assert run.poll() is None
        return any(int(it.name[5:]) for it in Path(name, "checkpoints").glob("step-*"))

    wait_until(has_saved, 60, "a checkpoint")


def drain(hosts: Hosts, host: Host) -> None:
    """What a notice of a spot node does."""
    told = hosts[0].run([sys.executable, "-c", NODES]).stdout
    node = dict(line.split() for line in told.splitlines())[host.name]
    reason = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot")
    where = (f"--address={hosts[0].address}:{PORT}", f"--node-id={node}")
    hosts[0].run([RAY, "drain-node", *where, *reason, "--deadline-remaining-seconds=300"])


def test_host_that_comes_late_is_used(hosts: Hosts, digest_alone: str) -> None:
    run = train(hosts[0], "late", "parallel.workers=[1, 8]")
    said_until(run, "8 workers need 8 CPU; there are 6 of 6 free")
    said_until(run, "worker 5 has joined")
    start_ray(hosts[3], hosts[0], num_cpus=3)
    said_until(run, "worker 7 has joined")
    assert digest_of(ended(run)) == digest_alone


def test_draining_nodes_are_left(hosts: Hosts, digest_alone: str) -> None:
    run = train(hosts[0], "drained", "parallel.workers=2", "parallel.placement=spread")
    said_until(run, "worker 1 has joined")
    server = host_of_the_server(hosts)
    assert server is not hosts[0]
    drain(hosts, server)
    said_until(run, "the server saves the run, and is started again elsewhere")
    said_until(run, "continuing after step")
    assert host_of_the_server(hosts) is not server
    server.kill()  # It goes, as it was said.
    assert digest_of(ended(run)) == digest_alone


def test_link_is_cut_and_mended(hosts: Hosts, digest_alone: str) -> None:
    run = train(hosts[1], "cut", "parallel.workers=4")
    said_until(run, "worker 3 has joined")
    hosts.cut(2)
    said_until(run, "is lost")
    hosts.mend(2)
    assert digest_of(ended(run)) == digest_alone


def test_host_of_the_server_dies(hosts: Hosts, digest_alone: str) -> None:
    run = train(hosts[0], "server", "parallel.workers=5")  # Later they could take all CPUs.
    said_until(run, "worker 4 has joined")
    saves("server", run)
    server = host_of_the_server(hosts)
    assert server is not hosts[0]
    server.kill()
    said_until(run, "continuing after step")
    assert digest_of(ended(run)) == digest_alone


def test_host_of_the_driver_dies_and_the_run_is_resumed_elsewhere(
    hosts: Hosts, digest_alone: str
) -> None:
    run = train(hosts[1], "driver", "parallel.workers=3")
    said_until(run, "worker 2 has joined")
    saves("driver", run)
    hosts[1].kill()
    with run:  # What it holds is closed.
        run.wait(20)
    again = train(hosts[2], "driver", "parallel.workers=2")
    said_until(again, "continuing after step")
    assert digest_of(ended(again)) == digest_alone
