"""Verifying a run.

It is made again, by any number of workers, and every digest held against the record.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsgd.base.settings import call_argument, count_argument
from distsgd.errors import VerificationError
from distsgd.run.own_code import check_own_code, refuse_workers
from distsgd.run.progress import Progress
from distsgd.run.replay import replayed
from distsgd.run.resume import check_replay
from distsgd.run.saved import SavedRun
from distsgd.run.spec import RunSpec, make_run_spec
from distsgd.store.logs import DigestLog, read_history, weights_digest

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


def verify(
    saved: SavedRun,
    *,
    num_workers: int = 0,
    accept_numerics: bool = False,
    on_message: Say | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    cache_dir: Path | None = None,
) -> Verification:
    """Make `saved` again in a directory of its own and compare; see `Run.verify`. Blocks."""
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
        say(f"WARNING: {saved.path}: {doubt}")
    say(f"making {recorded.steps} steps again")
    with replayed(saved, run_spec, recorded.steps, on_progress=show, stop=stop) as made:
        again = read_record(made)
    wrong = min(differences(recorded, again), default=None)
    if wrong is not None:
        step, what = wrong
        end = "; ".join(("nothing from there on can be trusted", *doubts))
        raise VerificationError(saved.path, step, f"{what}; {end}")
    return Verification(recorded.steps, len(recorded.digests))


def _silent(_: object) -> None:
    """Say nothing."""


def read_record(saved: SavedRun) -> Record:
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
    )


def _spec_of_replay(saved: SavedRun, data: Path, num_workers: int) -> RunSpec:
    parallel = saved.config.parallel.model_copy(
        update={"workers": num_workers, "assignment": "all"}
    )
    config = saved.config.model_copy(update={"parallel": parallel})
    return make_run_spec(config, data, saved.manifest, saved.own)


def differences(recorded: Record, again: Record) -> Iterator[tuple[int, str]]:
    """Every step at which the record is not what comes out, with what differs."""
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


def _same(recorded: object, computed: object) -> bool:
    """Equal, as bits are: what is no number equals itself."""
    return recorded == computed or (recorded != recorded and computed != computed)  # noqa: PLR0124
