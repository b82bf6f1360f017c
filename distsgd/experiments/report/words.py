"""How figures are said: numbers with their units, intervals, names of batch sizes and peers. Pure.

Everything that a reader sees of a number goes through here, so that a figure reads the same in a
sentence, in the table and on a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from distsgd.experiments.findings import CriticalBatch, Findings, TimedPlan
from distsgd.statistics.intervals import Interval

PHASES = {
    "read": "reading",
    "compute": "computing",
    "exchange": "exchanging",
    "sum": "summing",
    "update": "updating",
}
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_PEERS = {"sklearn": "scikit-learn", "torch": "PyTorch", "jax": "JAX"}


def significant(value: float, digits: int = 3) -> str:
    """A number with that many significant digits, thousands apart, no exponent.

    >>> significant(1234.5), significant(0.04567), significant(12.0), significant(0.5)
    ('1,234', '0.0457', '12.0', '0.500')
    """
    if value == 0.0 or not math.isfinite(value):
        return "0" if value == 0.0 else "unbounded"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def count(value: float) -> str:
    """A whole number.

    >>> count(12345.4)
    '12,345'
    """
    return f"{value:,.0f}" if math.isfinite(value) else "unbounded"


def times(value: float) -> str:
    """A factor.

    >>> times(22.45), times(3.41)
    ('22', '3.4')
    """
    return count(value) if value >= 10.0 else significant(value, 2)


def rate(value: float) -> str:
    """A learning rate, short.

    >>> rate(0.0316227), rate(1.0), rate(2e-5)
    ('0.0316', '1', '2e-05')
    """
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share in per cent.

    >>> percent(0.714), percent(0.004)
    ('71 %', '0.4 %')
    """
    return f"{100 * share:.1f} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def seconds(value: float) -> str:
    """A time with the unit that suits it.

    >>> seconds(0.000151), seconds(2.5), seconds(200.0), seconds(7300.0)
    ('151 µs', '2.50 s', '3 min 20 s', '2 h 2 min')
    """
    if 120.0 <= value < math.inf:
        if value >= 3600.0:
            return "{} h {} min".format(*divmod(round(value / 60), 60))
        return "{} min {} s".format(*divmod(round(value), 60))
    size, unit = _unit(value)
    return f"{significant(value / size)} {unit}"


def seconds_within(interval: Interval) -> str:
    """A time and its interval, both in one unit.

    >>> seconds_within(Interval(0.00014, 0.000151, 0.00016))
    '151 µs (140 to 160)'
    """
    if interval.high >= 120.0:
        return f"{seconds(interval.mid)} ({seconds(interval.low)} to {seconds(interval.high)})"
    size, unit = _unit(interval.mid)
    low, high = (significant(end / size) for end in (interval.low, interval.high))
    return f"{significant(interval.mid / size)} {unit} ({low} to {high})"


def ratio_within(interval: Interval) -> str:
    """A ratio's interval.

    >>> ratio_within(Interval(0.97, 1.0, 1.06))
    '0.97 to 1.06'
    """
    return f"{interval.low:.2f} to {interval.high:.2f}"


def samples_within(interval: Interval) -> str:
    """A number of samples and its interval, which need not be bounded.

    >>> samples_within(Interval(150.0, 210.0, 290.0)), samples_within(Interval(0.0, 9.0, math.inf))
    ('210 (150 to 290)', 'not bounded by the batch sizes')
    >>> samples_within(Interval(64.0, 90.0, math.inf)), samples_within(Interval(0.0, 9.0, 40.0))
    ('above 64', 'below 40')
    """
    has_low, has_high = interval.low > 0.0, math.isfinite(interval.high)
    if has_low and has_high:
        return f"{count(interval.mid)} ({count(interval.low)} to {count(interval.high)})"
    if has_low:
        return f"above {count(interval.low)}"
    return f"below {count(interval.high)}" if has_high else "not bounded by the batch sizes"


def critical(way: CriticalBatch) -> str:
    """A critical batch size that was found; the ends of branching are no interval.

    >>> critical(CriticalBatch(way="branching", batch=Interval(8, 23, 64), how="", reason=""))
    'between 8 and 64'
    >>> critical(CriticalBatch(way="branching", batch=Interval(8, 8, math.inf), how="", reason=""))
    'at least 8'
    """
    assert way.batch is not None
    if way.way != "branching":
        return samples_within(way.batch)
    if way.batch.is_bounded:
        return f"between {count(way.batch.low)} and {count(way.batch.high)}"
    return f"at least {count(way.batch.low)}"


