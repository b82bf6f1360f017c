"""A run, and what can be done with it: what `Trainer.fit` returns, and `Run.open` reads back.

Legend: N rows, I features, K label columns, C classes, O outputs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.locations import Location, place_argument
from distsgd.base.settings import call_argument
from distsgd.config import TrainConfig
from distsgd.data.cache_directory import Cache, DirectoryLock, cache_argument
from distsgd.data.manifest import Manifest
from distsgd.data.node_cache import DataPlace
from distsgd.errors import RunError
from distsgd.models.protocol import Model
from distsgd.models.weights import weights_vector
from distsgd.run import evaluation
from distsgd.run.evaluation import Evaluation
from distsgd.run.model import build_model
from distsgd.run.own_code import NO_OWN_CODE, OwnCode, check_found_again, check_model
from distsgd.run.progress import Progress
from distsgd.run.rows import are_files, feature_rows, labelled_rows, rows_of_files
from distsgd.run.run_files import recorded_config
from distsgd.run.run_place import why_no_checkpoint
from distsgd.run.shown import shown
from distsgd.run.source import cache_for, data_again, manifest_of
from distsgd.run.spec import RunSpec
from distsgd.run.verify import Verification, verify
from distsgd.run.weights_file import save_weights
from distsgd.store.checkpoint import Checkpoint, CheckpointStore
from distsgd.store.logs import read_history
from distsgd.store.run_directory import RunDirectory

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """A run: its configuration, network, weights and record, and what it says of rows.

    Rows are given raw, as the training rows were: they are standardised with the statistics of
    training, and classes have the names they had there. Everything is computed in this process,
    without Ray, and blocks. What changes while a run trains is read when first asked for, and kept.

    Attributes:
        directory: Where everything lies.
        config: The `TrainConfig` that it was begun with.
        manifest: Of its data: statistics for standardising, class names.
        model: The `Model`.
        own: What was handed in without a name, where the run was trained in this process.
    """

    directory: RunDirectory
    config: TrainConfig
    manifest: Manifest
    model: Model
    own: OwnCode = NO_OWN_CODE
    _say: Say = field(default=_silent)
    _held: list[DirectoryLock] = field(default_factory=list)

    @classmethod
    def open(cls, run: Path | Location | str, *, on_message: Say = _silent) -> Self:
        """The run at `run`, a directory or an address; from there it is fetched.

        What its ``config.json`` names is imported, which runs the module's code: open only runs
        whose named modules you trust.

        Args:
            run: As `train` printed it.
            on_message: Called with each damaged checkpoint that is passed over.

        Raises:
            RunError: It is no run, is damaged, or is of another version.
        """
        directory = RunDirectory.open(place_argument("run", run))
        config = recorded_config(directory)
        check_found_again(directory, "model")
        manifest = manifest_of(directory.path / "data")
        model = build_model(config, manifest)
        check_model(directory, model)
        say = call_argument("on_message", on_message, _silent)
        return cls(directory, config, manifest, model, _say=say)

    @classmethod
    def of(cls, run_spec: RunSpec, directory: RunDirectory) -> Self:
        """The run that was just begun in `directory`, or trained there."""
        spec = run_spec
        return cls(directory, spec.config, spec.manifest, spec.model, spec.own)

    @property
    def path(self) -> Path:
        """The run directory; of a run on object storage, a working copy that ends with this."""
        return self.directory.path

    @property
    def place(self) -> Path | Location:
        """Where the run is: its directory, or its address."""
        return self.directory.place

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The newest one.

        Raises:
            RunError: Nothing was trained yet, or the checkpoints are gone.
            CheckpointError: All of them are damaged.
        """
        found = CheckpointStore(self.directory.checkpoints).latest(self._say)
        if found is None:
            raise RunError(self.place, why_no_checkpoint(self.directory))
        return found

    @property
    def weights(self) -> dict[str, Array]:
        """The newest weights by name, in the model's order and shapes. Raises as `checkpoint`."""
        named = self.checkpoint.arrays["weights"]  # In no order: that is of the file's reader.
        return {spec.name: named[spec.name] for spec in self.model.parameters}

    @cached_property
    def history(self) -> Any:
        """A pyarrow Table, a row for each `history_every` steps; see `distsgd.store.HistoryRow`.

        Raises CheckpointError where it is damaged.
        """
        return read_history(self.directory.history)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """How it ended, as ``--json`` prints it; empty for a run that has not ended yet.

        Raises RunError where the file is damaged.
        """
        return self.directory.read_result()

    @cached_property
    def weights_P(self) -> Array:  # noqa: N802 -- shape letters.
        """The newest weights, shape ``[P]``; RunError where they are no longer finite."""
        if not np.isfinite(self.recorded_weights_P).all():
            raise RunError(
                self.place,
                "diverged, and was told to train on; its weights are no longer finite numbers "
                "(use a run that converged)",
            )
        return self.recorded_weights_P

    @cached_property
    def recorded_weights_P(self) -> Array:  # noqa: N802 -- shape letters.
        """The newest weights as they were recorded, finite or not; ``[P]``."""
        named, dtype = self.checkpoint.arrays["weights"], self.config.train.dtype
        return weights_vector(self.model, named, dtype, must_be_finite=False)

    def save_weights(self, out: Path | str) -> int:
        """Write the newest weights to a new file ``.safetensors``; how many arrays it has.

        Of a PyTorch module they are what its ``load_state_dict`` takes strictly: parameters under
        all their names, and lasting buffers. A next run starts from them by ``initial_weights``.

        Raises:
            DataError: `out` exists, or cannot be such a file.
            DiskError: It cannot be written.
            RunError: As `predict`.
        """
        return save_weights(self, out)

    def data(self, cache_dir: Path | str | Location | None = None) -> DataPlace:
        """The prepared rows the run was trained on.

        In its directory, on object storage, or in the cache, made again if need be; there they stay
        while this object lives.

        Raises:
            DataError: They are gone, or have changed.
        """
        return data_again(
            self.config,
            self.manifest,
            self.directory.path,
            cache_dir=cache_argument(cache_dir),
            on_message=self._say,
            held=self._held,
        )

    def __repr__(self) -> str:
        return shown(self)

    def predict(self, x: object) -> Array:
        """The label of each row.

        Args:
            x: Raw features ``[N, I]`` in the order of the columns of training (or of the model's
                `input_shape`), as anything that numpy can take as an array; or a table or data
                frame, whose columns are found by name.

        Returns:
            ``[N]``, the classes as they were named (text, integers or booleans); or numbers of the
            run's dtype, ``[N]`` for one label column, ``[N, K]`` for several. Of lists of classes
            or numbers ``[N, *target_shape]``.

        Raises:
            DataError: The rows cannot be used.
            RunError: Nothing was trained yet, or the weights are no longer finite.
        """
        return evaluation.labels_of(self, self._outputs(x))

    def predict_proba(self, x: object) -> Array:
        """The probability of each class of each row, or of each label column being 1.

        Args:
            x: As for `predict`.

        Returns:
            ``[N, C]``, of the run's dtype, from 0 to 1, in the order of
            ``run.manifest.class_names``; of lists of classes ``[N, *target_shape, C]``; ``[N, K]``
            where the labels are numbers. Rows sum to 1 where a softmax makes them.

        Raises:
            ModelError: The loss has no probabilities, only scores.
            DataError, RunError: As `predict`.
        """
        evaluation.check_probabilities(self)
        return self._outputs(x)

    def _outputs(self, x: object) -> Array:
        return evaluation.outputs_of(self, feature_rows(x, self.manifest, self.model.input_shape))

    def write_predictions(
        self,
        data: object,
        out: Path | str,
        *,
        csv: Sequence[str] = (),
        cache_dir: Path | str | Location | None = None,
    ) -> int:
        """Predict each row of a file of any size; how many they are.

        Args:
            data: A file, an address on object storage (``s3://...``), a glob, or a list of them.
            out: A new Parquet file with one row for each, in the same order. For classes its
                columns are ``prediction`` (the class, as it was named), its ``probability``, from 0
                to 1, or where the loss has none its ``score``, and ``outputs``, one such number a
                class; for numbers there is one column for each label column.
            csv: How a CSV file is written, where that is not as in training (``"separator=;"``).
            cache_dir: Where fetched data are kept.

        Raises:
            DataError: The rows cannot be used, or `out` exists.
            DiskError: `out` cannot be written.
            RunError: As `predict`.
        """
        rows = rows_of_files(data, self.manifest, csv, self._cache(cache_dir))
        return evaluation.write_predictions(self, rows, out)

    def evaluate(
        self,
        data: object = None,
        *,
        csv: Sequence[str] = (),
        cache_dir: Path | str | Location | None = None,
    ) -> Evaluation:
        """Mean loss and accuracy on rows with labels.

        Args:
            data: ``(x, y)``, raw features ``[N, I]`` as for `predict` and labels ``[N]`` or
                ``[N, K]``; a table or data frame with the columns of training; a file, an address
                on object storage, a glob, or a list of them. The rows that training held out unless
                given, with the same bits as during training.
            csv: As for `write_predictions`.
            cache_dir: Where prepared and fetched data are kept.

        Raises:
            DataError: The rows cannot be used.
            RunError: As `predict`; or no rows were held out, and none are given.
        """
        if data is None:
            if not self.manifest.test_shards:
                raise RunError(self.place, "held no rows out; name a file with --data")
            return evaluation.evaluate_held_out(self, self.data(cache_dir))
        if isinstance(data, tuple) or not (are_files(data) or isinstance(data, list)):
            labelled = labelled_rows(data, self.manifest, self.model.input_shape)
            return evaluation.evaluate_rows(self, labelled)
        rows = rows_of_files(data, self.manifest, csv, self._cache(cache_dir))
        return evaluation.evaluate_rows(self, rows)

    def _cache(self, cache_dir: Path | str | Location | None) -> Cache:
        return cache_for(self.config, cache_argument(cache_dir), self._say)

    def verify(
        self,
        *,
        num_workers: int = 0,
        accept_numerics: bool = False,
        on_message: Callable[[str], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        cache_dir: Path | str | Location | None = None,
    ) -> Verification:
        """Make the run again in a directory of its own; compare digests, history and weights.

        What its files name is imported, as by `open`: verify only runs whose modules you trust.

        Args:
            num_workers: Worker processes on Ray; 0 for none.
            accept_numerics: Whether it is made again also where this process computes other bits
                than those that made it; that is said, and stands in the error where the record
                differs.
            on_message: Called with what a person should know.
            on_progress: Called about ten times a second while the steps are made.
            stop: Set, it ends the work after the present step. Ctrl-C does so too.
            cache_dir: Where prepared data are kept.

        Raises:
            VerificationError: The record differs; names the first step at which it does. No other
                error says anything about the record.
            ReplayInterrupted: It was stopped before all steps were made again.
            DivergedError: The run diverges when it is made again, before the end of its record.
            CheckpointError: What was saved is damaged.
            NumericsError: This process computes other bits than those that made the run, and that
                is not accepted.
            RunError, DataError: The run or its data are not there any more.
        """
        return verify(
            self,
            num_workers=num_workers,
            accept_numerics=accept_numerics,
            on_message=on_message,
            on_progress=on_progress,
            stop=stop,
            cache_dir=cache_dir,
        )


Result = Run  # What `Trainer.fit` returns.
