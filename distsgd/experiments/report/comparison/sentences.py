"""What a comparison shows, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from distsgd.experiments.compare import Comparison, SameBits
from distsgd.experiments.compared_run import ComparedRun
from distsgd.experiments.report import words
from distsgd.experiments.report.verdicts.verdict import Verdict

_MOST_NAMED = 4


def sentences(comparison: Comparison) -> tuple[Verdict, ...]:
    """All of them, what is wrong first."""
    told = [
        _settings(comparison),
        *_bits(comparison),
        *_metric(comparison),
        *_target(comparison),
        *_speed(comparison),
        *_machines(comparison),
        *_environments(comparison),
        *_unfinished(comparison),
    ]
    return tuple(sorted(told, key=lambda one: not one.is_alarm))


def _settings(comparison: Comparison) -> Verdict:
    keys = [row.key for row in comparison.settings]
    figures = {"settings": keys}
    if not keys:
        return Verdict("The configurations are the same.", figures)
    return Verdict(words.sentence(f"the configurations differ in {_named(keys)}"), figures)


def _bits(comparison: Comparison) -> Iterator[Verdict]:
    if not comparison.bits:
        text = "no two runs have the same configuration and data, so that no bits are compared"
        yield Verdict(words.sentence(text))
    for group in comparison.bits:
        yield _of_group(group)


def _of_group(group: SameBits) -> Verdict:
    figures = {
        "runs": group.runs,
        "num_digests": group.num_digests,
        "first_difference": group.first_difference,
    }
    who = f"{words.listed(group.runs)} have the same configuration and data"
    is_one = group.num_digests == 1
    compared = words.count(group.num_digests) + f" digest{'s' * (not is_one)} compared"
    if not group.num_digests:
        return Verdict(words.sentence(f"{who}; no digest was compared, since {group.reason}"))
    if group.first_difference is None:
        return Verdict(words.sentence(f"{who}: {compared}, {'all ' * (not is_one)}equal"), figures)
    step = f"step {words.count(group.first_difference)}"
    if group.reason:
        text = f"{who}: {compared}, equal before {step} only; {group.reason}"
        return Verdict(words.sentence(text), figures)
    text = (
        f"{who}, but not the same bits: {compared}, and the first that differ are at {step}; "
        "verify each of them to see which does not hold"
    )
    return Verdict(words.sentence(text), figures, is_alarm=True)


def _metric(comparison: Comparison) -> Iterator[Verdict]:
    name = comparison.metric.replace("_", " ")
    found = {run.label: getattr(run, comparison.metric) for run in comparison.runs}
    known = {label: value for label, value in found.items() if value is not None}
    if not known:
        yield Verdict(words.sentence(f"no run has a {name}"))
        return
    ends = min(known.values()), max(known.values())
    lowest, highest = (f"{words.significant(end, 4)} ({_having(known, end)})" for end in ends)
    if len(known) == 1 or ends[0] == ends[1]:
        text = f"the {name} at the end is {lowest}"
    elif comparison.metric == "test_accuracy":
        text = f"the highest {name} at the end is {highest}, the lowest {lowest}"
    else:
        text = f"the lowest {name} at the end is {lowest}, the highest {highest}"
    yield Verdict(words.sentence(text), {comparison.metric: found})


def _target(comparison: Comparison) -> Iterator[Verdict]:
    if not comparison.target:
        return
    runs, target = comparison.runs, f"the target {comparison.target}"
    met = {run.label: samples for run in runs if (samples := _until(run, "samples")) is not None}
    clauses = []
    if met:
        ends = max(met.values()), min(met.values())
        most, least = (f"{words.count(end)} samples ({_having(met, end)})" for end in ends)
        last = f", last after {most}" * (ends[1] < ends[0])
        clauses.append(f"{target} was met first after {least}{last}")
    unknown = [run.label for run in runs if run.to_target and run.to_target.steps is not None]
    if unknown := [label for label in unknown if label not in met]:
        clauses.append(f"{words.listed(unknown)} met {target}, no history says after how many")
    why = {it.label: found.reason for it in runs if (found := it.to_target) and found.steps is None}
    for reason in dict.fromkeys(why.values()):
        it = "it" if clauses else target
        clauses.append(f"{_having(why, reason)} did not meet {it} ({reason})")
    yield Verdict(words.sentence("; ".join(clauses)), {"samples_to_target": met})


def _until(run: ComparedRun, unit: str) -> float | None:
    """Samples or seconds to the target; None where it was not met."""
    found: float | None = getattr(run.to_target, unit, None)
    return found


def _speed(comparison: Comparison) -> Iterator[Verdict]:
    """Of the runs of each machine, where it has two or more."""
    for labels in comparison.machines:
        runs = [run for run in comparison.runs if run.label in labels]
        speeds = {run.label: run.samples_per_s for run in runs if run.samples_per_s is not None}
        times = {run.label: time for run in runs if (time := _until(run, "seconds")) is not None}
        if len(speeds) > 1:
            ends = max(speeds.values()), min(speeds.values())
            most, least = (f"{words.count(end)} ({_having(speeds, end)})" for end in ends)
            text = f"the most samples a second are {most}, the fewest {least}"
            yield Verdict(words.sentence(text), {"samples_per_s": speeds})
        if len(times) > 1:
            ends = min(times.values()), max(times.values())
            least, most = (f"{words.seconds(end)} ({_having(times, end)})" for end in ends)
            text = f"the least time to the target is {least}, the most {most}"
            yield Verdict(words.sentence(text), {"seconds_to_target": times})


def _machines(comparison: Comparison) -> Iterator[Verdict]:
    if len(comparison.machines) < 2:
        return
    groups = "; ".join(
        f"machine {number}: {words.listed(labels)}"
        for number, labels in enumerate(comparison.machines, 1)
    )
    text = (
        f"the records do not show one machine ({groups}), so that times of one are not compared "
        "with those of another"
    )
    yield Verdict(words.sentence(text), {"machines": comparison.machines})


def _environments(comparison: Comparison) -> Iterator[Verdict]:
    keys = [row.key for row in comparison.environments]
    if keys:
        text = f"what the runs were made with differs in {_named(keys)}"
        yield Verdict(words.sentence(text), {"environments": keys})


def _unfinished(comparison: Comparison) -> Iterator[Verdict]:
    for run in comparison.runs:
        if run.status != "done":
            yield Verdict(words.sentence(f"{run.label} {_how(run)}"), {"status": run.status})


def _how(run: ComparedRun) -> str:
    step = f"step {words.count(run.steps)}"
    if run.status == "diverged":
        return f"diverged at {step}"
    if run.status == "training":
        return f"is still training; its record stands at {step}"
    return f"is not finished; its record ends at {step}"


def _named(keys: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = [f"{len(keys) - _MOST_NAMED} more"] if len(keys) > _MOST_NAMED else []
    return words.listed([*keys[:_MOST_NAMED], *more])


def _having(known: Mapping[str, float | str], value: float | str) -> str:
    """The runs with this value."""
    labels: Sequence[str] = [label for label, found in known.items() if found == value]
    return words.listed(labels)
