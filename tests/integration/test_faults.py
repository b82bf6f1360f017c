"""Every row of the table of failures, on a real Ray: the bits of the run without faults.

Faults are injected as a user does it; several share one start of Ray.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.program import Program, digest_alone, settings, wait_until

pytestmark = pytest.mark.timeout(200)
STEPS = [
    "train.steps=20000",
    "train.epochs=100000",
    "parallel.assignment=all",
    "train.history_every=50",
    "checkpoint.every_steps=500",
    "train.evaluate_every_epochs=10",
]
LOST_REPLIES = {  # In per cent, of the calls to actors.
    "CoreWorkerService.grpc_client.PushTask": {"num_failures": 6, "resp_failure_prob": 20},
}
_DIGEST: dict[str, str] = {}


def without_faults(place: Path) -> str:
    """The digest of the run without faults; computed once."""
    if "alone" not in _DIGEST:
        _DIGEST["alone"] = digest_alone(place, *STEPS)
    return _DIGEST["alone"]


def inject(*faults: str) -> list[str]:
    return [part for fault in faults for part in ("--inject", fault)]


def start(place: Path, *arguments: str, workers: str = "2") -> Program:
    common = ["--workers", workers, "--run-dir", "run", *settings(*STEPS)]
    return Program(place, *common, *arguments)


def done(place: Path, program: Program) -> tuple[dict[str, Any], str]:
    """What came of it: it ended well, with the right bits, and left no process."""
    code, found, said = program.result(timeout_s=150)
    assert code == 0, said
    assert found["weights_digest"] == without_faults(place)
    wait_until(lambda: not program.processes(), 20, "all processes to end")
    return found, said


def has_workers(program: Program, count: int) -> bool:
    return len(program.actors("WorkerActor")) == count


def test_workers_killed_in_every_phase_and_slow_and_dropped_change_no_bit(place: Path) -> None:
    faults = [
        "kill worker at step 100 before_read",
        "kill worker at step 101 after_compute",
        "slow worker at step 1000 by 10 for 200 steps",
        "kill worker at step 3000 during_evaluation",
        "kill worker at step 4000 before_update",
        "drop worker at step 4500",
        "kill worker at step 5000 after_update",
        "kill worker at step 6000 during_checkpoint",
    ]
    found, said = done(place, start(place, *inject(*faults), workers="3"))
    assert len(found["faults"]) == len(faults), found["faults"]
    assert "injected faults: kill worker (6)" in said


def test_servers_killed_in_every_phase_change_no_bit(place: Path) -> None:
    phases = ["before_update", "after_update", "during_checkpoint", "during_evaluation"]
    faults = [f"kill server at step {1200 * i + 700} {phase}" for i, phase in enumerate(phases)]
    found, said = done(place, start(place, *inject(*faults)))
    assert len(found["faults"]) == len(faults)
    assert said.count("the server is back") == len(faults)


def test_stopped_workers_are_backed_up_and_ended_also_where_the_server_dies_too(
    place: Path,
) -> None:
    faults = [
        "stop worker 0 at step 500",
        "kill server at step 900",
        "stop worker 1 at step 1500 after_compute",
    ]
    program = start(place, *inject(*faults))
    found, said = done(place, program)
    assert len(found["faults"]) == len(faults)
    assert "is late at step" in said


def test_run_whose_driver_kills_itself_goes_on_once(place: Path) -> None:
    faults = ["kill driver at step 2000", "kill worker at step 2500"]
    program = start(place, *inject(*faults))
    program.process.communicate(timeout=100)
    assert program.process.returncode == -9
    resumed = start(place, *inject(*faults), "--resume", "auto")
    found, _ = done(place, resumed)
    assert found["faults"] == [faults[0], f"{faults[1]} before_read"]
    wait_until(lambda: not program.processes(), 120, "the killed run's processes to end")


def test_number_of_workers_follows_scale_to_and_bounds(place: Path) -> None:
    # Long enough for any machine to start workers in: it is stopped when they were there.
    endless = ("train.steps=1000000000", 'schedule.type="constant"')
    program = start(place, *settings(*endless), workers="1-3")
    wait_until(lambda: list((place / "run" / "checkpoints").glob("step-*")), 60, "a checkpoint")
    command = [sys.executable, "-m", "distsgd"]
    for wanted in (3, 0, 2):
        subprocess.run([*command, "scale-to", "run", str(wanted)], cwd=place, check=True)
        wait_until(partial(has_workers, program, wanted), 30, f"{wanted} workers")
    subprocess.run([*command, "stop", "run"], cwd=place, check=True)
    code, found, said = program.result(timeout_s=60)
    assert (code, found["status"]) == (6, "interrupted"), said
    assert "workers wanted: 3 (before: " in said
    assert not (place / "run" / "workers.json").exists()
    as_long = (*STEPS, *endless, f"train.steps={found['steps']}")
    assert found["weights_digest"] == digest_alone(place, *as_long)


def test_lost_replies_apply_every_update_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_testing_rpc_failure", json.dumps(LOST_REPLIES))
    done(place, start(place))
    rows = [json.loads(line) for line in (place / "run" / "digests.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(100, 20001, 100))


def test_server_that_waits_for_the_run_is_found_by_its_workers_afterwards(place: Path) -> None:
    without_faults(place)
    program = start(place)
    wait_until((place / "run" / "config.json").exists, 30, "the run")
    with (place / "run" / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program.wait_for_actors(2)
        with pytest.raises(subprocess.TimeoutExpired):
            program.process.wait(timeout=7)  # Longer than a worker's handshake.
    done(place, program)
