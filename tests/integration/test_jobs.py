"""Runs as jobs of a cluster that was started before, with token authentication."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.program import digest_alone, processes_marked, wait_until

pytest.importorskip("aiohttp", reason="needs ray[default]")
pytestmark = pytest.mark.timeout(240)

LONG = ("--workers=1", "--set=train.epochs=1000000", "--set=checkpoint.every_steps=2000")
WAIT_S = 100.0


class Cluster(NamedTuple):
    """One, with what its users need to know; `mark` is in the environment of its processes."""

    address: str
    token: str
    mark: str
    metrics: str

    def started(
        self, place: Path, *words: str, token: str | None = None, address: str | None = None
    ) -> subprocess.Popen[str]:
        """``distsgd job`` from a machine that is no part of the cluster."""
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token or self.token,
            "RAY_ADDRESS": "10.1.2.3:6379",  # Of another cluster; --address counts.
        }
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distsgd",
                "job",
                *words,
                f"--address={address or self.address}",
            ],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def job(self, place: Path, *words: str, **options: str) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        with self.started(place, *words, **options) as process:
            try:
                out, said = process.communicate(timeout=120)
            finally:
                process.kill()
        return subprocess.CompletedProcess(words, process.returncode, out, said)

    def told(self, place: Path, *words: str) -> dict[str, Any]:
        """The object that a command ends with."""
        done = self.job(place, *words, "--json")
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="dj", dir="/tmp", ignore_cleanup_errors=True) as short:
        head, dashboard, client, agent, metrics = free_ports(5)
        mark = f"distsgd-jobs-{secrets.token_hex(8)}"
        found = Cluster(
            f"http://127.0.0.1:{dashboard}",
            secrets.token_hex(16),
            mark,
            f"http://127.0.0.1:{metrics}/metrics",
        )
        scripts = Path(sys.executable).parent
        environment = {
            **os.environ,
            "HOME": short,
            "TMPDIR": short,
            "PATH": f"{scripts}:{os.environ['PATH']}",  # A job's Python is the first there.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": found.token,
            "DISTSGD_TEST_MARK": mark,
        }
        options = {
            "port": head,
            "dashboard-port": dashboard,
            "dashboard-host": "127.0.0.1",
            "ray-client-server-port": client,
            "dashboard-agent-listen-port": agent,
            "metrics-export-port": metrics,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": 2,
            "object-store-memory": 80 * 1024 * 1024,
            "temp-dir": f"{short}/r",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        log = Path(short) / "log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [scripts / "ray", "start", "--head", "--block", *words],
                env=environment,
                stdout=out,
                stderr=out,
            )
        try:
            wait_until(lambda: is_up(dashboard), WAIT_S, f"the dashboard: {log.read_text()}")
            yield found
        finally:
            for pid in processes_marked(mark):
                os.kill(pid, signal.SIGKILL)
            process.wait()


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_run_of_a_job_has_the_bits_of_one_process_and_its_name_continues_it(
    place: Path, cluster: Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "shared" / "digits"
    words = ("submit", "digits.toml", "--name", "digits", "--workers", "1", "--follow")
    done = cluster.job(place, *words, "--run-dir", str(run))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 460" in done.stdout
    assert "submitted as digits.1" in done.stderr
    result = json.loads((run / "result.json").read_text())
    assert result["weights_digest"] == digest_alone(place)

    again = cluster.job(place, *words)  # The name knows where its run is.
    assert again.returncode == 0
    assert "submitted as digits.2" in again.stderr
    assert "is finished; nothing to do" in again.stdout

    listed = cluster.told(place, "list")["jobs"]
    assert [job["id"] for job in listed if job["name"] == "digits"] == ["digits.2", "digits.1"]
    status = cluster.told(place, "status", "digits.1")
    assert (status["status"], status["exit_code"], status["differs"]) == ("SUCCEEDED", 0, None)
    assert status["run"]["step"] == 460
    logs = cluster.job(place, "logs", "digits.1")
    assert "worker 0 has joined" in logs.stdout

    elsewhere = cluster.job(place, *words, "--run-dir", str(tmp_path / "other"))
    assert elsewhere.returncode == 2
    assert "leave --run-dir out to continue that" in elsewhere.stderr


def drivers(cluster: Cluster) -> list[int]:
    found = processes_marked(cluster.mark)
    return [pid for pid, line in found.items() if "distsgd\0train\0" in line]


def test_driver_that_is_killed_is_started_again_and_a_stopped_job_keeps_its_run(
    place: Path, cluster: Cluster, tmp_path: Path
) -> None:
    run = str(tmp_path / "long")
    words = ("submit", "digits.toml", "--name", "long", *LONG)
    first = cluster.told(place, *words, "--run-dir", run, "--retries", "2")
    assert first["id"] == "long.1"

    def step() -> int:
        status = cluster.told(place, "status", "long")
        return (status["run"] or {}).get("step") or 0

    def said(text: str) -> bool:
        return text in cluster.job(place, "logs", "long").stdout

    wait_until(lambda: step() > 0, WAIT_S, "the first driver to save the run")
    assert cluster.told(place, *words)["id"] == "long.1"  # It runs already.
    other = cluster.job(place, *words, "--set", "train.seed=9")
    assert other.returncode == 2
    assert "long runs already, as long.1: asked for is --set train.seed=9" in other.stderr
    with cluster.started(place, "logs", "long", "--follow") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        left = follower.communicate(timeout=60)[1]
    assert follower.returncode == 6
    assert "is no longer followed, and continues" in left
    (pid,) = drivers(cluster)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: said("was ended by SIGKILL; starting it again"), WAIT_S, "another try")
    wait_until(lambda: said("continuing after step"), WAIT_S, "the run to be continued")
    wait_until(lambda: len(drivers(cluster)) == 1, WAIT_S, "the second driver")

    stopped = cluster.told(place, "stop", "long")
    assert (stopped["status"], stopped["exit_code"]) == ("STOPPED", 6)
    assert stopped["run"]["status"] == "interrupted"
    assert said("resume with: distsgd job submit digits.toml --name long --set ")
    assert not said('"status": "interrupted"')  # That is for programs.
    assert stopped["run"]["step"] == step() > 0
    assert not drivers(cluster)


def test_job_ends_with_the_exit_code_of_its_run_and_says_why(
    place: Path, cluster: Cluster, tmp_path: Path
) -> None:
    words = ("submit", "digits.toml", "--run-dir", str(tmp_path / "wrong"), "--follow")
    (place / "digits.parquet").write_bytes(b"PAR1")
    done = cluster.job(place, *words, "--name", "wrong", "--retries", "3", "--json")
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["status"], told["exit_code"]) == ("FAILED", 3)
    assert "digits.parquet" in told["run"]["error"]
    assert "starting it again" not in done.stderr  # Data are not mended by another try.


def test_cluster_that_is_not_there_or_refuses_is_said_within_seconds(
    place: Path, cluster: Cluster
) -> None:
    nowhere = cluster.job(place, "list", address=f"http://127.0.0.1:{free_ports(1)[0]}")
    assert nowhere.returncode == 4
    assert "no Ray dashboard answers at" in nowhere.stderr
    refused = cluster.job(place, "list", token="0" * 32)
    assert refused.returncode == 4
    assert "RAY_AUTH_TOKEN" in refused.stderr
    unknown = cluster.job(place, "status", "nothing")
    assert unknown.returncode == 2
    assert 'is called "nothing"' in unknown.stderr


@pytest.mark.long
def test_numbers_of_a_run_are_metrics_of_ray(place: Path, cluster: Cluster, tmp_path: Path) -> None:
    run = str(tmp_path / "watched")
    cluster.told(place, "submit", "digits.toml", "--name", "watched", *LONG, "--run-dir", run)
    label = f'run="{run}"'

    def is_exported() -> bool:
        with urllib.request.urlopen(cluster.metrics, timeout=10) as answer:  # noqa: S310 -- ours.
            lines = answer.read().decode().splitlines()
        return any(line.startswith("ray_distsgd_step{") and label in line for line in lines)

    try:
        wait_until(is_exported, WAIT_S, "Ray to export the run's step")
    finally:
        cluster.told(place, "stop", "watched")


OWN_MODEL = """
import torch
from distsgd.models import torch_model

