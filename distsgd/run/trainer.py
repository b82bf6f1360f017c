"""The trainer: what a user calls.

It prepares the data, fixes the run, has it made, and says how it ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from distsgd.base.arguments import call_argument, path_argument, refuse
from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.data.dataset import DirectoryLock
from distsgd.errors import (
    ConfigError,
    DivergedError,
    RunError,
    TrainingInterrupted,
)
from distsgd.lab.faults.injection import Chaos, counted
from distsgd.lab.faults.plan import FaultPlan
from distsgd.nn.weights import in_short, weights_vector
from distsgd.parallel.launch.launch import launch
from distsgd.parallel.server.spec import Outcome, Status
from distsgd.parallel.server.step_view import OnStep
from distsgd.run import run_files
from distsgd.run.label_check import check_labels
from distsgd.run.progress import Progress, ProgressWatch
from distsgd.run.resume import check_resume
from distsgd.run.run_files import Resume, read_weights
from distsgd.run.source import (
    manifest_of,
    prepared_arrays,
    prepared_data,
)
from distsgd.run.spec import RunSpec, make_rule, make_run_spec
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.history import read_history
from distsgd.store.run_directory import RunDirectory

FREE_TIMEOUT_S = 30.0


def _silent(_: Any) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do."""

    rows: int
    test_rows: int
    features: int
    outputs: int
    parameters: int
    batch_size: int
    steps_per_epoch: int
    steps: int
    shuffle: str
    hot_bytes: int
    blocks_per_step: int
    num_workers: int
    memory_per_process_bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """A finished run.

    Weights by name, history (a pyarrow Table), the metrics of ``--json``, and where it lies.
    """

    weights: dict[str, Array]
    history: Any
    metrics: dict[str, Any]
    path: Path

    def __repr__(self) -> str:
        ended = ", ".join(f"{key}={_short(self.metrics.get(key))}" for key in _ECHOED)
        return (
            f"Result({ended}, weights=<{in_short(self.weights)}>, history=<{len(self.history):,} "
            f"rows of {self.history.num_columns} columns>, path={str(self.path)!r})"
        )


_ECHOED = ("status", "steps", "epochs", "train_loss", "test_loss", "test_accuracy", "seconds")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


