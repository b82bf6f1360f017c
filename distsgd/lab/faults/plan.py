"""A fault plan: which process dies, stops, slows down or disconnects, at which step and phase.

A plan is data, read from one line a fault:

    kill worker every 50 steps                   any worker, at steps 50, 100, ...
    stop worker 1 at step 30 after_compute       SIGSTOP, of which no process is told
    slow worker 0 at step 10 by 10 for 200 steps
    drop worker at step 7                        its connection ends, its process lives
    kill server at step 100 during_checkpoint
    kill driver at step 40
    random 1 in 100 steps seed 5                 any of these but the driver

A step is the number of updates made so far; a fault is due at the first opportunity from then on.
No I/O here and no clock; `injection` carries a plan out. No input to the bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from distsgd.errors import ConfigError

Action = Literal["kill", "stop", "slow", "drop"]
Target = Literal["worker", "server", "driver"]
Phase = Literal[
    "before_read",
    "after_compute",
    "before_update",
    "after_update",
    "during_checkpoint",
    "during_evaluation",
]
GRAMMAR = (
    'one of: "kill worker every 50 steps", "stop worker 1 at step 30 after_compute", '
    '"slow worker 0 at step 10 by 10 for 200 steps", "drop worker at step 7", '
    '"kill server at step 100 during_checkpoint", "kill driver at step 40", '
    '"random 1 in 100 steps seed 5"; phases: ' + ", ".join(get_args(Phase))
)
# A worker sees these itself; in the others the server acts on it.
WORKER_PHASES: frozenset[Phase] = frozenset({"before_read", "after_compute", "during_evaluation"})
SERVER_PHASES: frozenset[Phase] = frozenset(get_args(Phase)) - {"before_read", "after_compute"}
# Names of phases before 0.3, accepted for one release.
_OLD_PHASES = {"before_apply": "before_update", "after_apply": "after_update"}
_FIRST_PHASE: dict[Target, Phase] = {"worker": "before_read", "server": "after_update"}
DEFAULT_FACTOR = 10.0
RANDOM_SLOW_STEPS = 20
_CHUNK = 4096

_NUMBER = r"(\d{1,15})"
_LINE = re.compile(
    rf"(?P<action>kill|stop|slow|drop) (?P<target>worker|server|driver)(?: (?P<worker>\d{{1,6}}))? "
    rf"(?:at step (?P<step>\d{{1,15}})|every (?P<every>\d{{1,15}}) steps)"
    rf"(?: (?P<phase>{'|'.join(get_args(Phase))}))?"
    rf"(?: by (?P<factor>\d{{1,6}}(?:\.\d{{1,6}})?))?(?: for (?P<steps>\d{{1,15}}) steps)?\Z"
)
_RANDOM = re.compile(rf"random 1 in {_NUMBER} steps(?: seed {_NUMBER})?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, or with `every` one again and again.

    Attributes:
        action: "kill" (SIGKILL), "stop" (SIGSTOP), "slow", or "drop" (the connection).
        target: The process it befalls.
        worker: Number of the worker; None: the first that comes to `phase`.
        step: From which step on; None where `every` says it.
        every: At each multiple of it.
        phase: Where in the step; None for the driver, which does not see steps from inside.
        factor: "slow": how many times as long everything takes.
        steps: "slow": for how long; None: as long as the process lives.
    """

    action: Action
    target: Target
    worker: int | None = None
    step: int | None = None
    every: int | None = None
    phase: Phase | None = None
    factor: float = DEFAULT_FACTOR
    steps: int | None = None

    def __str__(self) -> str:
        whom = self.target if self.worker is None else f"{self.target} {self.worker}"
        when = f"at step {self.step}" if self.every is None else f"every {self.every} steps"
        how = f" by {self.factor:g}" if self.action == "slow" else ""
        how += f" for {self.steps} steps" if self.steps is not None else ""
        return f"{self.action} {whom} {when}{f' {self.phase}' if self.phase else ''}{how}"

    def occurrence(self, step: int) -> int | None:
        """Which of its occurrences is the newest due at `step`; None before the first."""
        if self.every is not None:
            return step // self.every or None
        assert self.step is not None
        return 0 if step >= self.step else None


