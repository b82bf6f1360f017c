"""What an experiment is to find out, and the cells it is made of. Plain data; no I/O here.

Learning does not depend on the workers, so it is measured once for a batch size, a rate and a seed;
time is measured once for a batch size and a number of workers. Their product is the whole grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.parallel.server.target import Target

PEERS = ("sklearn", "torch", "jax")
RATE_KEY = "optimizer.learning_rate"
NUM_RATES, NUM_REFINED = 6, 2  # Trials a batch size: on the grid, and around the best of them.
GRIDS_AN_EPOCH = 10
EVALUATIONS_A_PART = 4  # An epoch of a branch: its loss is smoothed over them.
RUNGS = (1 / 8, 1 / 4, 1 / 2, 1.0)  # Of the samples a run may use: then the hopeless half ends.
LEAST_PAIRS = 5
USUAL_PAIRS = 12  # So many find a difference of 5 % in nine of ten cases: see `ratio_interval`.
TIMED_RATE = 1e-4  # Of a run whose steps are timed: it must not diverge, wherever it goes.
_TUPLES = ("batches", "workers", "peers", "left_out")
_ENDLESS = 1 << 40
_LENGTH = (
    *("steps", "epochs", "target"),
    *("evaluate_every_epochs", "evaluate_every_steps", "evaluate_every_samples"),
)  # Keys of [train] that an experiment sets itself.


Stage = Literal["learning", "timing", "full", "branches", "peers"]


class Piece(NamedTuple):
    """A piece of work that is done: of which stage and batch size; its name is its directory's."""

    stage: Stage
    batch: int
    name: str


class LearningKey(NamedTuple):
    """One learning run: rows of a batch, learning rate, seed."""

    batch: int
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its directory, below the experiment's."""
        return f"learning/{self.path}"

    @property
    def path(self) -> str:
        """The same below that of what is made of it."""
        return f"batch-{self.batch}/rate-{self.rate!r}/seed-{self.seed}"


