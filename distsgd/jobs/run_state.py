"""What the run of a job says of itself, and where Ray says something else.

The run directory is the truth. Where it cannot be seen from here, the last line of the job's log is
what is left of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from distsgd.base.locations import Location, place_of
from distsgd.errors import StorageError
from distsgd.jobs.job import PENDING, RUNNING, SUCCEEDED, Job
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.remote_run import RemoteRun
from distsgd.store.run_directory import RunDirectory

RESULT = "result.json"
_CHECKPOINT = re.compile(r"checkpoints/step-([0-9]+)/")


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run is.

    Attributes:
        status: "done", "diverged", "interrupted" or "failed" as it ended; "training" while a
            process has it; "begun" where none has, and it has not ended.
        step: Of its end or of its newest checkpoint; None where there is none.
        source: Where that was read: "run directory" or "log".
        error: What ended it, if anything did.
    """

    status: str
    step: int | None
    source: Literal["run directory", "log"]
    error: str | None = None


def state_of(job: Job, log: str) -> RunState | None:
    """Where the run of `job` is, as far as can be seen from here; None: not begun, or not seen."""
    place = place_of(job.run_dir)
    seen = _at_address(place, job) if isinstance(place, Location) else _in_directory(place)
    said = _in_log(log)
    if seen is None or said is None or seen.status in ("done", "training"):
        return seen or said
    return replace(seen, error=said.error)


def _at_address(location: Location, job: Job) -> RunState | None:
    """By its pointer and the small file that says how it ended; checkpoints are not fetched."""
    try:
        pointer = RemoteRun(location).look()
        if pointer is None:
            return None
        steps = (int(it[1]) for name in pointer.files if (it := _CHECKPOINT.match(name)))
        step = max(steps, default=None)
        # The owner of a job that has ended may be gone without a word.
        if pointer.owner and not job.has_ended:
            return RunState("training", step, "run directory")
        pieces = pointer.files.get(RESULT, ())
        data = b"".join((location / piece.name).read_bytes() for piece in pieces)
    except (StorageError, FileNotFoundError):
        return None  # Not seen from here: no keys, or it was replaced just now.
    if not data:
        return RunState("begun", step, "run directory")
    result = json.loads(data)
    return RunState(str(result.get("status")), result.get("steps", step), "run directory")


def _in_directory(place: Path) -> RunState | None:
    place = place.expanduser()
    if not RunDirectory.is_run(place):
        return None
    run = RunDirectory(place)
    step = (None, *CheckpointStore(run.checkpoints).steps())[-1]
    if run.holder() is not None:
        return RunState("training", step, "run directory")
    if not run.result_path.is_file():
        return RunState("begun", step, "run directory")
    result = run.read_json(run.result_path)
    return RunState(str(result.get("status")), result.get("steps", step), "run directory")


def _in_log(log: str) -> RunState | None:
    for line in reversed(log.splitlines()):
        if line.startswith("{") and (told := _object_of(line)) and "status" in told:
            return RunState(str(told["status"]), told.get("steps"), "log", told.get("error"))
    return None


def _object_of(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def difference(job: Job, state: RunState | None) -> str:
    """Where Ray's word and the run's differ, in words; empty where they do not.

    >>> job = Job("a", "a.1", "RUNNING", "", "/runs/a", 0.0, None, None)
    >>> difference(job, RunState("done", 900, "run directory"))
    'Ray says RUNNING, but the run is done'
    """
    if state is None:
        return ""
    is_wrong = {
        "done": job.status not in (PENDING, SUCCEEDED),
        "diverged": job.status in (RUNNING, SUCCEEDED),
        "interrupted": job.status == SUCCEEDED,
        "failed": job.status == SUCCEEDED,
        "begun": job.status == SUCCEEDED,
        "training": job.has_ended or job.status == PENDING,
    }.get(state.status, False)
    words = {
        "begun": "the run has not ended, and no process that is seen from here trains it",
        "training": "a process trains the run",
    }
    if not is_wrong:
        return ""
    return f"Ray says {job.status}, but {words.get(state.status, f'the run is {state.status}')}"