class Due(NamedTuple):
    """A fault that may happen now, unless `key` says that it has happened already."""

    key: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class RandomFaults:
    """A fault at one in `one_in` steps, as a pure function of `seed` and the step."""

    one_in: int
    seed: int = 0

    def __str__(self) -> str:
        return f"random 1 in {self.one_in} steps seed {self.seed}"

    def at(self, step: int) -> Fault | None:
        """The fault that happens at `step`, if any."""
        # Loads numpy, which reading a plan need not.
        from distsgd.base.random_keys import Purpose, raw_integers  # noqa: PLC0415

        chance, kind, place = raw_integers(self.seed, Purpose.FAULT, step, count=3).tolist()
        if chance % self.one_in:
            return None
        action, target = _RANDOM_KINDS[kind % len(_RANDOM_KINDS)]
        phases = sorted(WORKER_PHASES if target == "worker" else SERVER_PHASES)
        phase = phases[place % len(phases)]
        if action == "slow":
            return Fault(
                action=action, target=target, step=step, phase=phase, steps=RANDOM_SLOW_STEPS
            )
        return Fault(action=action, target=target, step=step, phase=phase)


# Out of ten.
_RANDOM_KINDS: tuple[tuple[Action, Target], ...] = (
    ("kill", "worker"),
    ("kill", "worker"),
    ("kill", "worker"),
    ("kill", "worker"),
    ("slow", "worker"),
    ("slow", "worker"),
    ("drop", "worker"),
    ("drop", "worker"),
    ("stop", "worker"),
    ("kill", "server"),
)


@lru_cache(maxsize=1 << 16)
def _drawn(source: RandomFaults, step: int) -> Fault | None:
    return source.at(step)


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Faults and sources of random ones; empty by default.

    >>> plan = FaultPlan().kill(worker=1, step=3, phase="after_compute").kill(server=True, step=9)
    >>> [str(fault) for fault in plan.faults]
    ['kill worker 1 at step 3 after_compute', 'kill server at step 9 after_update']
    >>> FaultPlan.parse(["slow worker 0 at step 10 by 4"]).faults[0].factor
    4.0
    """

    faults: tuple[Fault, ...] = ()
    random: tuple[RandomFaults, ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> FaultPlan:
        """The plan in `lines`.

        Raises:
            ConfigError: Names every line that is none, with the grammar.
        """
        plan = cls()
        problems: list[str] = []
        for line in lines:
            try:
                plan = plan.with_line(line)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        return plan

    def with_line(self, line: str) -> FaultPlan:
        """This plan and the fault in `line`. Raises ConfigError."""
        words = " ".join(_OLD_PHASES.get(word, word) for word in line.split())
        if match := _RANDOM.match(words):
            one_in, seed = int(match[1]), int(match[2] or 0)
            if one_in:
                return replace(self, random=(*self.random, RandomFaults(one_in, seed)))
        elif match := _LINE.match(words):
            return self.with_fault(_fault(line, match.groupdict()))
        raise _refused(line, "cannot be read")

    def with_fault(self, fault: Fault) -> FaultPlan:
        """This plan and `fault`; raises ConfigError where it cannot be."""
        if fault.phase is None and fault.target != "driver":
            fault = replace(fault, phase=_FIRST_PHASE[fault.target])
        _check(fault)
        return replace(self, faults=(*self.faults, fault))

    def kill(
        self,
        *,
        worker: int | None = None,
        server: bool = False,
        step: int,
        phase: Phase | None = None,
    ) -> FaultPlan:
        """This plan, and a worker or the server is killed."""
        target: Target = "server" if server else "worker"
        return self.with_fault(
            Fault(action="kill", target=target, worker=worker, step=step, phase=phase)
        )

    def stop(
        self, *, worker: int | None = None, step: int, phase: Phase | None = None
    ) -> FaultPlan:
        """This plan, and a worker's process is stopped (SIGSTOP); it keeps its connection."""
        return self.with_fault(
            Fault(action="stop", target="worker", worker=worker, step=step, phase=phase)
        )

    def slow(
        self, *, worker: int | None = None, step: int, factor: float, steps: int | None = None
    ) -> FaultPlan:
        """This plan, and a worker takes `factor` times as long, for `steps` steps or for good."""
        fault = Fault(action="slow", target="worker", worker=worker, step=step)
        return self.with_fault(replace(fault, factor=factor, steps=steps))

    def drop(
        self, *, worker: int | None = None, step: int, phase: Phase | None = None
    ) -> FaultPlan:
        """This plan, and a worker's connection ends."""
        return self.with_fault(
            Fault(action="drop", target="worker", worker=worker, step=step, phase=phase)
        )

    @property
    def needs_workers(self) -> bool:
        """Is any fault one of a worker?"""
        return bool(self.random) or any(fault.target == "worker" for fault in self.faults)

    def due(self, target: Target, phase: str | None, *, since: int, step: int) -> Iterator[Due]:
        """Faults of `target` in `phase` that may happen at `step`; other phases have none.

        Random ones are those of the steps after `since`, the last step that was asked for.
        """
        seen: dict[str, int] = {}
        for fault in self.faults:
            text = str(fault)
            seen[text] = seen.get(text, 0) + 1
            if fault.target != target or fault.phase != phase:
                continue
            occurrence = fault.occurrence(step)
            if occurrence is not None:
                times = f" ({seen[text]})" if seen[text] > 1 else ""
                yield Due(text + times + (f" #{occurrence}" if occurrence else ""), fault)
        for source in self.random:
            for at in range(max(since + 1, step - _CHUNK), step + 1):
                drawn = _drawn(source, at)
                if drawn is not None and (drawn.target, drawn.phase) == (target, phase):
                    yield Due(f"{source}: {drawn}", drawn)