def batch(findings: Findings, size: int) -> str:
    """A batch size in a sentence."""
    if size == findings.num_rows:
        return "the whole batch"
    return f"batch {count(size)}"


def batch_key(findings: Findings, size: int) -> str:
    """A batch size in a legend."""
    if size == findings.num_rows:
        return f"whole batch ({count(size)})"
    return f"batch {count(size)}"


def batch_short(findings: Findings, size: int) -> str:
    """A batch size in the table."""
    return f"whole ({count(size)})" if size == findings.num_rows else count(size)


def batches(findings: Findings, sizes: Sequence[int]) -> str:
    """Some of the experiment's batch sizes, as short as a person would say them."""
    every = sorted(findings.batches)
    some = sorted(sizes)
    if some == every and len(some) > 1:
        return "every batch size"
    if len(some) > 1 and some == every[-len(some) :]:
        return f"{batch(findings, some[0])} and above"
    if len(some) > 1 and some == every[: len(some)]:
        return f"{batch(findings, some[-1])} and below"
    return listed([batch(findings, size) for size in some])


def batch_sizes(number: int) -> str:
    """How many batch sizes were timed.

    >>> batch_sizes(1), batch_sizes(5)
    ('the 1 batch size that was timed', 'the 5 batch sizes that were timed')
    """
    return f"the {number} batch size{' that was' if number == 1 else 's that were'} timed"


def workers(number: int) -> str:
    """A number of workers; 0 is one core, in one process.

    >>> workers(0), workers(1), workers(2)
    ('one core', '1 worker', '2 workers')
    """
    if number == 0:
        return "one core"
    return f"{number} worker" if number == 1 else f"{number} workers"


def not_beaten(numbers: Sequence[int]) -> str:
    """By none of the numbers of workers that were tried.

    >>> not_beaten([0, 1, 2]), not_beaten([])
    ('not beaten by one core, 1 worker or 2 workers', 'not compared: nothing was timed')
    """
    if not numbers:
        return "not compared: nothing was timed"
    return f"not beaten by {listed([workers(number) for number in numbers], 'or')}"


def processes(assignment: Sequence[str]) -> str:
    """Which processes computed; of more than two workers, how many.

    >>> processes(["server", "worker 0"]), processes(["worker 0", "worker 1", "worker 2"])
    ('server and worker 0', '3 workers')
    """
    some = [name for name in assignment if name != "server"]
    told = some if len(some) < 3 else [workers(len(some))]
    return listed(["server", *told] if "server" in assignment else told)


def plan(plans: Sequence[TimedPlan]) -> str:
    """Which processes computed; where that was not the same in all pairs, in how many.

    >>> plan([TimedPlan(assignment=("server", "worker 0"), num_pairs=5, step_s=0.1)])
    'server and worker 0'
    """
    if len(plans) < 2:
        return "".join(processes(one.assignment) for one in plans)
    total = sum(one.num_pairs for one in plans)
    told = [f"{processes(one.assignment)} in {one.num_pairs} of {total}" for one in plans]
    return f"mixed: {', '.join(told)}"


def cores(number: int) -> str:
    """A number of cores.

    >>> cores(1), cores(2)
    ('1 core', '2 cores')
    """
    return f"{number} core" if number == 1 else f"{number} cores"


def peer(name: str, version: str = "") -> str:
    """A peer by its own name.

    >>> peer("sklearn", "1.9.0"), peer("torch")
    ('scikit-learn 1.9.0', 'PyTorch')
    """
    return f"{_PEERS.get(name, name)} {version}".strip()


def listed(texts: Sequence[str], last: str = "and") -> str:
    """Texts in a row.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} {last} {texts[-1]}"


def sentence(text: str) -> str:
    """With a capital at the beginning and a full stop at the end.

    >>> sentence("batch 8 is slow"), sentence("Done?")
    ('Batch 8 is slow.', 'Done?')
    """
    text = text.strip()
    end = "" if text.endswith((".", "!", "?")) else "."
    return f"{text[:1].upper()}{text[1:]}{end}" if text else ""


def _unit(value: float) -> tuple[float, str]:
    return next((unit for unit in _UNITS if value >= unit[0]), _UNITS[-1])
