"""The observer that injects the faults of a plan: in workers, in the server, in the driver.

Every fault is injected once in the life of a run, however often its processes are restarted: it is
written to a log in the run directory, durably, before it is injected. A process that cannot reach
that directory (on another node) injects nothing. No input to the bits.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distsgd.base.files import STAGING
from distsgd.errors import ConfigError
from distsgd.lab.faults.log import FILE, FaultLog, counted
from distsgd.lab.faults.plan import Due, Fault, FaultPlan, Target
from distsgd.parallel.observer import Observer, ObserverContext, Phase
from distsgd.parallel.transport.interface import ServerGone

NAME = "distsgd.lab.faults.injection:FaultInjection"


def overrides(faults: Sequence[str]) -> tuple[str, str]:
    """What `TrainConfig.with_overrides` takes for a run with `faults` injected, or with none.

    >>> overrides(["kill worker at step 3"])[1]
    'parallel.observer_options={faults = ["kill worker at step 3"]}'
    """
    options = f"{{faults = {json.dumps([*faults])}}}"
    return f'parallel.observer="{NAME}"', f"parallel.observer_options={options}"


class FaultInjection(Observer):
    """Injects `faults`, a list of lines as in `plan`, of which each process injects its own."""

    def __init__(self, context: ObserverContext, faults: Sequence[str] = ()) -> None:
        self._log = FaultLog(context.run / FILE)
        self._injector = _ROLES[context.role](FaultPlan.parse(faults), self._log, context)

    def on_phase(self, phase: Phase, step: int) -> None:
        """Inject what is due now."""
        self._injector.on_phase(phase, step)

    def summary(self) -> dict[str, list[str]]:
        """The injected faults, in order. Raises CheckpointError."""
        return {"faults": self._log.names()}

    def report(self) -> str:
        """How often each kind was injected. Raises CheckpointError."""
        return f"injected faults: {counted(self._log.names())}"

    def planned_server_deaths(self) -> int:
        """Injected deaths of the server. Raises CheckpointError."""
        return sum("worker" not in entry for entry in self._log.read())

    @classmethod
    def check(cls, options: Mapping[str, Any], *, has_workers: bool) -> Iterator[str]:
        """Every line that is no fault, and faults of workers where there are none."""
        faults = options.get("faults", ())
        if isinstance(faults, str) or not isinstance(faults, Iterable):
            yield f'faults is {faults!r}; must be a list, such as ["kill worker every 50 steps"]'
            return
        try:
            plan = FaultPlan.parse(map(str, faults))
        except ConfigError as error:
            yield from error.problems
            return
        if plan.needs_workers and not has_workers:
            yield (
                "faults names workers and parallel.workers is 0; in a run without workers, faults "
                "can be injected into the server and the driver only (set [parallel] workers, or "
                "change the faults)"
            )


class _Injector:
    """What the three roles have in common: which faults are due, each step looked at once."""

    target: Target

    def __init__(self, plan: FaultPlan, log: FaultLog, context: ObserverContext) -> None:
        self._plan, self._log, self._context = plan, log, context
        self._since: dict[Phase, int] = {}

    def on_phase(self, phase: Phase, step: int) -> None:
        raise NotImplementedError

    def _due(self, target: Target, phase: Phase, step: int) -> Iterator[Due]:
        return self._plan.due(target, phase, since=self._since.get(phase, step - 1), step=step)


class _WorkerFaults(_Injector):
    """Faults in a worker's process, in the phases that it sees itself."""

    def __init__(self, plan: FaultPlan, log: FaultLog, context: ObserverContext) -> None:
        super().__init__(plan, log, context)
        self._factor, self._slow_until = 1.0, 0
        self._started_s = 0.0

    def on_phase(self, phase: Phase, step: int) -> None:
        if phase.startswith("after") and step < self._slow_until:
            time.sleep((self._factor - 1.0) * (time.perf_counter() - self._started_s))
        self._inject_due(phase, step)
        self._started_s = time.perf_counter()

    def _inject_due(self, phase: Phase, step: int) -> None:
        due = self._due("worker", phase, step)
        self._since[phase] = step
        number = self._context.worker
        for key, fault in due:
            is_mine = fault.worker is None or fault.worker == number
            if is_mine and self._log.claim(key, step=step, worker=number, pid=os.getpid()):
                self._inject(fault, step)
                return

    def _inject(self, fault: Fault, step: int) -> None:
        if fault.action == "kill":
            send_signal(signal.SIGKILL)
        elif fault.action == "stop":
            send_signal(signal.SIGSTOP)
        elif fault.action == "drop":
            raise ServerGone("an injected fault ends the connection")
        else:
            self._factor = fault.factor
            self._slow_until = sys.maxsize if fault.steps is None else step + fault.steps


class _ServerFaults(_Injector):
    """Faults in the phases that only the server sees: in itself, and in its workers meanwhile."""

    def on_phase(self, phase: Phase, step: int) -> None:
        mine, theirs = self._due("server", phase, step), self._due("worker", phase, step)
        self._since[phase] = step
        for key, _ in mine:
            if self._log.claim(key, step=step, pid=os.getpid()):
                self._die(phase)
        if phase == "during_evaluation":
            return  # Workers see evaluations themselves.
        for key, fault in theirs:
            worker = self._victim(fault, step)
            process = self._context.process_of(worker) if worker is not None else None
            if process is None or not self._log.claim(key, step=step, worker=worker, pid=process):
                continue
            send_signal(signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP, process)

    def _victim(self, fault: Fault, step: int) -> int | None:
        members = sorted(self._context.members())
        if fault.worker is not None:
            return fault.worker if fault.worker in members else None
        return members[step % len(members)] if members else None

    def _die(self, phase: Phase) -> None:
        if phase == "during_checkpoint":
            # All files are staged and none has its name yet: Python tells of the renaming.
            sys.addaudithook(_die_at_rename)
        else:
            send_signal(signal.SIGKILL)


class _DriverFaults(_Injector):
    """The driver's own death; it sees the run from outside, about ten times a second."""

    def on_phase(self, phase: Phase, step: int) -> None:
        del phase  # There is one.
        for key, _ in self._plan.due("driver", None, since=step, step=step):
            if self._log.claim(key, step=step, pid=os.getpid()):
                send_signal(signal.SIGKILL)


_ROLES = {"worker": _WorkerFaults, "server": _ServerFaults, "driver": _DriverFaults}


def send_signal(number: signal.Signals, pid: int | None = None) -> None:
    """Send a signal to `pid`, or to this process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(os.getpid() if pid is None else pid, number)


def _die_at_rename(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.rename" and Path(os.fsdecode(arguments[0])).name.startswith(f"{STAGING}step-"):
        send_signal(signal.SIGKILL)
