"""The command line on a real Ray: the same bits through deaths, and nothing left behind.

Each test starts the program as a user does, in processes of its own.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.program import Program, digest_alone, settings, wait_until

pytestmark = pytest.mark.timeout(240)
LONG = [
    "train.steps=4000",
    "train.epochs=100000",
    "parallel.assignment=all",
    "train.history_every=50",
]


def listening_addresses(pids: set[int]) -> set[str]:
    """Addresses on which the processes listen over TCP, from the kernel's own tables."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].rpartition(":")[0])
    return found


def test_workers_on_ray_give_the_bits_of_one_process_and_leave_nothing(place: Path) -> None:
    alone = digest_alone(place, *LONG)
    program = Program(place, "--workers", "2", *settings(*LONG))
    program.wait_for_actors(2)
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    listening = listening_addresses(set(program.processes()))
    assert listening
    assert listening <= loopback
    code, found, said = program.result()
    assert code == 0, said
    assert found["weights_digest"] == alone
    assert found["num_workers"] == 2
    wait_until(lambda: not program.processes(), 20, "all processes to end")


def test_a_killed_worker_and_a_killed_server_change_no_bit(place: Path) -> None:
    steps = [*LONG, "train.steps=12000", "checkpoint.every_steps=500"]
    alone = digest_alone(place, *steps)
    program = Program(place, "--workers", "3", "--run-dir", "run", *settings(*steps))
    checkpoints = place / "run" / "checkpoints"
    wait_until(lambda: list(checkpoints.glob("step-*")), 60, "a checkpoint")
    os.kill(program.actors("WorkerActor")[0], signal.SIGKILL)
    program.wait_for_words("is lost")  # A server that dies sooner takes that with it.
    newest = max(checkpoints.glob("step-*"))
    wait_until(lambda: max(checkpoints.glob("step-*")) > newest, 60, "the next checkpoint")
    os.kill(program.actors("ServerActor")[0], signal.SIGKILL)
    code, found, said = program.result()
    assert code == 0, said
    assert "is lost" in said
    assert "continuing after step" in said
    assert found["weights_digest"] == alone
    wait_until(lambda: not program.processes(), 20, "all processes to end")


def test_an_interrupted_run_ends_with_six_and_resumes_with_other_workers(place: Path) -> None:
    alone = digest_alone(place, *LONG)
    program = Program(place, "--workers", "2", "--run-dir", "run", *settings(*LONG))
    program.wait_for_actors(2)
    program.process.send_signal(signal.SIGINT)
    code, found, said = program.result()
    assert code == 6, said
    assert found["status"] == "interrupted"
    wait_until(lambda: not program.processes(), 20, "all processes to end")
    arguments = ["--workers", "0", "--run-dir", "run", "--resume", "auto", *settings(*LONG)]
    code, found, said = Program(place, *arguments).result()
    assert code == 0, said
    assert found["weights_digest"] == alone


def test_interruption_while_ray_starts_leaves_nothing(place: Path) -> None:
    program = Program(place, "--workers", "2", *settings(*LONG))
    wait_until(lambda: "gcs_server" in str(program.processes()), 60, "Ray to start")
    program.process.send_signal(signal.SIGINT)
    code, found, said = program.result()
    assert code == 6, said
    assert found["status"] == "interrupted"
    assert "no step was made" in said
    wait_until(lambda: not program.processes(), 20, "all processes to end")


def test_after_a_killed_driver_everything_ends_and_a_prompt_resume_gives_the_same_bits(
    place: Path,
) -> None:
    steps = [*LONG, "train.steps=20000", "checkpoint.every_steps=500"]
    alone = digest_alone(place, *steps)
    program = Program(place, "--workers", "2", "--run-dir", "run", *settings(*steps))
    checkpoints = place / "run" / "checkpoints"
    wait_until(lambda: list(checkpoints.glob("step-*")), 60, "a checkpoint")
    program.process.kill()
    program.process.communicate(timeout=10)
    arguments = ["--workers", "2", "--run-dir", "run", "--resume", "auto", *settings(*steps)]
    code, found, said = Program(place, *arguments).result()
    assert code == 0, said
    assert found["weights_digest"] == alone
    wait_until(lambda: not program.processes(), 120, "the killed run's processes to end")
