"""What the run of a job says where it is on object storage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distsgd.base.locations import Location
from distsgd.errors import CheckpointError
from distsgd.jobs.job import Job
from distsgd.jobs.run_state import RunState, state_of
from distsgd.store.remote_run import RemoteRun
from tests.storage.proxy import FaultProxy


def job(location: Location, status: str) -> Job:
    return Job("a", "a.1", status, "", location.address, 0.0, None, None)


def test_run_tells_where_it_is_without_its_checkpoints_being_fetched(
    bucket: Location, tmp_path: Path
) -> None:
    location, place = bucket / "run", tmp_path / "run"
    running = job(location, "RUNNING")
    assert state_of(running, "") is None
    (place / "checkpoints" / "step-000000000120").mkdir(parents=True)
    (place / "config.json").write_text("{}")
    run = RemoteRun(location)
    run.create(place)
    with run.lease("me") as lease:
        (place / "checkpoints" / "step-000000000120" / "weights").write_bytes(bytes(100))
        lease.publish(place)
        assert state_of(running, "") == RunState("training", 120, "run directory")
        killed = job(location, "FAILED")
        assert state_of(killed, "") == RunState("begun", 120, "run directory")
        (place / "result.json").write_text(json.dumps({"status": "done", "steps": 130}))
        lease.publish(place)
    assert state_of(job(location, "SUCCEEDED"), "") == RunState("done", 130, "run directory")
    pointer = run.look()
    assert pointer is not None
    (piece,) = pointer.files["result.json"]
    for damaged in (b'{"status": "done", "steps": 131}', b"\x00\xffhalf", b""):
        (location / piece.name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"result\.json: another size or checksum"):
            state_of(job(location, "SUCCEEDED"), "")


def test_run_that_the_storage_does_not_show_is_read_from_the_log(
    bucket: Location, proxy: FaultProxy
) -> None:
    proxy.close()
    log = json.dumps({"status": "done", "steps": 130})
    assert state_of(job(bucket / "run", "SUCCEEDED"), log) == RunState("done", 130, "log")