class Trainer:
    """Makes one run.

    Args:
        config: The whole configuration.
        data: Instead of the files that `config` names, which need not name any then: ``(x, y)``,
            features ``[N, I]`` and labels ``[N]`` or ``[N, K]`` as arrays (numpy, or what numpy can
            take); or a table (pyarrow, pandas, anything with Arrow's interface), of which
            ``[data] label`` and ``features`` name the columns.
        initial_weights: By parameter name, instead of random ones.
        run_dir: Where the run is recorded; a new directory under ``runs/`` unless given.
        resume: "auto" goes on with a run that is there, or returns its result when it is finished.
        accept_numerics: Whether a run goes on where this process computes other bits than the one
            that trained it before; that is said, and stands in its run_files.
        cache_dir: Where prepared data are kept; ``~/.cache/distsgd`` unless given.
        on_progress: Called about ten times a second.
        on_message: Called with what a person should know.
        on_step: Called with a `StepView` for every step, in order, before its update. Without
            workers it is called in the thread that trains, and the run waits for it; on Ray in the
            thread that called `fit`, a little behind the run. An error it raises ends the run, with
            a checkpoint, and comes out of `fit`. A step that is made again after going back
            (`on_divergence`) is seen again.
    """

    def __init__(  # noqa: PLR0913 -- all but one are keywords that may be left out.
        self,
        config: TrainConfig,
        *,
        data: object = None,
        initial_weights: Mapping[str, Array] | None = None,
        run_dir: Path | str | None = None,
        resume: Resume = "never",
        accept_numerics: bool = False,
        cache_dir: Path | str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_message: Callable[[str], None] | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        if not isinstance(config, TrainConfig):
            raise ConfigError(
                [f"config is {config!r}; must be a TrainConfig (use TrainConfig.from_toml(path))"]
            )
        if data is None and (missing := config.missing_sources()):
            raise ConfigError(missing)
        make_rule(config)  # So that what is wrong with it is told before rows are read.
        self._config = config
        self._data = data
        self._initial_weights = initial_weights
        self._run_dir = None if run_dir is None else path_argument("run_dir", run_dir).absolute()
        if not isinstance(resume, str) or resume not in get_args(Resume):
            refuse("resume", resume, '"never" or "auto"')
        if not isinstance(initial_weights, Mapping | None):
            refuse("initial_weights", initial_weights, "arrays by parameter name, or None")
        self._resume: Resume = resume
        if not isinstance(accept_numerics, bool):
            refuse("accept_numerics", accept_numerics, "True or False")
        self._accept_numerics = accept_numerics
        self._cache_dir = None if cache_dir is None else path_argument("cache_dir", cache_dir)
        self._held: list[DirectoryLock] = []
        self._on_progress = call_argument("on_progress", on_progress, _silent)
        self._say = call_argument("on_message", on_message, _silent)
        self._on_step = None if on_step is None else call_argument("on_step", on_step, on_step)
        self._stop = threading.Event()
        self._has_begun = False
        self.path: Path | None = None  # The run directory, once it is there.

    def request_stop(self) -> bool:
        """End the run after its present step, with a checkpoint; callable from a signal handler.

        Returns:
            Whether training has begun; before that there is no step to wait for.
        """
        self._stop.set()
        return self._has_begun

    def plan(self) -> DryRun:
        """Check configuration and data and say what a run would do.

        Prepares the data, loads no Ray.

        Raises:
            ConfigError: The configuration cannot be run.
            DataError: The data cannot be used.
        """
        run_spec = self._blueprint(self._prepared_files())
        sampler = run_spec.sampler
        return DryRun(
            rows=run_spec.manifest.train_rows,
            test_rows=run_spec.manifest.test_rows,
            features=run_spec.manifest.num_features,
            outputs=run_spec.model.num_outputs,
            parameters=run_spec.model.num_parameters,
            batch_size=sampler.batch_rows,
            steps_per_epoch=sampler.steps_per_epoch,
            steps=run_spec.total_steps,
            shuffle=str(sampler.describe()["shuffle"]),
            hot_bytes=run_spec.hot_bytes(),
            blocks_per_step=len(sampler.partition(0).blocks),
            num_workers=run_spec.num_workers,
            memory_per_process_bytes=run_spec.memory_per_process_bytes(),
            warnings=run_spec.warnings(),
        )

    def fit(self) -> Result:
        """Train to the end; blocks.

        Raises:
            ConfigError, ModelError, RunError: Nothing was started.
            DataError: The data cannot be used; nothing was started.
            ClusterError: Ray or a worker is missing, or computes other bits.
            DivergedError: The loss is no longer finite; the last good checkpoint is kept.
            TrainingInterrupted: It was asked to stop; the run can be resumed.
        """
        try:
            return self._fit()
        finally:
            self._held.clear()

    def _fit(self) -> Result:
        stem = "arrays" if self._data is not None else Path(self._config.data.paths[0]).stem
        path, is_there = run_files.find_run(self._config, stem, self._run_dir, self._resume)
        while True:
            if is_there and (finished := self._finished_by_others(RunDirectory.open(path))):
                return finished
            try:
                run_spec, run = self._open_run(path.absolute(), is_there=is_there)
                break
            except RunError:
                if is_there or self._resume == "never" or not RunDirectory.is_run(path):
                    raise
            # Another process began this run while its data were prepared here.
            path, is_there = run_files.find_run(self._config, stem, path, self._resume)
        for warning in run_spec.warnings():
            self._say(f"warning: {warning}")
        self.path = run.path
        return self._ended(run, self._train(run_spec, run))

    def _finished_by_others(self, run: RunDirectory) -> Result | None:
        """The result of a run that has nothing left to do, or has not once it is free."""
        self._wait_until_free(run)
        metrics = run.read_json(run.result_path) if run.result_path.is_file() else {}
        if metrics.get("status") != "done":
            return None
        self._say(f"{run.path} is finished; nothing to do")
        return _result(run, metrics)

    def _wait_until_free(self, run: RunDirectory) -> None:
        """Leave a run alone that another process trains; one that was killed lets go soon."""
        holder = run.holder()
        if holder is not None:
            wait = f"waiting up to {FREE_TIMEOUT_S:.0f} s for it to end"
            self._say(f"{run.path}: process {holder} has this run; {wait}")
            with run.lock(FREE_TIMEOUT_S):
                pass

    def _prepared_files(self) -> Path:
        if self._data is not None:
            raise ConfigError(["a plan is made for files; arrays are checked by fit()"])
        return prepared_data(
            self._config, cache_dir=self._cache_dir, on_message=self._say, held=self._held
        )

    def _blueprint(self, data: Path) -> RunSpec:
        run_spec = make_run_spec(self._config, data, manifest_of(data))
        check_labels(run_spec.model.loss, data)
        return run_spec

    def _open_run(self, path: Path, *, is_there: bool) -> tuple[RunSpec, RunDirectory]:
        """Fix what the run is; on disk too, unless it is there already."""
        if self._data is None:
            run_spec = self._blueprint(self._prepared_files())
            return self._open_with(run_spec, path, is_there=is_there)
        with run_files.beside(path) as staging:
            rows = prepared_arrays(self._config, self._data, staging / "data")
            run_spec = replace(self._blueprint(rows), data=path / "data")
            return self._open_with(run_spec, path, is_there=is_there, rows=rows)

    def _open_with(
        self, run_spec: RunSpec, path: Path, *, is_there: bool, rows: Path | None = None
    ) -> tuple[RunSpec, RunDirectory]:
        if not is_there:
            return run_spec, run_files.begin(path, run_spec, self._first_weights(run_spec), rows)
        run = RunDirectory.open(path)
        accepts = self._accept_numerics
        check_resume(run, run_spec, accept_numerics=accepts, say=self._say)
        return run_spec, run

    def _first_weights(self, run_spec: RunSpec) -> Array | None:
        """Start weights that were given, as one vector; None for random ones."""
        given = self._initial_weights
        if given is None and self._config.model.initial_weights:
            given = read_weights(Path(self._config.model.initial_weights))
        if given is None:
            return None
        return weights_vector(run_spec.model, given, np.dtype(self._config.train.dtype))

    def _train(self, run_spec: RunSpec, run: RunDirectory) -> Outcome:
        spec = run_spec.server_spec(run.path, run_files.read_initial_weights(run, run_spec))
        worker, address = self._config.parallel.worker, self._config.parallel.address
        spec = replace(spec, chaos=self._chaos(run))
        seen = ProgressWatch(run_spec, self._on_progress, self._say, self._stop)

        def watch(status: Status) -> bool:
            self._has_begun = True  # There is a server now that ends by itself when asked to.
            return seen(status)

        try:
            if run_spec.num_workers:
                self._say(f"starting {run_spec.num_workers} workers on Ray ({address})")
            return launch(spec, worker, watch, address=address, on_step=self._on_step)
        except BaseException:  # Ctrl-C too: the same command must not meet a run that never began.
            run_files.withdraw(run)
            raise

    def _chaos(self, run: RunDirectory) -> Chaos | None:
        """Faults on purpose; a run that is made again to be verified has none."""
        faults = self._config.chaos.faults
        return Chaos(FaultPlan.parse(faults), run.path) if faults else None

    def _ended(self, run: RunDirectory, outcome: Outcome) -> Result:
        """The result that the server wrote; an error where the run did not come to its end."""
        metrics = run.read_json(run.result_path)
        if "faults" in metrics:
            self._say(f"faults on purpose: {counted(metrics['faults'])}")
        if outcome.status == "diverged":
            raise DivergedError(outcome.step, outcome.advice)
        if outcome.status == "interrupted":
            raise TrainingInterrupted(run.path, outcome.step)
        if outcome.advice:
            self._say(outcome.advice)
        return _result(run, metrics)


def _result(run: RunDirectory, metrics: dict[str, Any]) -> Result:
    found = CheckpointStore(run.checkpoints).latest(_silent)
    if found is None:
        raise RunError(run.path, f"is finished, but {run_files.CHECKPOINTS_GONE}")
    return Result(dict(found.arrays["weights"]), read_history(run.history), metrics, run.path)
