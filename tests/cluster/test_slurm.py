"""The Slurm script on a host of its own, with stand-ins for Slurm's two commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.clusters import NEEDS_HOSTS, prepare_place
from tests.cluster.hosts import Host, Hosts
from tests.integration.program import processes_marked, wait_until

SCRIPT = Path(__file__).parents[2] / "docker" / "slurm.sh"
pytestmark = [*NEEDS_HOSTS, pytest.mark.long]

SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
[[ $1 == hostname ]] && { echo "$HOST_ADDRESS"; exit; }
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
[[ $1 == show ]] && hostname || echo "$*" >>requeued
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    prepare_place(tmp_path, monkeypatch)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with Hosts(1) as hosts:
        yield hosts[0]


def started(host: Host, mark: str, *words: str) -> subprocess.Popen[str]:
    """A batch job."""
    scripts = Path(sys.executable).parent
    program = Path("distsgd")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m distsgd "$@"\n')
    program.chmod(0o755)
    env = {
        "PATH": f"{Path.cwd()}:{scripts}:{os.environ['PATH']}",
        "HOST_ADDRESS": host.address,
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": host.name,
        "SLURM_CPUS_PER_TASK": "3",
        "DISTSGD_TEST_MARK": mark,
    }
    command = ["bash", str(SCRIPT), "digits.toml", "run", *words]
    return host.popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_job_whose_time_is_up_saves_its_run_and_queues_itself_again(host: Host) -> None:
    mark, run = f"slurm-{os.getpid()}", Path("run").absolute()
    length = ("--set", "train.epochs=1000000", "--set", "checkpoint.every_steps=500")
    process = started(host, mark, "--workers", "2", *length)
    try:
        wait_until(lambda: list(run.glob("checkpoints/step-*")), 60, "a checkpoint")
        batch = [
            pid
            for pid, line in processes_marked(mark).items()
            if line.startswith("bash\0") and str(SCRIPT) in line
        ]
        os.kill(min(batch), signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 6, said
    assert '"status": "interrupted"' in (run / "result.json").read_text()
    assert Path("requeued").read_text() == "requeue 4711\n"

    again = started(host, mark, "--workers", "2", *length, "--set", "train.steps=40")
    assert "train.steps" in again.communicate(timeout=100)[0]  # Another configuration: no retry.
    assert again.returncode == 2
    assert Path("requeued").read_text() == "requeue 4711\n"
