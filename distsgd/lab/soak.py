"""Soak test: random faults and random numbers of workers in run after run, one right answer.

Each round trains the same configuration in processes of its own, with faults drawn from a seed and
a changing number of workers, and is then compared with a run without faults: every step once and in
order, every row once an epoch, the same losses, digests and weights, to the last bit.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from distsgd.base.random_keys import Purpose, raw_integers
from distsgd.errors import CheckpointError, ClusterError, DistSGDError, RunError
from distsgd.lab.faults import injection
from distsgd.lab.faults.log import FILE, FaultLog, counted
from distsgd.lab.processes import Gauge, marked_processes
from distsgd.parallel.launch.actors.desired_workers import DesiredWorkers
from distsgd.run.run import Run
from distsgd.run.verify import Record, differences, read_record
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.logs import EvaluationLog
from distsgd.store.run_directory import RunDirectory

MARK = "DISTSGD_SOAK_ROUND"
MOST_WORKERS = 4
SIZES = (1, 2, 3, 4, 1, 2, 3, 0)  # Of the pool, as it changes.
SCALE_EVERY_S = 2.0
LOOK_S = 0.1
ROUND_TIMEOUT_S = 1800.0
# Ray's own helpers notice the death of a driver late.
LEFTOVER_TIMEOUT_S = 120.0
RSS_GROWTH_BYTES = 48 << 20
OPEN_FILES_GROWTH = 16
_SETTINGS = ("train.history_every=1", "train.digest_every=1", "parallel.assignment=all")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Soak:
    """What to do.

    Attributes:
        config: The configuration that every round trains.
        overrides: As for ``train --set``.
        minutes: No round begins after that.
        rounds: At most so many; None: as many as there is time for.
        faults: No round begins after so many were injected; None: as many as there is time for.
        one_in: A random fault at one in so many steps.
        seed: Of the first round; the next round's is one more.
    """

    config: Path
    overrides: tuple[str, ...]
    minutes: float
    rounds: int | None
    faults: int | None
    one_in: int
    seed: int


@dataclass(slots=True)
class Round:
    """How one round went; `problems` is empty where it gave the right answer."""

    seed: int
    workers: list[int] = field(default_factory=list)  # One after the other.
    steps: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    resumes: int = 0
    rss_growth_bytes: int = 0
    open_files_growth: int = 0
    problems: list[str] = field(default_factory=list)


def soak(what: Soak, *, on_message: Say = lambda _: None) -> list[Round]:
    """Make rounds until the time is over, or one gives another answer. Blocks.

    Raises:
        ClusterError: The run without faults does not come to its end; says why.
    """
    place = Path(tempfile.mkdtemp(prefix="distsgd-soak-"))
    deadline = time.monotonic() + 60.0 * what.minutes
    done: list[Round] = []
    try:
        reference = _reference(what, place)
        on_message(f"{reference.steps} steps without faults: {reference.weights_digest[:16]}")
        while time.monotonic() < deadline or not done:
            now = _RoundOf(what, place, what.seed + len(done)).make(reference)
            done.append(now)
            on_message(_summary(now))
            if now.problems:
                on_message(f"what it left lies in {place}")
                return done
            if is_enough(what, done):
                break
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place, ignore_errors=True)
    return done


def is_enough(what: Soak, done: list[Round]) -> bool:
    """Were there as many rounds, or as many faults, as were asked for?"""
    num_faults = sum(len(one.faults) for one in done)
    return (what.rounds is not None and len(done) >= what.rounds) or (
        what.faults is not None and num_faults >= what.faults
    )


def _summary(now: Round) -> str:
    state = "; ".join(now.problems) or "the same bits"
    return (
        f"seed {now.seed}: {len(now.faults)} faults: {counted(now.faults)}; {now.resumes} resumes, "
        f"workers {'-'.join(map(str, now.workers))}, {now.seconds:.0f} s: {state}"
    )


def _command(what: Soak, run: Path, *more: str) -> list[str]:
    train = [sys.executable, "-m", "distsgd", "train", str(what.config), "--quiet", "--json"]
    return [*train, "--run-dir", str(run), *_settings((*what.overrides, *_SETTINGS)), *more]


def _settings(overrides: tuple[str, ...]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def _reference(what: Soak, place: Path) -> Record:
    run = place / "without-faults"
    command = _command(what, run, "--workers", "0", *_settings(injection.overrides(())))
    done = subprocess.run(  # noqa: S603 -- this program.
        command, capture_output=True, text=True, check=False, timeout=ROUND_TIMEOUT_S
    )
    if done.returncode:
        raise ClusterError(f"the run without faults ended with {done.returncode}: {done.stderr}")
    return read_record(Run.open(run))


class _RoundOf:
    """One round in the making."""

    def __init__(self, what: Soak, place: Path, seed: int) -> None:
        self._what, self._seed = what, seed
        self._run = place / f"seed-{seed}"
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._numbers = self._draw()
        self._gauge = Gauge()
        self._round = Round(seed)

    def make(self, reference: Record) -> Round:
        """Train under faults, then compare."""
        started = time.monotonic()
        now = self._round
        arguments = ["--inject", f"random 1 in {self._what.one_in} steps seed {self._seed}"]
        if next(self._numbers) % 3 == 0:
            step = next(self._numbers) % max(1, reference.steps)
            arguments += ["--inject", f"kill driver at step {step}"]
        workers = 1 + next(self._numbers) % MOST_WORKERS
        now.workers.append(workers)
        command = _command(self._what, self._run, "--workers", str(workers), *arguments)
        code, said = self._train(command)
        while code == -9:
            now.resumes += 1
            code, said = self._train([*command, "--resume", "auto"])
        now.seconds = time.monotonic() - started
        now.faults = FaultLog(self._run / FILE).names()
        now.problems += self._problems(code, said, reference)
        if not now.problems:
            shutil.rmtree(self._run, ignore_errors=True)
        return now

    def _draw(self) -> Iterator[int]:
        at = 0
        while True:
            yield from raw_integers(self._seed, Purpose.FAULT, 1 << 62, at, count=64).tolist()
            at += 1

    def _train(self, command: list[str]) -> tuple[int, str]:
        """Run to an end; exit code and what was said on the way."""
        environment = {**os.environ, MARK: self._mark}
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(  # noqa: S603 -- this program.
                command, env=environment, stdout=subprocess.DEVNULL, stderr=said
            )
            try:
                self._watch(process)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            said.seek(0)
            return process.returncode, said.read()[-2000:]

    def _watch(self, process: subprocess.Popen[Any]) -> None:
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        scale_at = time.monotonic() + SCALE_EVERY_S
        before, is_settled = self._last_steps(), False
        while process.poll() is None:
            now_s = time.monotonic()
            if now_s > deadline:
                self._round.problems.append(f"it hung: no end after {ROUND_TIMEOUT_S:g} s")
                return
            is_settled = is_settled or has_settled(before, self._last_steps())
            if is_settled:  # Starting Ray opens files, first steps take memory for good.
                self._gauge.look(process.pid, self._round.workers[-1])
            if now_s >= scale_at:
                scale_at = now_s + SCALE_EVERY_S
                self._scale(SIZES[next(self._numbers) % len(SIZES)])
            time.sleep(LOOK_S)

    def _last_steps(self) -> LastSteps:
        """Of what is on disk by now."""
        steps = CheckpointStore(self._run / "checkpoints").steps()
        with contextlib.suppress(DistSGDError, OSError):  # Not yet there, or written just now.
            if rows := EvaluationLog(self._run / "evaluations.jsonl").read():
                return LastSteps(max(steps, default=0), rows[-1].step)
        return LastSteps(max(steps, default=0), 0)

    def _scale(self, num_workers: int) -> None:
        try:
            DesiredWorkers(RunDirectory.open(self._run).path).ask(num_workers)
        except RunError:
            return  # It is not yet there, or no more.
        self._round.workers.append(num_workers)

    def _problems(self, code: int, said: str, reference: Record) -> Iterator[str]:
        now = self._round
        if code:
            yield f"it ended with {code}: {said.strip()}"
            return
        try:
            found = read_record(Run.open(self._run))
        except DistSGDError as error:
            yield f"its record cannot be read: {error}"
            return
        now.steps = found.steps
        yield from history_problems(found)
        for step, problem in differences(reference, found):
            yield f"step {step}: {problem}"
            break
        now.rss_growth_bytes, now.open_files_growth = self._gauge.growth()
        if now.rss_growth_bytes > RSS_GROWTH_BYTES:
            yield f"the driver grew by {now.rss_growth_bytes >> 20} MiB"
        if now.open_files_growth > OPEN_FILES_GROWTH:
            yield f"the driver has {now.open_files_growth} more open files"
        left = self._leftovers()
        if left:
            yield f"processes were left: {left}"

    def _leftovers(self) -> dict[int, str]:
        """Processes of this round that do not end by themselves."""
        deadline = time.monotonic() + LEFTOVER_TIMEOUT_S
        while left := marked_processes(f"{MARK}={self._mark}"):
            if time.monotonic() > deadline:
                return left
            time.sleep(LOOK_S)
        return {}


class LastSteps(NamedTuple):
    """The last step of which there is a checkpoint, and an evaluation; 0: there is none."""

    saved: int
    evaluated: int


def has_settled(before: LastSteps, now: LastSteps) -> bool:
    """Has a process that found `before` saved and evaluated since, or saved where none evaluates?

    Until then it takes memory that it keeps: for rows, programs and the copies of a checkpoint.

    >>> has_settled(LastSteps(40, 30), LastSteps(50, 30))
    False
    >>> has_settled(LastSteps(40, 30), LastSteps(60, 60))
    True
    """
    return now.saved > before.saved and (now.evaluated > before.saved or not now.evaluated)


def history_problems(found: Record) -> Iterator[str]:
    """What cannot be in the history of any run: steps missing or twice, samples that do not add up.

    Raises:
        CheckpointError: It has no rows at all.
    """
    rows = found.history
    if not rows:
        raise CheckpointError("history", "has no rows")
    steps = [row["step"] for row in rows]
    if steps != list(range(1, found.steps + 1)):
        at = next((i for i, step in enumerate(steps, 1) if step != i), len(steps))
        yield f"the history should have step {at} there and has {steps[at - 1]}"
    samples = [0, *(row["samples"] for row in rows)]
    batches = [after - before for before, after in itertools.pairwise(samples)]
    if min(batches) <= 0:
        yield f"step {batches.index(min(batches)) + 1} used {min(batches)} samples"
    epoch = next((i for i, row in enumerate(rows, 1) if row["epoch"] >= 1.0), None)
    if epoch is None:
        return
    rows_an_epoch = samples[epoch]
    for last in range(epoch, len(rows) + 1, epoch):
        if samples[last] - samples[last - epoch] != rows_an_epoch:
            yield f"the epoch up to step {last} used {samples[last] - samples[last - epoch]} rows"
            return


def summary(rounds: list[Round]) -> dict[str, Any]:
    """All rounds in one object."""
    failed = [one.seed for one in rounds if one.problems]
    return {
        "rounds": len(rounds),
        "steps": sum(one.steps for one in rounds),
        "seconds": round(sum(one.seconds for one in rounds), 1),
        "faults": sum(len(one.faults) for one in rounds),
        "kinds": counted(fault for one in rounds for fault in one.faults),
        "resumes": sum(one.resumes for one in rounds),
        "changes_of_workers": sum(len(one.workers) - 1 for one in rounds),
        "driver_grew_mib": max((one.rss_growth_bytes >> 20 for one in rounds), default=0),
        "open_files_grew": max((one.open_files_growth for one in rounds), default=0),
        "failed_seed": failed[0] if failed else None,
        "next_seed": rounds[-1].seed + (not failed) if rounds else None,
    }
