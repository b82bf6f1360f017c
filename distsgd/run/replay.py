"""A run computed again from its start, in a directory of its own: the same bits must come out.

What ends it before its last step is said as what it is, by an error of its own; only who holds a
whole replay may say that a record is wrong.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distsgd.errors import DiskError, DivergedError, ReplayInterrupted
from distsgd.parallel.server.metrics import Outcome
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.step_view import Observers, OnStep
from distsgd.run import run_files
from distsgd.run.execution import execute
from distsgd.run.progress import Progress, ProgressWatch
from distsgd.run.saved import SavedRun
from distsgd.run.spec import RunSpec
from distsgd.store.run_directory import RunDirectory


@contextmanager
def replayed(
    saved: SavedRun,
    run_spec: RunSpec,
    num_steps: int,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_step: OnStep | None = None,
    stop: threading.Event | None = None,
    evaluate: bool = True,
) -> Iterator[SavedRun]:
    """The first `num_steps` steps of `saved` computed again; blocks. It is gone after the ``with``.

    Args:
        saved: A run whose data can be read.
        run_spec: Of the same run, with the workers that compute it now.
        num_steps: At most those of its newest checkpoint.
        on_progress: Called about ten times a second.
        on_step: Called for every step.
        stop: Set, it ends the replay after its present step. Ctrl-C does so too.
        evaluate: Whether the held-out rows are evaluated as the run did.

    Raises:
        ReplayInterrupted: It was asked to stop.
        DivergedError: The loss stopped being finite, before the end of its record.
        DiskError: There is no room for what is computed again.
        DistSGDError: What `ParameterServer.train` raises.
    """
    with _room(saved.directory) as room:
        given = run_files.read_initial_weights(saved.directory, run_spec)
        run = run_files.begin(room / "run", run_spec, given)

        def shortened(spec: ServerSpec) -> ServerSpec:
            # The schedule keeps the length of the whole run; only the loop ends earlier.
            num_test_rows = spec.num_test_rows if evaluate else 0
            return replace(spec, total_steps=num_steps, num_test_rows=num_test_rows)

        shown = replace(run_spec, total_steps=num_steps)
        watch = ProgressWatch(shown, on_progress, _silent, stop or threading.Event())
        observers = Observers(on_step=on_step)
        outcome = execute(run, run_spec, watch, observers=observers, changed=shortened)
        watch.end()
        _refuse_half(saved.directory, outcome, num_steps)
        yield SavedRun.of(run_spec, run)


def _silent(_: Any) -> None:
    """Say nothing: how a replay goes is not how the run went."""


def _refuse_half(run: RunDirectory, outcome: Outcome, num_steps: int) -> None:
    """Raise what ended the replay, unless it came to the end that its configuration says."""
    if outcome.status == "interrupted":
        raise ReplayInterrupted(run.path, outcome.steps, num_steps)
    if outcome.status == "diverged":
        advice = (
            f"the run {run.path} diverges here when it is computed again ({outcome.advice}), "
            f"though its record continues to step {num_steps}; nothing else was found out about it"
        )
        raise DivergedError(outcome.steps, advice)


@contextmanager
def _room(run: RunDirectory) -> Iterator[Path]:
    """A temporary directory; what the disk refuses in it says so, and the way out."""
    try:
        room = tempfile.TemporaryDirectory(prefix="distsgd-replay-", ignore_cleanup_errors=True)
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise _no_room(run, tempfile.tempdir or "TMPDIR", reason) from error
    with room:
        try:
            yield Path(room.name)
        except DiskError as error:
            if not error.path.is_relative_to(room.name):
                raise
            raise _no_room(run, room.name, error.reason.partition(" (")[0]) from error


def _no_room(run: RunDirectory, room: str, reason: str) -> DiskError:
    return DiskError(
        room,
        f"{reason}, while {run.path} was computed again; nothing was found out about it (make room "
        "there, or name another directory in TMPDIR)",
    )
