"""What carries a fault plan out: in a worker's process, in the server's, in the driver's.

Every fault happens once in the life of a run, however often its processes start anew: it is written
to a log in the run directory, durably, before it is done. A process that cannot reach that
directory (on another node) does nothing. No input to the bits.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsgd.base.arrays import Array
from distsgd.base.atomic_files import STAGING
from distsgd.base.file_lock import lock_within
from distsgd.errors import CheckpointError
from distsgd.lab.faults.plan import Fault, FaultPlan, Phase
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, WorkerInfo
from distsgd.parallel.runner import Handler
from distsgd.parallel.transport.interface import ServerGone

FILE = "chaos.jsonl"
_LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Chaos:
    """A plan and the run directory in which it is written down what was done."""

    plan: FaultPlan
    run: Path

    @property
    def log(self) -> FaultLog:
        """What was done."""
        return FaultLog(self.run / FILE)


class FaultLog:
    """One JSON object a line; a line that was cut by a crash is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: set[str] = set()  # Known to have happened, so that nobody looks again.

    def claim(self, key: str, **facts: Any) -> bool:
        """Write down that `key` happens now; False where it has happened, or cannot be written.

        Durable when it returns; one process at a time.
        """
        if key in self._done:
            return False
        with self._locked() as descriptor:
            self._done.add(key)
            if descriptor is None:
                return False
            data = _read(descriptor)
            if any(entry.get("fault") == key for entry in _entries(data)):
                return False
            line = json.dumps({"fault": key, **facts, "time": time.time()}) + "\n"
            start = data.rfind(b"\n") + 1
            os.ftruncate(descriptor, start)
            os.pwrite(descriptor, line.encode(), start)
            os.fsync(descriptor)
            return True

    def read(self) -> list[dict[str, Any]]:
        """All that was done, in order; empty where there is no log.

        Raises:
            CheckpointError: It cannot be read.
        """
        try:
            return list(_entries(self.path.read_bytes()))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(self.path, f"cannot be read: {error.strerror}") from error

    def names(self) -> list[str]:
        """The faults that were done, in order. Raises CheckpointError."""
        return [str(entry.get("fault")) for entry in self.read()]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield None  # Another node, or a run directory that is gone.
            return
        try:
            yield descriptor if lock_within(descriptor, _LOCK_TIMEOUT_S) else None
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _entries(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def kinds(names: Iterable[str]) -> dict[str, int]:
    """How often each kind of fault was done; the most frequent first.

    >>> kinds(["kill worker 1 at step 3", "random 1 in 9 steps seed 0: kill worker at step 9"])
    {'kill worker': 2}
    """
    counts = Counter(" ".join(name.rpartition(": ")[2].split()[:2]) for name in names)
    return dict(counts.most_common())


def counted(names: Iterable[str]) -> str:
    """The same for people."""
    return ", ".join(f"{kind} ({count})" for kind, count in kinds(names).items()) or "none"


class FaultyWorker:
    """A worker to whom the plan's faults happen; see `runner.Handler`."""

    def __init__(self, worker: Handler, chaos: Chaos) -> None:
        self._worker, self._plan, self._log = worker, chaos.plan, chaos.log
        self._number = -1
        self._since: dict[Phase, int] = {}
        self._factor, self._slow_until = 1.0, 0

    def describe(self, worker: int) -> WorkerInfo:
        """As the worker inside."""
        self._number = worker
        return self._worker.describe(worker)

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        """As the worker inside."""
        self._worker.attach(weights_P, slots_SP)

    def compute(self, order: ComputeRequest) -> ComputeReply:
        """As the worker inside, unless something happens to it."""
        is_evaluation = order.kind is RequestKind.EVALUATE
        self._meet("during_evaluation" if is_evaluation else "before_read", order.step)
        started = time.perf_counter()
        report = self._worker.compute(order)
        if order.step < self._slow_until:
            time.sleep((self._factor - 1.0) * (time.perf_counter() - started))
        if not is_evaluation:
            self._meet("after_compute", order.step)
        return report

    def prefetch(self, order: ComputeRequest) -> None:
        """As the worker inside."""
        self._worker.prefetch(order)

    def _meet(self, phase: Phase, step: int) -> None:
        since = self._since.get(phase, step - 1)
        self._since[phase] = step
        for key, fault in self._plan.due("worker", phase, since=since, step=step):
            mine = fault.worker is None or fault.worker == self._number
            if mine and self._log.claim(key, step=step, worker=self._number, pid=os.getpid()):
                self._suffer(fault, step)
                return

    def _suffer(self, fault: Fault, step: int) -> None:
        if fault.action == "kill":
            end_process(signal.SIGKILL)
        elif fault.action == "stop":
            end_process(signal.SIGSTOP)
        elif fault.action == "drop":
            raise ServerGone("chaos: the connection is dropped")
        else:
            self._factor = fault.factor
            self._slow_until = sys.maxsize if fault.steps is None else step + fault.steps


def end_process(number: signal.Signals, pid: int | None = None) -> None:
    """Send a signal to `pid`, or to this process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(os.getpid() if pid is None else pid, number)


class ServerFaults:
    """Faults in the phases that only the server sees: its own, and its workers' meanwhile.

    Args:
        chaos: The plan.
        members: The workers that are connected.
        process_of: A worker's process on this node; None where it is not known for certain.
    """

    def __init__(
        self,
        chaos: Chaos,
        members: Callable[[], tuple[int, ...]],
        process_of: Callable[[int], int | None],
    ) -> None:
        self._plan, self._log, self._run = chaos.plan, chaos.log, chaos.run
        self._members, self._process_of = members, process_of
        self._since: dict[Phase, int] = {}

    def __call__(self, phase: Phase, step: int) -> None:
        """The server is in `phase` with `step` updates made."""
        since = self._since.get(phase, step - 1)
        self._since[phase] = step
        for key, _ in self._plan.due("server", phase, since=since, step=step):
            if self._log.claim(key, step=step, pid=os.getpid()):
                self._die(phase)
        if phase == "during_evaluation":
            return  # Workers see evaluations themselves.
        for key, fault in self._plan.due("worker", phase, since=since, step=step):
            worker = self._victim(fault, step)
            process = self._process_of(worker) if worker is not None else None
            if process is None or not self._log.claim(key, step=step, worker=worker, pid=process):
                continue
            end_process(signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP, process)

    def _victim(self, fault: Fault, step: int) -> int | None:
        members = sorted(self._members())
        if fault.worker is not None:
            return fault.worker if fault.worker in members else None
        return members[step % len(members)] if members else None

    def _die(self, phase: Phase) -> None:
        if phase == "during_checkpoint":
            # All is written aside and nothing has its name yet: Python tells of the renaming.
            sys.addaudithook(_die_at_rename)
        else:
            end_process(signal.SIGKILL)


def _die_at_rename(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.rename" and Path(os.fsdecode(arguments[0])).name.startswith(f"{STAGING}step-"):
        end_process(signal.SIGKILL)


class DriverFaults:
    """The driver's own end; it sees the run from outside, about ten times a second."""

    def __init__(self, chaos: Chaos) -> None:
        self._plan, self._log = chaos.plan, chaos.log

    def __call__(self, step: int) -> None:
        """The run was seen with `step` updates made."""
        for key, _ in self._plan.due("driver", None, since=step, step=step):
            if self._log.claim(key, step=step, pid=os.getpid()):
                end_process(signal.SIGKILL)
