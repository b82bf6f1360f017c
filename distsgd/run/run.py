"""A run, and what can be done with it: what `Trainer.fit` returns, and `Run.open` reads back.

Legend: N rows, I features, K label columns, C classes, O outputs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from distsgd.base.arrays import Array
from distsgd.base.settings import path_argument
from distsgd.errors import RunError
from distsgd.nn.weights import in_short
from distsgd.run import predictions
from distsgd.run.evaluation import Evaluation, evaluate_held_out, evaluate_rows
from distsgd.run.new_rows import are_files, feature_rows, labelled_rows, rows_of_files
from distsgd.run.progress import Progress
from distsgd.run.saved import SavedRun
from distsgd.run.verify import Verification, verify

_ECHOED = ("status", "steps", "epochs", "train_loss", "test_loss", "test_accuracy", "seconds")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


class Run(SavedRun):
    """A run: its configuration, network, weights and record, and what it says of rows.

    Rows are given raw, as the training rows were: they are standardised with the statistics of
    training, and classes have the names they had there. Everything is computed in this process,
    without Ray, and blocks.

    Attributes:
        path: The run directory.
        config: A `TrainConfig`.
        model: A `Model`.
        weights: By parameter name.
        history: A pyarrow Table.
        metrics: How it ended, as ``--json`` prints it.
        manifest: Of its data.
    """

    def __repr__(self) -> str:
        ended = [f"{key}={_short(self.metrics[key])}" for key in _ECHOED if key in self.metrics]
        try:
            held = [f"weights=<{in_short(self.weights)}>"]
        except RunError:
            held = []
        rows = f"history=<{len(self.history):,} rows of {self.history.num_columns} columns>"
        return f"Run({', '.join([*ended, *held, rows, f'path={str(self.path)!r}'])})"

    def predict(self, x: object) -> Array:
        """The label of each row.

        Args:
            x: Raw features ``[N, I]`` in the order of the columns of training, as anything that
                numpy can take as an array; or a table or data frame, whose columns are found by
                name.

        Returns:
            ``[N]``, the classes as they were named (text, integers or booleans); or numbers of the
            run's dtype, ``[N]`` for one label column, ``[N, K]`` for several.

        Raises:
            DataError: The rows cannot be used.
            RunError: Nothing was trained yet, or the weights are no longer finite.
        """
        return predictions.labels(self, self._outputs(x))

    def predict_proba(self, x: object) -> Array:
        """The probability of each class of each row, or of each label column being 1.

        Args:
            x: As for `predict`.

        Returns:
            ``[N, C]``, of the run's dtype, from 0 to 1, in the order of
            ``run.manifest.class_names``; ``[N, K]`` where the labels are numbers. Rows sum to 1
            where a softmax makes them.

        Raises:
            ModelError: The loss has no probabilities, only scores.
            DataError, RunError: As `predict`.
        """
        predictions.check_probabilities(self)
        return self._outputs(x)

    def _outputs(self, x: object) -> Array:
        return predictions.outputs(self, feature_rows(x, self.manifest))

    def write_predictions(self, data: object, out: Path | str, *, csv: Sequence[str] = ()) -> int:
        """Predict each row of a file of any size; how many they are.

        Args:
            data: A file or glob, or a list of them.
            out: A new Parquet file with one row for each, in the same order. For classes its
                columns are ``prediction`` (the class, as it was named), its ``probability``, from 0
                to 1, or where the loss has none its ``score``, and ``outputs``, one such number a
                class; for numbers there is one column for each label column.
            csv: How a CSV file is written, where that is not as in training (``"separator=;"``).

        Raises:
            DataError: The rows cannot be used, or `out` exists.
            DiskError: `out` cannot be written.
            RunError: As `predict`.
        """
        return predictions.write(self, rows_of_files(data, self.manifest, csv), out)

    def evaluate(
        self,
        data: object = None,
        *,
        csv: Sequence[str] = (),
        cache_dir: Path | str | None = None,
    ) -> Evaluation:
        """Mean loss and accuracy on rows with labels.

        Args:
            data: ``(x, y)``, raw features ``[N, I]`` as for `predict` and labels ``[N]`` or
                ``[N, K]``; a table or data frame with the columns of training; a file or glob, or a
                list of them. The rows that training held out unless given, with the same bits as
                during training.
            csv: As for `write_predictions`.
            cache_dir: Where prepared data are kept, in which the held-out rows may lie.

        Raises:
            DataError: The rows cannot be used.
            RunError: As `predict`; or no rows were held out, and none are given.
        """
        if data is None:
            if not self.manifest.test_shards:
                raise RunError(self.path, "held no rows out; name a file with --data")
            return evaluate_held_out(self, self.data(cache_dir))
        if isinstance(data, tuple) or not (are_files(data) or isinstance(data, list)):
            return evaluate_rows(self, labelled_rows(data, self.manifest))
        return evaluate_rows(self, rows_of_files(data, self.manifest, csv))

    def verify(
        self,
        *,
        num_workers: int = 0,
        accept_numerics: bool = False,
        on_message: Callable[[str], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        cache_dir: Path | str | None = None,
    ) -> Verification:
        """Make the run again in a directory of its own; compare digests, history and weights.

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
            cache_dir=None if cache_dir is None else path_argument("cache_dir", cache_dir),
        )


Result = Run  # What `Trainer.fit` returns.
