"""Verifying a run: it is made again, by any number of workers, and held against its record.

It is computed again from its start, in a directory of its own: the same bits must come out. What
ends that before its last step is said as what it is, by an error of its own; only who holds a whole
replay may say that a record is wrong.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distsgd.base.locations import Location
from distsgd.base.settings import call_argument, count_argument
from distsgd.data.node_cache import DataPlace
from distsgd.errors import DiskError, DivergedError, ReplayInterrupted, VerificationError
from distsgd.parallel.server.spec import Outcome, ServerSpec
from distsgd.parallel.server.step_runner import EventHooks, OnStep
from distsgd.run import run_files
from distsgd.run.execution import execute
from distsgd.run.handed_in import refuse_workers
from distsgd.run.own_code import check_own_code
from distsgd.run.progress import Progress, ProgressWatch
from distsgd.run.resume import check_replay
from distsgd.run.spec import RunSpec, make_run_spec
from distsgd.store.logs import DigestLog, read_history, weights_digest
from distsgd.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from distsgd.run.run import Run


@contextmanager
def replayed(
    saved: Run,
    run_spec: RunSpec,
    num_steps: int,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_step: OnStep | None = None,
    stop: threading.Event | None = None,
    evaluate: bool = True,
) -> Iterator[Run]:
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
        hooks = EventHooks(on_step=on_step)
        outcome = execute(run, run_spec, watch, hooks=hooks, changed=shortened)
        watch.end()
        _refuse_half(saved.directory, outcome, num_steps)
        yield type(saved).of(run_spec, run)


def _silent(_: Any) -> None:
    """Say nothing: how a replay goes is not how the run went."""


def _refuse_half(run: RunDirectory, outcome: Outcome, num_steps: int) -> None:
    """Raise what ended the replay, unless it came to the end that its configuration says."""
    if outcome.status == "interrupted":
        raise ReplayInterrupted(run.place, outcome.steps, num_steps)
    if outcome.status == "diverged":
        advice = (
            f"the run {run.place} diverges here when it is computed again ({outcome.advice}), "
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
            if not Path(error.path).is_relative_to(room.name):
                raise
            raise _no_room(run, room.name, error.reason.partition(" (")[0]) from error


def _no_room(run: RunDirectory, room: str, reason: str) -> DiskError:
    return DiskError(
        room,
        f"{reason}, while {run.place} was computed again; nothing was found out about it (make "
        "room there, or name another directory in TMPDIR)",
    )


Say = Callable[[str], None]
_NOT_COMPARED = {"seconds"}  # The only column that is no function of configuration, data and seed.


@dataclass(frozen=True, slots=True)
class Verification:
    """What held: `steps` made again, `digests` compared."""

    steps: int
    digests: int


@dataclass(frozen=True, slots=True)
class Record:
    """What a run directory says about its steps."""

    steps: int
    digests: dict[int, str]
    history: list[dict[str, Any]]
    weights_digest: str
    has_met_target: bool = False


def verify(
    saved: Run,
    *,
    num_workers: int = 0,
    accept_numerics: bool = False,
    on_message: Say | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    cache_dir: Path | str | Location | None = None,
) -> Verification:
    """Make `saved` again in a directory of its own and compare; see `Run.verify`. Blocks.

    What it names (rule, sampler, worker, loss) is imported, which runs the modules' code: verify
    only runs whose named modules you trust.
    """
    num_workers = count_argument("num_workers", num_workers)
    say = call_argument("on_message", on_message, _silent)
    show = call_argument("on_progress", on_progress, _silent)
    if num_workers:
        refuse_workers(saved.own, num_workers)
    recorded = read_record(saved)
    run_spec = _spec_of_replay(saved, saved.data(cache_dir), num_workers)
    doubts = check_replay(saved.directory, run_spec, accept_numerics=accept_numerics)
    doubts += check_own_code(saved.directory, saved.own)
    for doubt in doubts:
        say(f"WARNING: {saved.place}: {doubt}")
    say(f"making {recorded.steps} steps again")
    with replayed(saved, run_spec, recorded.steps, on_progress=show, stop=stop) as made:
        again = read_record(made)
    # Of several at one step, the first: what ends a run explains what is missing behind it.
    wrong = min(differences(recorded, again), key=itemgetter(0), default=None)
    if wrong is not None:
        step, what = wrong
        end = "; ".join(("nothing from there on can be trusted", *doubts))
        raise VerificationError(saved.place, step, f"{what}; {end}")
    return Verification(recorded.steps, len(recorded.digests))


def read_record(saved: Run) -> Record:
    """What `saved` says about its steps, up to its checkpoint. Raises CheckpointError."""
    directory, steps = saved.directory, saved.checkpoint.step
    return Record(
        steps,
        {
            row.step: row.digest
            for row in DigestLog(directory.digests_path).read()
            if row.step <= steps
        },
        [row for row in read_history(directory.history).to_pylist() if row["step"] <= steps],
        weights_digest(saved.recorded_weights_P),
        saved.metrics.get("stopped_by") == "target",
    )


def _spec_of_replay(saved: Run, data: DataPlace, num_workers: int) -> RunSpec:
    parallel = saved.config.parallel.model_copy(
        update={"workers": num_workers, "assignment": "all"}
    )
    config = saved.config.model_copy(update={"parallel": parallel})
    return make_run_spec(config, data, saved.manifest, saved.own)


def differences(recorded: Record, again: Record) -> Iterator[tuple[int, str]]:
    """Every step at which the record is not what comes out, with what differs."""
    yield from _different_ends(recorded, again)
    for step in sorted(recorded.digests.keys() | again.digests.keys()):
        if recorded.digests.get(step) != again.digests.get(step):
            yield step, f"digest {recorded.digests.get(step)}, computed {again.digests.get(step)}"
    by_step = {row["step"]: row for row in recorded.history}
    for row in again.history:
        found = by_step.pop(row["step"], None)
        if found is None:
            yield row["step"], "the history has no row of it"
            continue
        for name in row.keys() - _NOT_COMPARED:
            if not _same(found.get(name), row[name]):
                yield (
                    row["step"],
                    f"{name} in the history is {found.get(name)}, computed {row[name]}",
                )
    for step in by_step:
        yield step, "a row of the history that no step made"
    if recorded.weights_digest != again.weights_digest:
        yield recorded.steps, "the weights of the checkpoint differ"


def _different_ends(recorded: Record, again: Record) -> Iterator[tuple[int, str]]:
    if again.steps < recorded.steps:
        yield again.steps + 1, "computed again, the run ends before it"
    elif recorded.has_met_target and not again.has_met_target:
        yield recorded.steps, "the record says that the target was met here, and it was not"


def _same(recorded: object, computed: object) -> bool:
    """Equal, as bits are: what is no number equals itself."""
    return recorded == computed or (recorded != recorded and computed != computed)  # noqa: PLR0124
