"""What an experiment found, as the report is told it. Plain data, no I/O here.

All of it comes from the files of the experiment's directory (`collect`); the report computes no
figure of its own. What is missing has its `reason`, and is never left out.

Units: seconds end in ``_s``, rows are samples; a batch is given in rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from distsgd.statistics.intervals import Interval


def mean_rows(batch: float, num_rows: int) -> float:
    """Rows of a mini-batch of `batch` rows, on average: the last of an epoch may be shorter.

    >>> mean_rows(100, 240), mean_rows(120, 240), mean_rows(240, 240)
    (80.0, 120.0, 240.0)
    """
    return num_rows / math.ceil(num_rows / batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCell:
    """One learning run: a batch size, a rate, a seed; the same for any number of workers.

    Attributes:
        is_trial: Was it made to choose the rate? Trials have a seed that no other cell has.
        is_chosen: Has its batch size this rate in the end?
        samples_after, samples_until: The target was met by an evaluation after `samples_until`
            samples and by none after `samples_after`: what is known of samples to target. None
            where it was not reached.
        steps: Updates to the evaluation that met the target; None as well.
        samples_used: Of the whole run.
        reason: Why the target was not reached: "target not reached", "diverged", "out of budget",
            "given up" (halved out), "killed"; "" where it was.
        noise_scale: Median over the last third of the run's steps, in samples.
        digest: Of the weights at its end, hexadecimal.
        curve: (samples, metric of the target) of each evaluation.
        losses: (samples, training loss), some 200 points, each the mean of what lies between.
        seconds: Spent training.
    """

    batch: int
    rate: float
    seed: int
    is_trial: bool
    is_chosen: bool
    samples_after: int | None
    samples_until: int | None
    steps: int | None
    samples_used: int
    reason: str
    noise_scale: float | None
    digest: str
    configuration: str
    seconds: float
    curve: tuple[tuple[int, float], ...]
    losses: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedPlan:
    """Those pairs of a timed cell in which the same processes computed.

    Attributes:
        assignment: Who computed: "server", "worker 0", ...
        num_pairs: How many.
        step_s: The median over them.
    """

    assignment: tuple[str, ...]
    num_pairs: int
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCell:
    """Steps timed at a batch size and a number of workers, in pairs with the one-core baseline.

    Attributes:
        workers: Worker processes; 0: one core, in one process.
        is_weak: Was the batch made to grow with the workers? Then `batch` is already the product,
            and `base_batch` that of one core.
        step_s: Of this cell; None where there is none.
        speed_up: Samples a second, over the baseline's in the same pairs; both by `mean_rows`.
        phases_s: Seconds of a step by name: read, compute, exchange, sum and update fill it. Next
            to them wait: what the processes that computed waited for the slowest, on average. Of
            the commonest plan.
        efficiency: Speed-up over the number of processes that computed, pair by pair.
        num_pairs: How many.
        plans: Who computed, which each run finds for itself; the commonest first.
    """

    batch: int
    base_batch: int
    workers: int
    is_weak: bool
    step_s: Interval | None
    baseline_s: Interval | None
    speed_up: Interval | None
    efficiency: Interval | None
    phases_s: dict[str, float]
    num_pairs: int
    plans: tuple[TimedPlan, ...]
    reason: str

    @property
    def assignment(self) -> tuple[str, ...]:
        """Who computed in most of the pairs."""
        return self.plans[0].assignment if self.plans else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """Learning and time together: a cell of the grid of batch sizes and workers.

    Attributes:
        steps: To target: median over seeds and its interval, the evaluation grid's width in it.
        steps_range: Fewest and most over the seeds.
        time_s: To target: steps times seconds a step.
        full_run_s: The same, measured by a run in full; None where it was not made.
        plans: Of its timing.
        efficiency: Of its timing: speed-up over the processes that computed; of more than one
            worker not all need have.
        verdict: Is it faster to the target than one core at the same batch? "pass", "fail" or
            "inconclusive"; "" for the baseline itself, and where no target was reached or no
            step timed.
        reason: What is missing and why; "".
    """

    batch: int
    workers: int
    rate: float | None
    rate_at_edge: bool
    num_seeds: int
    num_reached: int
    steps: Interval | None
    steps_range: tuple[int, int] | None
    step_s: Interval | None
    time_s: Interval | None
    full_run_s: float | None
    plans: tuple[TimedPlan, ...]
    efficiency: Interval | None
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatch:
    """The critical batch size by one way.

    Attributes:
        way: "hyperbola", "noise scale" or "branching".
        batch: In samples; ends may be 0 or infinite where the batch sizes do not bound it. Of 95 %
            but for branching: there they are two of the batch sizes that were tried.
        how: One sentence: what was measured, and the source.
        of_batch: The noise scale: batch size of the runs that it is of; None otherwise.
        by_batch: The noise scale of each batch size.
    """

    way: str
    batch: Interval | None
    how: str
    reason: str
    of_batch: int | None = None
    by_batch: tuple[tuple[int, Interval], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCell:
    """What a user would take instead, on the same data and target, one process and all cores.

    Attributes:
        rate: Chosen for the runs of this project at this batch size, not for the peer.
        step_s, steps, time_s: Medians over the seeds; to the target, all of which met it.
        num_seeds, num_reached, steps_range: As in `GridCell`.
        steps_interval, step_s_interval, time_s_interval: Of the medians, over the seeds, the
            evaluation grid's width in that of the steps.
    """

    peer: str
    version: str
    batch: int
    rate: float | None
    step_s: float | None
    steps: int | None
    time_s: float | None
    reason: str
    num_seeds: int = 0
    num_reached: int = 0
    steps_range: tuple[int, int] | None = None
    steps_interval: Interval | None = None
    step_s_interval: Interval | None = None
    time_s_interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCell:
    """One run besides the learning runs: in full, a check of its bits, a branch, or of a peer.

    Attributes:
        kind: "full", "check", "branch" or "peer".
        name: Of its directory or file, below the experiment's.
        peer: Its library with the version; "" otherwise.
        from_step: At which a branch left its trunk; None otherwise.
        steps: Updates at its end; of a peer to the target.
        seconds: Measured: of a run in full and of a peer to the target.
        step_s: Of a peer.
        expected_s: Of a run in full: see `FullRun`.
        test_loss: Of a branch, smoothed.
        verdict: Does it hold, "pass" or "fail", of a run in full or a check? "reached" of a peer
            that did; else "".
        configuration, digest: As in `LearningCell`; "" of a peer.
    """

    kind: str
    name: str
    batch: int
    rate: float
    seed: int
    workers: int = 0
    peer: str = ""
    from_step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    step_s: float | None = None
    expected_s: Interval | None = None
    test_loss: float | None = None
    verdict: str = ""
    reason: str = ""
    configuration: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeModel:
    """Seconds a step as a function of batch and workers, fitted.

    Attributes:
        formula: Of rows, processes that computed, and workers among them.
        constants_us: By name, in microseconds.
        held_out_error: Median relative error on cells that were left out of the fit.
        worst_error: The worst of them.
        predicted: (batch, workers, seconds), for the plan that was the commonest there.
    """

    formula: str
    constants_us: dict[str, float]
    held_out_error: float
    worst_error: float
    predicted: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """How many workers it takes to beat a peer (McSherry 2015).

    Attributes:
        workers: The fewest of `tried` that did; None: none of them.
        tried: Numbers of workers with a time to target at this batch size, ascending.
    """

    peer: str
    batch: int
    workers: int | None
    tried: tuple[int, ...]
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of it.

    Attributes:
        title: Of the data and model, for people.
        num_cores: Of the machine that the timings were made on.
        command: That makes it again.
        target: As "test_accuracy>=0.95".
        fit: Of the hyperbola: (least steps, critical batch), for the picture; None without it.
        products: Sentences about the full runs: "batch 64, 2 workers: 3.1 s, expected 2.9 to 3.3".
        products_hold: Do all full runs lie within their interval? None where none was made.
        digests: Compared over numbers of workers: how many, and whether all were equal.
        left_out: What the budget left out, a sentence each.
        environment: Machine, versions, numerics, by name: where was timed.
        elsewhere: The same of each run that was made elsewhere, by its name.
        runs: In full, branches, of peers.
        data_digest: Of the prepared rows, hexadecimal.
        configuration: As TOML or JSON text.
        warnings: What a reader must know, such as a schedule that depends on the length.
    """

    title: str
    command: str
    made: str
    num_rows: int
    num_test_rows: int
    num_parameters: int
    num_cores: int
    target: str
    batches: tuple[int, ...]
    workers: tuple[int, ...]
    grid_samples: int
    most_samples: int
    learning: tuple[LearningCell, ...]
    timings: tuple[TimingCell, ...]
    cells: tuple[GridCell, ...]
    fit: tuple[float, float] | None
    critical: tuple[CriticalBatch, ...]
    step_time: StepTimeModel | None
    peers: tuple[PeerCell, ...]
    cost: tuple[CostLine, ...]
    products: tuple[str, ...]
    products_hold: bool | None
    num_digests: int
    digests_equal: bool
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    environment: dict[str, str]
    configuration: str
    elsewhere: dict[str, dict[str, str]] = field(default_factory=dict)
    runs: tuple[RunCell, ...] = ()
    data_digest: str = ""
