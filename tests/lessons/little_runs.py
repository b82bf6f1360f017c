"""Runs on a few numbers: the trainer of the main job, in this process and with workers in threads.

Every run is made twice or more, by the trainer without workers and by the same server with workers
in threads, and must come to the same bits, steps seen from inside included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.models.weights import weights_vector
from distsgd.parallel.server.step_runner import StepView
from distsgd.run.callbacks import Callback
from distsgd.run.run import Result
from distsgd.run.run_files import write_beginning
from distsgd.run.source import manifest_of, prepared_arrays
from distsgd.run.spec import make_run_spec
from distsgd.run.trainer import Trainer
from distsgd.store.logs import read_history
from distsgd.store.run_directory import RunDirectory
from tests.integration.pools import SECRET, train_with_threads

CREWS = ((1, "shared_memory"), (3, "zmq"))


@dataclass(frozen=True)
class Lesson:
    """A network without hidden layer and bias on given rows, in float64, by the quadratic cost.

    `sections` are laid over that.
    """

    x: ArrayLike
    targets: ArrayLike
    weights: ArrayLike  # Inputs x outputs.
    sections: Mapping[str, Mapping[str, Any]]

    @property
    def config(self) -> TrainConfig:
        """The whole configuration."""
        units = np.shape(self.weights)[1]
        values: dict[str, dict[str, Any]] = {
            "data": {"path": "arrays", "label": "goal", "standardise": "none"},
            "model": {
                "layers": [{"type": "dense", "units": units, "bias": False}],
                "loss": "quadratic",
            },
            "batch": {"size": "full"},
            "train": {"dtype": "float64"},
            "parallel": {"workers": 0},
            "checkpoint": {"every_s": 0.0},
        }
        for name, section in self.sections.items():
            values[name] = values.get(name, {}) | dict(section)
        return TrainConfig.from_dict(values)

    @property
    def arrays(self) -> tuple[Array, Array]:
        """Features and targets."""
        return np.array(self.x, np.float64), np.array(self.targets, np.float64)

    @property
    def first_weights(self) -> dict[str, Array]:
        """By parameter name."""
        return {"layers.0.weight": np.array(self.weights, np.float64)}


@dataclass(frozen=True)
class Learnt:
    """What came of a lesson."""

    result: Result
    views: list[StepView]
    messages: list[str]

    @property
    def errors(self) -> list[float]:
        """The squared error of each step."""
        return list(self.result.history["squared_error"].to_pylist())

    @property
    def predictions(self) -> list[float]:
        """Of the first row's first output."""
        return [float(view.predictions[0, 0]) for view in self.views]

    @property
    def weight(self) -> Array:
        """At the end; inputs x outputs."""
        return self.result.weights["layers.0.weight"]


def learn(lesson: Lesson, run: Path) -> Learnt:
    """Train by the trainer, and hold the same run by workers against it."""
    views: list[StepView] = []
    messages: list[str] = []
    trainer = Trainer(
        lesson.config,
        data=lesson.arrays,
        run_dir=run,
        callbacks=[Callback(on_step=views.append, on_message=messages.append)],
    )
    result = trainer.fit(initial_weights=lesson.first_weights)
    for num_workers, transport in CREWS:
        again = run.with_name(f"{run.name}-{num_workers}-{transport}")
        _hold_against(lesson, again, result, views, num_workers=num_workers, transport=transport)
    return Learnt(result, views, messages)


def _hold_against(
    lesson: Lesson,
    run: Path,
    result: Result,
    views: list[StepView],
    *,
    num_workers: int,
    transport: str,
) -> None:
    config = lesson.config.with_overrides(
        [
            f"parallel.workers={num_workers}",
            f"parallel.transport={transport}",
            "parallel.assignment=all",
        ]
    )
    directory = RunDirectory.create(run)
    data = prepared_arrays(config, lesson.arrays, run / "data")
    run_spec = make_run_spec(config, data, manifest_of(data))
    first = weights_vector(run_spec.model, lesson.first_weights, config.train.dtype)
    write_beginning(directory, run_spec, first)
    task = run_spec.server_spec(run, first)
    seen: list[StepView] = []
    outcome = train_with_threads(
        replace(task, pool=replace(task.pool, secret=SECRET)), on_step=seen.append
    )
    assert outcome.weights_digest == result.metrics["weights_digest"]
    history = read_history(run / "history").drop_columns(["seconds"])
    wanted = result.history.drop_columns(["seconds"])
    # As text, in which every number is exact and not-a-number equals itself.
    assert str(history.to_pylist()) == str(wanted.to_pylist())
    assert [bits_of(view) for view in seen] == [bits_of(view) for view in views]


def bits_of(view: StepView) -> tuple[Any, ...]:
    """All that can be seen of a step, to be compared."""
    arrays = (*view.weights.values(), view.predictions, view.deltas, view.targets)
    return (view.step, float(view.loss).hex(), *(array.tobytes() for array in arrays))