@torch_model
def make(inputs, outputs):
    def losses(out, target):
        return torch.nn.functional.cross_entropy(out, target, reduction="none")

    return torch.nn.Linear(inputs, outputs), losses
"""


def test_file_of_a_model_of_ones_own_goes_with_the_working_directory(
    place: Path, cluster: Cluster, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: scripts/env --with torch,jax")
    sent = place / "sent"
    sent.mkdir()
    (place / "digits.parquet").rename(sent / "digits.parquet")
    (sent / "model_that_is_sent.py").write_text(OWN_MODEL)
    (sent / "own.toml").write_text(
        '[data]\npath = "digits.parquet"\nlabel = "digit"\ntest_fraction = 0.2\n'
        '[model]\nfactory = "model_that_is_sent:make"\n[train]\nepochs = 1\n'
    )
    words = ("--working-dir", "sent", "--workers", "1", "--run-dir", str(tmp_path / "own"))
    told = cluster.told(place, "submit", "sent/own.toml", "--name", "own", "--follow", *words)
    assert (told["status"], told["run"]["status"]) == ("SUCCEEDED", "done"), told
    recorded = json.loads((tmp_path / "own" / "environment.json").read_text())["own_code"]
    assert [entry["name"] for entry in recorded] == ["model_that_is_sent:make"]
    assert all(entry["source"] for entry in recorded)
