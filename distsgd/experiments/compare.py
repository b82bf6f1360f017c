"""``experiment compare``: several runs side by side. Reads the runs, and changes nothing.

What differs in their configurations, whether bits that must be equal are, how they learnt over
samples and over seconds, and what they were made with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from distsgd.base.locations import Location, place_argument
from distsgd.errors import ConfigError
from distsgd.experiments.compared_run import Bits, ComparedRun, read_run
from distsgd.parallel.server.target import Target

Metric = Literal["test_accuracy", "test_loss"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose value is not the same in all runs; `values` in their order, None for none."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class SameBits:
    """Runs of one configuration on the same data, whose bits are to be equal.

    Attributes:
        runs: Their labels.
        num_digests: Compared with that of an earlier run at the same step.
        first_difference: The first step at which they are not equal; None where all are.
        reason: Why they may differ, or why none were compared; "" for neither.
    """

    runs: tuple[str, ...]
    num_digests: int
    first_difference: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of it.

    Attributes:
        made: When.
        command: That makes it again.
        target: As "test_accuracy >= 0.95"; "" for none.
        metric: The one of the pictures, the target's if there is one.
        settings: Where the configurations differ.
        environments: Where what they were made with differs.
        bits: A row for each group of runs of one configuration.
        machines: Labels of the runs, by what the records say of the machine.
    """

    made: str
    command: str
    target: str
    metric: Metric
    runs: tuple[ComparedRun, ...]
    settings: tuple[Difference, ...]
    environments: tuple[Difference, ...]
    bits: tuple[SameBits, ...]
    machines: tuple[tuple[str, ...], ...]


def compare(
    places: Sequence[Path | Location | str], *, target: str | None = None, command: str = ""
) -> Comparison:
    """Read the runs at `places` and compare them. Blocks.

    Args:
        places: Run directories or addresses, two or more.
        target: What the runs are to reach, as "test_accuracy>=0.95".
        command: That makes the comparison again, for its report.

    Raises:
        ConfigError: Fewer than two runs, one of them twice, or no target.
        RunError: A place holds no run, or one that is damaged or of another version.
        CheckpointError: A history or a log is damaged.
        StorageError: The storage refuses, or does not answer.
    """
    _check_places(places)
    wanted = None if target is None else _target(target)
    read = [read_run(label(number), place, wanted) for number, place in enumerate(places)]
    runs = tuple(run for run, _ in read)
    return Comparison(
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        command=command,
        target="" if wanted is None else str(wanted),
        metric=_metric(runs, wanted),
        runs=runs,
        settings=differences([run.settings for run in runs]),
        environments=differences([run.environment for run in runs]),
        bits=same_bits([(run.label, bits) for run, bits in read]),
        machines=tuple(_grouped([(run.label, run.machine) for run in runs])),
    )


def label(number: int) -> str:
    """What a run is called.

    >>> label(0), label(25), label(26)
    ('A', 'Z', 'A2')
    """
    turn, letter = divmod(number, 26)
    return chr(ord("A") + letter) + (str(turn + 1) if turn else "")


def differences(tables: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """The keys whose values are not all equal, in the order of the tables.

    >>> differences([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}])
    (Difference(key='b', values=(2, 3)), Difference(key='c', values=(None, 4)))
    """
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [Difference(key, tuple(table.get(key) for table in tables)) for key in keys]
    return tuple(row for row in rows if any(one != two for one, two in pairwise(row.values)))


def same_bits(runs: Sequence[tuple[str, Bits]]) -> tuple[SameBits, ...]:
    """Each group of two or more runs that must have the same bits, and whether they do."""
    known = dict(runs)
    groups = _grouped([(name, bits.inputs) for name, bits in runs])
    return tuple(
        _held_together(names, [known[name] for name in names]) for names in groups if len(names) > 1
    )


def _held_together(names: tuple[str, ...], runs: list[Bits]) -> SameBits:
    number, first = _compared(runs)
    reason = "" if number else "no two of them have a digest of the same step"
    return SameBits(names, number, first, reason if first is None else _why_different(runs))


def _compared(runs: Sequence[Bits]) -> tuple[int, int | None]:
    """How many digests were compared, and the first step at which they are not equal."""
    at_step: dict[tuple[int, str], list[str]] = {}
    for run in runs:
        for place, digest in run.digests.items():
            at_step.setdefault(place, []).append(digest)
    wrong = [step for (step, _), digests in at_step.items() if len(set(digests)) > 1]
    return sum(len(digests) - 1 for digests in at_step.values()), min(wrong, default=None)


def _why_different(runs: list[Bits]) -> str:
    """What explains all differences; "" where some of them are between runs that are alike."""
    alike: dict[tuple[str, str], list[Bits]] = {}
    for run in runs:
        alike.setdefault((run.profile, run.own_code), []).append(run)
    if any(_compared(some)[1] is not None for some in alike.values()):
        return ""
    if len({run.profile for run in runs}) > 1:
        return "their processes compute different bits, as their numerics profiles say"
    return "the code of one's own that they name is not the same"


def _check_places(places: Sequence[Path | Location | str]) -> None:
    """Raises ConfigError."""
    if len(places) < 2:
        found = f"RUN is given {len(places)} times" if len(places) != 1 else "one RUN is given"
        raise ConfigError([f"{found}; must be two or more (show says how one run went)"])
    seen: set[object] = set()
    for place in (place_argument("run", place) for place in places):
        known = place.resolve() if isinstance(place, Path) else place
        if known in seen:
            raise ConfigError([f"RUN {place} is given twice; must be different runs"])
        seen.add(known)


def _target(text: str) -> Target:
    try:
        return Target.parse(text)
    except ConfigError as error:
        problems = [
            line.replace("train.target", "--target").removesuffix(" (set [train] target)")
            for line in error.problems
        ]
        raise ConfigError(problems) from None


def _metric(runs: Sequence[ComparedRun], target: Target | None) -> Metric:
    if target is not None:
        return "test_accuracy" if target.metric == "test_accuracy" else "test_loss"
    evaluated = [run for run in runs if run.evaluations]
    has_accuracy = evaluated and all(run.test_accuracy is not None for run in evaluated)
    return "test_accuracy" if has_accuracy else "test_loss"


def _grouped(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The names with equal values, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for name, value in pairs:
        groups.setdefault(value, []).append(name)
    return [tuple(names) for names in groups.values()]
