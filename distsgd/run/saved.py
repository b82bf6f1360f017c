"""A run as it lies on disk, read back: what evaluation, prediction and verification start from.

What can be done with it: `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.settings import call_argument, path_argument
from distsgd.config import TrainConfig
from distsgd.data.dataset import DirectoryLock
from distsgd.data.manifest import MANIFEST_FILE, Manifest
from distsgd.errors import DataError, RunError
from distsgd.nn.model import Model
from distsgd.nn.weights import weights_vector
from distsgd.run.own_code import NO_OWN_CODE, OwnCode, check_found_again
from distsgd.run.run_files import CHECKPOINTS_GONE, recorded_config
from distsgd.run.source import manifest_of, prepared_data
from distsgd.run.spec import RunSpec, build_model
from distsgd.store.checkpoint import Checkpoint, CheckpointStore
from distsgd.store.logs import read_history
from distsgd.store.run_directory import RunDirectory

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, repr=False, eq=False)
class SavedRun:
    """A run with everything that takes raw rows to its outputs.

    What changes while a run trains (checkpoint, weights, history, metrics) is read when it is first
    asked for, and kept.

    Attributes:
        directory: Where everything lies.
        config: That it was begun with.
        manifest: Of its data: statistics for standardising, class names.
        model: The network.
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
    def open(cls, run: Path | str, *, on_message: Say = _silent) -> Self:
        """The run at `run`, a directory.

        Args:
            run: As `train` printed it.
            on_message: Called with each damaged checkpoint that is passed over.

        Raises:
            RunError: It is no run, is damaged, or is of another version.
        """
        directory = RunDirectory.open(path_argument("run", run))
        config = recorded_config(directory)
        check_found_again(directory, "model")
        manifest = manifest_of(directory.path / "data")
        model = build_model(config, manifest.num_features)
        if directory.read_json(directory.model_path) != model.to_dict():
            raise RunError(
                directory.model_path,
                "is not the network of config.json; one of them was changed, restore it",
            )
        say = call_argument("on_message", on_message, _silent)
        return cls(directory, config, manifest, model, _say=say)

    @classmethod
    def of(cls, run_spec: RunSpec, directory: RunDirectory) -> Self:
        """The run that was just begun in `directory`, or trained there."""
        spec = run_spec
        return cls(directory, spec.config, spec.manifest, spec.model, spec.own)

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The newest one.

        Raises:
            RunError: Nothing was trained yet, or the checkpoints are gone.
            CheckpointError: All of them are damaged.
        """
        found = CheckpointStore(self.directory.checkpoints).latest(self._say)
        if found is None:
            raise RunError(self.path, _why_no_checkpoint(self.directory))
        return found

    @property
    def weights(self) -> dict[str, Array]:
        """The newest weights by parameter name, of the run's dtype; each in its own shape.

        Raises:
            RunError, CheckpointError: As `checkpoint`.
        """
        return dict(self.checkpoint.arrays["weights"])

    @cached_property
    def history(self) -> Any:
        """A pyarrow Table, a row for each `history_every` steps; see `distsgd.store.HistoryRow`.

        Raises:
            CheckpointError: It is damaged.
        """
        return read_history(self.directory.history)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """How it ended, as ``--json`` prints it; empty for a run that has not ended yet.

        Raises:
            RunError: The file is damaged.
        """
        ended = self.directory.result_path
        return self.directory.read_json(ended) if ended.is_file() else {}

    @cached_property
    def weights_P(self) -> Array:  # noqa: N802 -- shape letters.
        """The newest weights, shape ``[P]``; RunError where they are no longer finite."""
        if not np.isfinite(self.recorded_weights_P).all():
            raise RunError(
                self.directory.path,
                "diverged, and was told to train on; its weights are no longer finite numbers "
                "(use a run that converged)",
            )
        return self.recorded_weights_P

    @cached_property
    def recorded_weights_P(self) -> Array:  # noqa: N802 -- shape letters.
        """The newest weights as they were recorded, finite or not; ``[P]``."""
        named, dtype = self.checkpoint.arrays["weights"], self.config.train.dtype
        return weights_vector(self.model, named, dtype, must_be_finite=False)

    def data(self, cache_dir: Path | str | None = None) -> Path:
        """The prepared rows the run was trained on.

        In its directory, or in the cache, made again if need be; they stay while this object lives.

        Raises:
            DataError: They are gone, or have changed.
        """
        if cache_dir is not None:
            cache_dir = path_argument("cache_dir", cache_dir)
        in_run = self.directory.path / "data"
        if (in_run / self.manifest.train_shards[0].file).is_file():
            return in_run
        if not self.config.data.paths:
            raise DataError(
                in_run,
                "holds the rows of this run no more (they were handed in as arrays); restore it",
            )
        found = Path(self.config.data.paths[0])
        # A prepared directory need not agree with defaults, which a record cannot tell from wishes.
        if not (found / MANIFEST_FILE).is_file():
            found = prepared_data(
                self.config, cache_dir=cache_dir, on_message=lambda _: None, held=self._held
            )
        if manifest_of(found).digest != self.manifest.digest:
            raise DataError(
                found,
                f"is no longer the data that {self.directory.path} was trained on; restore it",
            )
        return found


def _why_no_checkpoint(directory: RunDirectory) -> str:
    """What is wrong with a run that has none, and what to do."""
    none_yet = "has no checkpoint yet"
    if not directory.result_path.is_file():
        return f"{none_yet}; train it first, or let it train on to its first one"
    ended = directory.read_json(directory.result_path)
    if ended.get("status") == "diverged":
        step = ended.get("steps")
        return f"{none_yet}; it diverged at step {step}; train again with a smaller learning rate"
    return f"is finished, but {CHECKPOINTS_GONE}" if ended.get("status") == "done" else none_yet