def _fault(line: str, found: dict[str, str | None]) -> Fault:
    numbers = {
        name: int(found[name] or 0)
        for name in ("worker", "step", "every", "steps")
        if found[name] is not None
    }
    if found["factor"] is not None and found["action"] != "slow":
        raise _refused(line, 'has a factor ("by") that only "slow" knows')
    return Fault(
        action=found["action"],  # type: ignore[arg-type]  # The pattern allows no other.
        target=found["target"],  # type: ignore[arg-type]
        phase=found["phase"],  # type: ignore[arg-type]
        factor=float(found["factor"] or DEFAULT_FACTOR),
        **numbers,
    )


def _check(fault: Fault) -> None:
    """Refuse what cannot be done. Raises ConfigError."""
    problem = None
    if fault.target != "worker" and (fault.action != "kill" or fault.worker is not None):
        problem = f"cannot be done to the {fault.target}; it can only be killed"
    elif fault.target == "driver" and fault.phase is not None:
        problem = "has a phase; the driver does not see steps from inside"
    elif fault.target == "server" and fault.phase not in SERVER_PHASES:
        problem = f"has a phase of workers; the server's are {', '.join(sorted(SERVER_PHASES))}"
    elif fault.phase not in WORKER_PHASES and fault.action in ("slow", "drop"):
        problem = f"cannot be done then; it goes with {', '.join(sorted(WORKER_PHASES))}"
    elif fault.every == 0 or (fault.every is None) == (fault.step is None):
        problem = 'needs "at step N" or "every N steps", N 1 or more'
    elif fault.action == "slow" and fault.factor <= 1:
        problem = f"slows down by {fault.factor:g}; must be above 1"
    elif fault.steps is not None and fault.action != "slow":
        problem = 'has a length ("for") that only "slow" knows'
    if problem:
        raise _refused(str(fault), problem)


def _refused(line: str, problem: str) -> ConfigError:
    shown = line if len(line) <= 80 else f"{line[:77]}..."
    return ConfigError([f'faults has "{shown}", which {problem}; write {GRAMMAR}'])
