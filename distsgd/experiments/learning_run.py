"""One learning run: made by a process of its own, read back from its directory.

A run is ended by its target, or when it has used the samples of its rung; the next rung resumes it,
with the same bits as if it had never been ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from blake3 import blake3

from distsgd.base.work import Stop
from distsgd.config import TrainConfig
from distsgd.errors import DivergedError, TrainingInterrupted
from distsgd.experiments.course import Course
from distsgd.experiments.plan import LearningKey
from distsgd.parallel.server.target import Target
from distsgd.run.callbacks import Callback
from distsgd.run.trainer import Trainer
from distsgd.statistics.noise_summary import late_noise_scale
from distsgd.store.logs import EvaluationLog, EvaluationRow, read_history
from distsgd.store.run_directory import RunDirectory

Ending = Literal["reached", "diverged", "spent", "unfinished", "missing"]
MOST_POINTS = 200


def train(task: Mapping[str, Any], stop: Stop) -> None:
    """Train ``task["run"]`` to its first evaluation at or behind ``task["until_step"]``.

    In a process of its own: see `do_work`.
    """
    until_step = task["until_step"]

    def look(row: EvaluationRow) -> None:
        if until_step is not None and row.step >= until_step:
            trainer.request_stop()

    trainer = Trainer(
        TrainConfig.from_dict(task["config"]),
        run_dir=Path(task["run"]),
        cache_dir=task["cache_dir"],
        callbacks=[Callback(on_evaluate=look)],
    )
    stop.taken_by(trainer.request_stop)
    with suppress(TrainingInterrupted, DivergedError):  # Its directory says so.
        trainer.fit(resume="auto")


@dataclass(frozen=True, slots=True)
class Learned:
    """What the directory of a learning run says.

    Attributes:
        ending: "reached": it met its target; "spent": it used all its samples without.
        evaluations: In the order of their steps, none beyond the asked rung.
        last_step: Updates when it ended; 0 where it has not.
    """

    key: LearningKey
    ending: Ending
    evaluations: tuple[EvaluationRow, ...]
    seconds: float
    digest: str
    configuration: str = ""  # Digest of its recorded configuration.
    last_step: int = 0

    @property
    def steps(self) -> int | None:
        """Updates to the evaluation that met the target."""
        return self.evaluations[-1].step if self.ending == "reached" else None

    @classmethod
    def read(cls, directory: Path, key: LearningKey) -> Learned:
        """Of the experiment in `directory`. Raises CheckpointError, RunError where damaged."""
        place = directory / key.name
        if not RunDirectory.is_run(place):
            return cls(key, "missing", (), 0.0, "")
        run = RunDirectory.open(place)
        result = run.read_result()
        rows = EvaluationLog(run.evaluations_path).read()
        ending: Ending = "unfinished"
        if result.get("status") == "diverged":
            ending = "diverged"
        elif result.get("status") == "done":
            ending = "reached" if result["stopped_by"] == "target" else "spent"
        return cls(
            key,
            ending,
            rows,
            result.get("seconds", 0.0),
            result.get("weights_digest", ""),
            blake3(run.config_path.read_bytes()).hexdigest()[:16],
            result.get("steps", 0),
        )

    def at(self, steps: int) -> Learned:
        """The same as it was after `steps` updates, whatever has been made of it since."""
        rows = tuple(row for row in self.evaluations if row.step <= steps)
        has_later = len(rows) < len(self.evaluations) or self.last_step > steps
        ending: Ending = "unfinished" if has_later else self.ending
        return replace(self, ending=ending, evaluations=rows)

    def is_final(self) -> bool:
        """Will it not be trained any longer?"""
        return self.ending in ("reached", "diverged", "spent")

    def least_cost(self, target: Target) -> float:
        """The best of the target's metric so far, the lower the better; infinite without any."""
        values = [getattr(row, target.metric) for row in self.evaluations]
        sign = -1.0 if target.at_least else 1.0
        return min((sign * value for value in values if value is not None), default=math.inf)


def noise_scale_of(directory: Path, key: LearningKey, samples_used: int) -> float | None:
    """Of the last third of its samples, in samples; None where it was not measured.

    A trial that is given up ends some steps behind its rung, how many depends on the moment.
    """
    table = _history(directory, key)
    if table is None:
        return None
    columns = (table[name].to_numpy() for name in ("samples", "noise_scale"))
    samples, scales = (column.astype(np.float64) for column in columns)
    is_used = samples <= samples_used
    return late_noise_scale(samples[is_used], scales[is_used])


def losses_of(directory: Path, key: LearningKey) -> tuple[tuple[int, float], ...]:
    """(samples, training loss): at most `MOST_POINTS`, each the mean of the steps in between."""
    table = _history(directory, key)
    if table is None:
        return ()
    points = Course.of(table).losses(MOST_POINTS)
    return tuple((point.samples, point.train_loss) for point in points)


def _history(directory: Path, key: LearningKey) -> Any:
    place = directory / key.name
    if not RunDirectory.is_run(place):
        return None
    table = read_history(RunDirectory.open(place).history)
    return table if len(table) else None
