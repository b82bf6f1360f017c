"""What the run of a job says of itself, and where Ray says something else.

The run directory is the truth. Where it cannot be seen from here, the last line of the job's log is
what is left of it. A path names another directory on another machine: the one here is that of the
job only where it says so.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from distsgd.base.locations import Location, place_of
from distsgd.errors import CheckpointError, RunError, StorageError
from distsgd.jobs.job import PENDING, RUNNING, SUCCEEDED, Job
from distsgd.store.beginning import JOB_FILE
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.pointer import POINTER, Piece
from distsgd.store.remote_run import RemoteRun
from distsgd.store.run_directory import RunDirectory

RESULT = "result.json"
_STEP = re.compile(r"^step ([0-9,]+)", re.MULTILINE)
_CHECKPOINT = re.compile(r"checkpoints/step-([0-9]+)/")


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run is.

    Attributes:
        status: "done", "diverged", "interrupted" or "failed" as it ended; "training" while a
            process has it; "begun" where none has, and it has not ended.
        step: Of its end, its newest checkpoint, or the last line of its log while the job runs;
            None where there is none.
        source: Where that was read: "run directory" or "log".
        error: What ended it, if anything did.
    """

    status: str
    step: int | None
    source: Literal["run directory", "log"]
    error: str | None = None


def state_of(job: Job, log: str) -> RunState | None:
    """Where the run of `job` is, as far as can be seen from here; None: not begun, or not seen.

    Raises:
        CheckpointError: What it says of its end is damaged, at an address.
        RunError: The same, in a directory.
    """
    place = place_of(job.run_dir)
    seen = _at_address(place, job) if isinstance(place, Location) else _in_directory(place, job)
    if seen is not None and not job.has_ended:
        step = max(filter(None, (seen.step, _last_step(log))), default=None)
        seen = seen if seen.status == "done" else replace(seen, step=step)
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
        data = b"".join(_checked(location / piece.name, piece) for piece in pieces)
    except (StorageError, FileNotFoundError):
        return None  # Not seen from here: no keys, or it was replaced just now.
    if not data:
        return RunState("begun", step, "run directory")
    if (result := _object_of(data)) is None:
        raise CheckpointError(f"{location}/{RESULT}", "is damaged (no JSON object); restore it")
    return _at_end(job, result, step)


def _at_end(job: Job, result: dict[str, Any], step: int | None) -> RunState:
    """By what it said of its end; a job that continues it has not yet taken that back."""
    status = str(result.get("status"))
    if status == "interrupted" and not job.has_ended:
        status = "begun"
    return RunState(status, result.get("steps", step), "run directory")


def _checked(location: Location, piece: Piece) -> bytes:
    data = location.read_bytes()
    if len(data) != piece.size_bytes or blake3(data).hexdigest() != piece.blake3:
        reason = f"is damaged ({RESULT}: another size or checksum than {POINTER} says); restore it"
        raise CheckpointError(str(location), reason)
    return data


def _in_directory(place: Path, job: Job) -> RunState | None:
    place = place.expanduser()
    if not RunDirectory.is_run(place):
        return None
    run = RunDirectory(place)
    if not job.run_id or _run_id_of(run) != job.run_id:
        return None
    step = (None, *CheckpointStore(run.checkpoints).steps())[-1]
    if run.holder() is not None:
        return RunState("training", step, "run directory")
    if not run.result_path.is_file():
        return RunState("begun", step, "run directory")
    return _at_end(job, run.read_json(run.result_path), step)


def _run_id_of(run: RunDirectory) -> Any:
    """Which job's run it says to be; None where it says nothing that can be read."""
    try:
        return run.read_json(run.path / JOB_FILE).get("run_id")
    except RunError:
        return None


def _in_log(log: str) -> RunState | None:
    for line in reversed(log.splitlines()):
        if line.startswith("{") and (told := _object_of(line)) and "status" in told:
            return RunState(str(told["status"]), told.get("steps"), "log", told.get("error"))
    return None


def _last_step(log: str) -> int | None:
    """Of the last line in which the run says where it is."""
    found = _STEP.findall(log)
    return int(found[-1].replace(",", "")) if found else None


def _object_of(line: str | bytes) -> dict[str, Any] | None:
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
