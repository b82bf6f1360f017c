"""The trainer: what a user calls.

It prepares the data, fixes the run, has it made, and says how it ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.locations import Location, place_of
from distsgd.base.settings import refuse
from distsgd.config import TrainConfig
from distsgd.data.cache_directory import DirectoryLock, cache_argument
from distsgd.data.node_cache import DataPlace
from distsgd.errors import (
    ConfigError,
    DivergedError,
    RunError,
    TrainingInterrupted,
)
from distsgd.models.weights import weights_vector
from distsgd.nn.network import Network
from distsgd.optim.rules import UpdateRule
from distsgd.optim.search import SearchRule
from distsgd.parallel import numerics
from distsgd.parallel.runner import MakeWorker
from distsgd.parallel.server.spec import Outcome, ServerSpec, Status
from distsgd.run import run_files
from distsgd.run.admission import admit
from distsgd.run.callbacks import Callback, Callbacks
from distsgd.run.dry_run import DryRun
from distsgd.run.execution import execute
from distsgd.run.handed_in import with_handed_in
from distsgd.run.live_files import seen_by_others
from distsgd.run.model import find_factory
from distsgd.run.own_code import check_own_code
from distsgd.run.progress import ProgressWatch
from distsgd.run.resume import check_resume, wait_until_free
from distsgd.run.rule_and_sampler import find_sampler_and_worker, make_rule
from distsgd.run.run import Run
from distsgd.run.run_files import Resume, read_weights
from distsgd.run.run_place import absolute, run_place
from distsgd.run.shapes import check_features
from distsgd.run.source import cache_for, check_labels, manifest_of, prepared_arrays, prepared_data
from distsgd.run.spec import RunSpec, make_run_spec
from distsgd.store.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class _Start:
    """What one call of `fit` asks for."""

    resume: Resume
    accept_numerics: bool
    initial_weights: Mapping[str, Array] | None
    take_over: bool

    def __post_init__(self) -> None:
        if not isinstance(self.resume, str) or self.resume not in get_args(Resume):
            refuse("resume", self.resume, '"never" or "auto"')
        if not isinstance(self.accept_numerics, bool):
            refuse("accept_numerics", self.accept_numerics, "True or False")
        if not isinstance(self.initial_weights, Mapping | None):
            refuse("initial_weights", self.initial_weights, "arrays by parameter name, or None")
        if not isinstance(self.take_over, bool):
            refuse("take_over", self.take_over, "True or False")


class Trainer:
    """Makes one run.

    Args:
        config: The whole configuration; also as plain values (`TrainConfig.from_dict`).
        data: Instead of the files that `config` names, which need not name any then: ``(x, y)``,
            features ``[N, I]`` (or of the axes of ``[data] input_shape``) and labels ``[N]`` or
            ``[N, K]`` as arrays (numpy, or what numpy can take; K columns of numbers, or with
            ``[data] target_shape`` one list, as labels of more axes are); or a table (pyarrow,
            pandas, anything with Arrow's interface) or a source of your own (`TableSource`), of
            which ``[data] label`` and ``features`` name the columns.
        model: Instead of ``[model]``, which `config` need not have then where it is plain values: a
            `Network` of ``input_shape`` ``(I,)``, the features of a row, or of other axes of as
            many; or a factory (see `distsgd.models.torch_model`, `jax_model`), with ``[model]
            options`` and ``loss``.
        worker: The class that computes blocks (see `BlockWorker`), or its ``module:class``.
        rule: An `UpdateRule`, a frozen dataclass of its settings; or its class or ``module:class``.
            The learning rate is that of ``[optimizer]``.
        callbacks: Called while the run is trained: see `Callback`.
        run_dir: Where the run is recorded, also ``s3://BUCKET/NAME``; in ``runs/`` unless given.
        cache_dir: Where prepared and fetched data are kept, a directory of each node;
            ``~/.cache/distsgd`` unless given. An address (``s3://...``) keeps prepared data for all
            nodes.

    Attributes:
        path: The run directory, or its address; None before there is one.

    Raises:
        ConfigError: An argument is nothing of its kind; rows or labels are not named; or what is
            handed in has no name by which workers find it.
        NumericsError: The run is to be portable, and this process is not; says how it would be.

    What is handed in is written down by its name, ``module:qualname``, with its settings and a
    digest of its source, and found by that in workers, on resume and by `Run.verify`. What has no
    such name (a notebook's class, one made in a function) trains with ``workers = 0`` only, must
    be handed in again to resume, and cannot be verified.
    """

    def __init__(
        self,
        config: TrainConfig | Mapping[str, Any],
        *,
        data: object = None,
        model: Network | Callable[..., Any] | None = None,
        worker: MakeWorker | str | None = None,
        rule: UpdateRule | SearchRule | type | str | None = None,
        callbacks: Sequence[Callback] = (),
        run_dir: Path | Location | str | None = None,
        cache_dir: Path | str | Location | None = None,
    ) -> None:
        config, own = with_handed_in(config, model=model, worker=worker, rule=rule)
        if data is None and (missing := config.missing_sources()):
            raise ConfigError(missing)
        # What is wrong with these is told before rows are read.
        if own.rule is None:
            make_rule(config)
        if own.factory is None:
            find_factory(config)
        numerics.require(config.train.numerics, has_own_model=config.model.has_factory)
        self._config = config
        self._data = data
        self._callbacks = Callbacks(callbacks)
        self._own = replace(own, callbacks=tuple(map(type, callbacks)))
        self._say = self._callbacks.message
        self._run_dir = run_place(run_dir, config, data)
        self._cache_dir = cache_argument(cache_dir)
        self._held: list[DirectoryLock] = []
        self._stop = threading.Event()
        self._has_begun = False
        self.path: Path | Location | None = None

    def request_stop(self) -> bool:
        """End the run after its present step, with a checkpoint; callable from a signal handler.

        Returns:
            Whether training has begun; before that there is no step to wait for.
        """
        self._stop.set()
        return self._has_begun

    def plan(self) -> DryRun:
        """Check configuration and data and say what a run would do.

        Finds what it names, prepares the data, loads no Ray.

        Raises:
            ConfigError: The configuration cannot be run.
            DataError: The data cannot be used.
        """
        if self._data is not None:
            handed_in = "a dry run is made for files; rows that are handed in are checked by fit()"
            raise ConfigError([handed_in])
        find_sampler_and_worker(self._config)
        return DryRun.of(self._spec_of(self._prepared_files()))

    def fit(
        self,
        *,
        resume: Resume = "never",
        accept_numerics: bool = False,
        initial_weights: Mapping[str, Array] | None = None,
        take_over: bool = False,
    ) -> Run:
        """Train to the end; blocks.

        Args:
            resume: "auto" resumes a run that exists, or returns it when it is finished; it may be
                called any number of times.
            accept_numerics: Whether a run is resumed where this process computes other bits than
                the one that trained it before; that is said, and stands in its record.
            initial_weights: By parameter name, instead of random ones; of the parameters' shapes.
            take_over: Whether another process that trains this run on object storage is
                superseded; it ends without writing.

        Returns:
            The run, as `Run.open` reads it back.

        Raises:
            ConfigError, ModelError, RunError: Nothing was started.
            DataError: The data cannot be used; nothing was started.
            ClusterError: Ray or a worker is missing, or computes other bits.
            StorageError: Object storage does not give the run; or does not take its end
                (PublishError): an outage at a checkpoint ends nothing.
            DivergedError: The loss is no longer finite; the last good checkpoint is kept.
            TrainingInterrupted: It was asked to stop; the run can be resumed.
            Exception: What a callback raised; a checkpoint was written before, if a step was made.
        """
        start = _Start(resume, accept_numerics, initial_weights, take_over)
        try:
            return self._fit(start)
        finally:
            self._held.clear()

    def _fit(self, start: _Start) -> Run:
        stem = "arrays" if self._data is not None else Path(self._config.data.paths[0]).stem
        path, exists = run_files.find_run(self._config, stem, self._run_dir, start.resume)
        while True:
            if exists and (finished := self._finished_by_others(path)):
                return finished
            try:
                run_spec, run = self._open_run(absolute(path), start, exists=exists)
                break
            except RunError:
                if exists or start.resume == "never" or not RunDirectory.is_run(path):
                    raise
            # Another process began this run while its data were prepared here.
            path, exists = run_files.find_run(self._config, stem, path, start.resume)
        for warning in run_spec.warnings():
            self._say(f"warning: {warning}")
        self.path = run.place
        outcome = self._train(run_spec, run, take_over=start.take_over)
        run.fetch()
        result = self._ended(Run.of(run_spec, run), outcome)
        self._callbacks.train_end(result)
        return result

    def _finished_by_others(self, path: Path | Location) -> Run | None:
        """A run that has nothing left to do, or has not once it is free."""
        run = RunDirectory.open(path)
        wait_until_free(run, self._say)
        metrics = run.read_result()
        if metrics.get("status") != "done":
            return None
        self._say(f"{run.place} is finished; nothing to do")
        return _with_weights(Run.open(run.place))

    def _prepared_files(self) -> DataPlace:
        return prepared_data(
            self._config, cache_dir=self._cache_dir, on_message=self._say, held=self._held
        )

    def _spec_of(self, data: DataPlace) -> RunSpec:
        manifest = manifest_of(data)
        check_features(self._own.input_shape, manifest.num_features)
        run_spec = make_run_spec(self._config, data, manifest, self._own)
        check_labels(run_spec.model, data)
        admit(run_spec, cache_for(self._config, self._cache_dir, self._say).path, self._say)
        return run_spec

    def _open_run(
        self, path: Path | Location, start: _Start, *, exists: bool
    ) -> tuple[RunSpec, RunDirectory]:
        """Fix what the run is; on disk too, unless it exists already."""
        if self._data is None:
            run_spec = self._spec_of(self._prepared_files())
            return run_spec, self._open_with(run_spec, path, start, exists=exists)
        assert isinstance(path, Path), "rows in memory are kept in a run directory"
        with run_files.staging_beside(path) as staging:
            rows = prepared_arrays(self._config, self._data, staging / "data")
            run_spec = replace(self._spec_of(rows), data=path / "data")
            return run_spec, self._open_with(run_spec, path, start, exists=exists, rows=rows)

    def _open_with(
        self,
        run_spec: RunSpec,
        path: Path | Location,
        start: _Start,
        *,
        exists: bool,
        rows: Path | None = None,
    ) -> RunDirectory:
        if not exists:
            weights_P = self._first_weights(run_spec, start.initial_weights)
            return run_files.begin(path, run_spec, weights_P, rows)
        run = RunDirectory.open(path)
        for doubt in check_own_code(run, self._own):
            self._say(f"WARNING: {run.place}: {doubt}")
        check_resume(run, run_spec, accept_numerics=start.accept_numerics, say=self._say)
        return run

    def _first_weights(self, run_spec: RunSpec, given: Mapping[str, Array] | None) -> Array | None:
        """Start weights that were given, as one vector ``[P]``; None for random ones."""
        if given is None and self._config.model.initial_weights:
            given = read_weights(place_of(self._config.model.initial_weights))
        if given is None:
            return None
        return weights_vector(run_spec.model, given, np.dtype(self._config.train.dtype))

    def _train(self, run_spec: RunSpec, run: RunDirectory, *, take_over: bool) -> Outcome:
        seen = ProgressWatch(run_spec, self._callbacks.progress, self._say, self._stop)

        def watch(status: Status) -> bool:
            self._has_begun = True  # There is a server now that ends by itself when asked to.
            return seen(status)

        def observed(spec: ServerSpec) -> ServerSpec:
            record = replace(spec.record, take_over=take_over)
            return replace(spec, record=record, observer=self._config.parallel.named_observer)

        try:
            self._callbacks.train_start(Run.of(run_spec, run))
            if run_spec.num_workers != 0:
                address = run_spec.address
                many = run_spec.num_workers or "as many as there is room for"
                self._say(f"starting workers on Ray ({address}): {many}")
            hooks = self._callbacks.hooks()
            with seen_by_others(run, run_spec.total_steps, watch, self._say) as watching:
                outcome = execute(run, run_spec, watching, hooks=hooks, changed=observed)
        except BaseException:  # Ctrl-C too: the same command must not meet a run that never began.
            run_files.withdraw(run)
            raise
        seen.end()
        return outcome

    def _ended(self, run: Run, outcome: Outcome) -> Run:
        """The run as it is written down; an error where it did not come to its end."""
        if outcome.status == "diverged":
            raise DivergedError(outcome.steps, outcome.advice or "")
        if outcome.status == "interrupted":
            raise TrainingInterrupted(run.place, outcome.steps)
        if outcome.advice:
            self._say(outcome.advice)
        return _with_weights(run)


def _with_weights(run: Run) -> Run:
    """A finished run, with its weights read. Raises RunError."""
    _ = run.checkpoint
    return run
