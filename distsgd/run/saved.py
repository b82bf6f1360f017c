"""A run as it lies on disk, read back: what evaluation, prediction and verification start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from distsgd.base.arguments import path_argument
from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.data.dataset import DirectoryLock
from distsgd.data.manifest import MANIFEST_FILE, Manifest
from distsgd.errors import DataError, RunError
from distsgd.nn.model import Model
from distsgd.nn.weights import weights_vector
from distsgd.run.run_files import CHECKPOINTS_GONE, recorded_config
from distsgd.run.source import manifest_of, prepared_data
from distsgd.run.spec import build_model
from distsgd.store.checkpoint import Checkpoint, CheckpointStore
from distsgd.store.run_directory import RunDirectory

Say = Callable[[str], None]


@dataclass(frozen=True, repr=False)
class SavedRun:
    """A run with everything that takes raw rows to its outputs.

    Statistics, class names, network, weights.
    """

    directory: RunDirectory
    config: TrainConfig
    manifest: Manifest
    model: Model
    checkpoint: Checkpoint
    _held: list[DirectoryLock] = field(default_factory=list, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"SavedRun({str(self.directory.path)!r}, {self.model!r}, {self.checkpoint!r})"

    @classmethod
    def load(cls, run: Path, on_message: Say = lambda _: None) -> SavedRun:
        """Read `run` with its newest checkpoint.

        Raises:
            RunError: It is no run, or nothing was trained yet.
            CheckpointError: The weights are damaged.
        """
        directory = RunDirectory.open(path_argument("run", run))
        config = recorded_config(directory)
        manifest = manifest_of(directory.path / "data")
        model = build_model(config, manifest.num_features)
        if directory.read_json(directory.model_path) != model.to_dict():
            raise RunError(
                directory.model_path,
                "is not the network of config.json; one of them was changed, restore it",
            )
        checkpoint = CheckpointStore(directory.checkpoints).latest(on_message)
        if checkpoint is None:
            raise RunError(run, _why_no_checkpoint(directory))
        return cls(directory, config, manifest, model, checkpoint)

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

    def data(self, cache_dir: Path | None = None) -> Path:
        """The prepared rows the run was trained on.

        Beside it, or in the cache, made again if need be; they stay there while this object lives.

        Raises:
            DataError: They are gone, or have changed.
        """
        beside = self.directory.path / "data"
        if (beside / self.manifest.train_shards[0].file).is_file():
            return beside
        if not self.config.data.paths:
            raise DataError(
                beside,
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