class TimingKey(NamedTuple):
    """One series of timed pairs: rows of a batch, workers, and the batch of the one-core baseline.

    The baseline's batch is the same for strong scaling, and smaller for weak.
    """

    batch: int
    workers: int
    base_batch: int

    @property
    def name(self) -> str:
        """Of its directory, below the experiment's."""
        base = "" if self.base_batch == self.batch else f"-base-{self.base_batch}"
        return f"timing/batch-{self.batch}-workers-{self.workers}{base}"

    @property
    def is_weak(self) -> bool:
        """Does its batch grow with the workers?"""
        return self.base_batch != self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePlan:
    """A scaling experiment.

    Attributes:
        config: Of each run but for batch size, rate, seed and workers; its length in samples is the
            budget of each learning run.
        batches: Rows of a batch, or "full".
        workers: Numbers of worker processes; 0: one core, in one process, which is always timed.
        target: What a run is to reach, as ``[train] target`` takes it.
        rates: Lowest and highest learning rate to choose from; None: that of `config`.
        seeds: Runs of the chosen rate; the trials that choose it have another seed.
        budget_s: Of the whole; what does not fit is left out, and said.
        is_weak: Is time also measured with a batch that grows with the workers?
        peers: What else is trained and timed.
        num_pairs: Timed pairs a cell.
        timed_s: Seconds of each timing of a pair, after a warm-up of half as long.
        command: That began it, for the report.
        left_out: What the budget has left out, a sentence each.
    """

    config: TrainConfig
    batches: tuple[int | Literal["full"], ...]
    workers: tuple[int, ...]
    target: str
    rates: tuple[float, float] | None = None
    seeds: int = 3
    budget_s: float | None = None
    is_weak: bool = False
    peers: tuple[str, ...] = ()
    num_pairs: int = USUAL_PAIRS
    timed_s: float = 0.6
    command: str = ""
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        if not self.batches:
            yield "--batch-sizes is empty; must be rows of a batch, as 1,8,64,full"
        if len(set(self.batches)) < len(self.batches):
            yield f"--batch-sizes is {_listed(self.batches)}; must name each size once"
        if len(set(self.workers)) < len(self.workers):
            yield f"--workers is {_listed(self.workers)}; must name each number once"
        if self.rates and not 0 < self.rates[0] < self.rates[1] < math.inf:
            low, high = self.rates
            yield f"--tune is {RATE_KEY}={low:g}:{high:g}; must be LOW:HIGH, 0 < LOW < HIGH"
        if self.seeds < 1:
            yield f"--seeds is {self.seeds}; must be 1 or more"
        yield from self._unknown()
        if self.num_pairs < LEAST_PAIRS:
            yield f"--pairs is {self.num_pairs}; must be {LEAST_PAIRS} or more"

    def _unknown(self) -> Iterator[str]:
        try:
            Target.parse(self.target)
        except ConfigError as error:
            yield from error.problems
        for name in self.peers:
            if name not in PEERS:
                yield f"--peers has {name}; must be some of {','.join(PEERS)}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "config": said(self.config),
            "batches": list(self.batches),
            "workers": list(self.workers),
            "target": self.target,
            "rates": self.rates and list(self.rates),
            "seeds": self.seeds,
            "budget_s": self.budget_s,
            "is_weak": self.is_weak,
            "peers": list(self.peers),
            "num_pairs": self.num_pairs,
            "timed_s": self.timed_s,
            "command": self.command,
            "left_out": list(self.left_out),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave. Raises ConfigError, KeyError, TypeError."""
        tuples = {name: tuple(values[name]) for name in _TUPLES}
        rates = values["rates"]
        config = TrainConfig.from_dict(values["config"])
        return cls(**values | tuples | {"rates": rates and tuple(rates), "config": config})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The plan on its data: what stands for "full", and how long runs are.

    Attributes:
        num_rows: Training rows.
        grid_samples: All learning runs are evaluated after each so many samples.
        most_samples: That one learning run may use.
    """

    plan: ScalePlan
    num_rows: int
    grid_samples: int
    most_samples: int

    @classmethod
    def of(cls, plan: ScalePlan, num_rows: int) -> Self:
        """Of data with `num_rows` training rows. Raises ConfigError for a batch beyond them."""
        too_large = [size for size in plan.batches if size != "full" and size > num_rows]
        if too_large:
            rule = f'must be at most the {num_rows:,} training rows, or "full"'
            raise ConfigError([f"--batch-sizes has {_listed(too_large)}; {rule}"])
        config, train = plan.config, plan.config.train
        batch = num_rows if config.batch.size == "full" else config.batch.size
        limits = [train.epochs * num_rows] if train.epochs else []
        limits += [train.steps * batch] if train.steps else []
        grid_samples = train.evaluate_every_samples or max(1, num_rows // GRIDS_AN_EPOCH)
        return cls(
            plan=plan,
            num_rows=num_rows,
            grid_samples=grid_samples,
            most_samples=max(num_rows, min(limits)),
        )

    @property
    def batches(self) -> tuple[int, ...]:
        """Rows of a batch, ascending, each once."""
        return tuple(sorted({self.num_rows if b == "full" else b for b in self.plan.batches}))

    @property
    def workers(self) -> tuple[int, ...]:
        """Numbers of workers, ascending, with the baseline."""
        return tuple(sorted({0, *self.plan.workers}))

    @property
    def trial_seed(self) -> int:
        """Of the runs that choose a rate; no other run has it."""
        return self.plan.config.train.seed

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs that count."""
        return tuple(self.trial_seed + 1 + i for i in range(self.plan.seeds))

    @property
    def timings(self) -> tuple[TimingKey, ...]:
        """What is timed; where no workers are asked for, one core against itself."""
        workers = [count for count in self.workers if count] or [0]
        found = [TimingKey(batch, count, batch) for batch in self.batches for count in workers]
        if self.plan.is_weak:
            found += [
                TimingKey(batch * count, count, batch)
                for batch in self.batches
                for count in workers
                if count > 1 and batch * count <= self.num_rows
            ]
        return tuple(found)

    def rungs(self, batch: int) -> tuple[int | None, ...]:
        """Steps after which the hopeless half of the trials ends; the last is the end of a run."""
        grids = [math.ceil(share * self.most_samples / self.grid_samples) for share in RUNGS[:-1]]
        return (*(self.step_at(grid * self.grid_samples, batch) for grid in grids), None)

    def learning_config(self, key: LearningKey) -> TrainConfig:
        """Of a learning run: without workers, to the target or to the end of its samples."""
        return self._config(key).with_overrides(
            [
                f"train.evaluate_every_samples={self.grid_samples}",
                "parallel.workers=0",
                "checkpoint.keep=1",
            ]
        )

    def full_config(self, key: LearningKey, *, workers: int, steps: int) -> TrainConfig:
        """Of the same run with workers, evaluated once: at the step where it met the target."""
        return self._config(key).with_overrides(
            [f"train.evaluate_every_steps={steps}", f"parallel.workers={workers}"]
        )

    def part_config(self, key: LearningKey, *, until_step: int) -> TrainConfig:
        """Of a part of a learning run; its target does not end it."""
        train = {
            "steps": until_step,
            "seed": key.seed,
            "evaluate_every_samples": max(1, self.num_rows // EVALUATIONS_A_PART),
        }
        changed = self._changed(key.batch, key.rate, train)
        return changed.with_overrides(["parallel.workers=0", "checkpoint.keep=1"])

    def timing_config(self, batch: int, workers: int) -> TrainConfig:
        """Of a run whose steps are timed: without an end, an evaluation or a checkpoint."""
        endless = {"steps": _ENDLESS, "evaluate_every_steps": _ENDLESS}
        config = self._changed(batch, TIMED_RATE, endless)
        return config.with_overrides([f"parallel.workers={workers}", "checkpoint.every_s=0"])

    def _config(self, key: LearningKey) -> TrainConfig:
        epochs = math.ceil(self.most_samples / self.num_rows)
        train = {"epochs": epochs, "seed": key.seed, "target": self.plan.target}
        return self._changed(key.batch, key.rate, train)

    def _changed(self, batch: int, rate: float, train: dict[str, Any]) -> TrainConfig:
        values = said(self.plan.config)
        kept = {name: it for name, it in values.get("train", {}).items() if name not in _LENGTH}
        values["train"] = kept | train
        values["batch"] = values.get("batch", {}) | {"size": batch}
        values["optimizer"] = values.get("optimizer", {}) | {"learning_rate": rate}
        return TrainConfig.from_dict(values)

    def samples_at(self, step: int, batch: int) -> int:
        """Samples used after `step` updates: the last mini-batch of an epoch may be shorter."""
        steps_per_epoch = -(-self.num_rows // batch)
        epochs, rest = divmod(step, steps_per_epoch)
        return epochs * self.num_rows + min(rest * batch, self.num_rows)

    def step_at(self, samples: int, batch: int) -> int:
        """The first step after which at least `samples` samples are used."""
        steps_per_epoch = -(-self.num_rows // batch)
        epochs, rest = divmod(samples, self.num_rows)
        return epochs * steps_per_epoch + -(-rest // batch)


def said(config: TrainConfig) -> dict[str, Any]:
    """Its values that are not the defaults."""
    return config.model_dump(mode="json", exclude_defaults=True)


def _listed(values: Any) -> str:
    return ",".join(map(str, values))
