"""All that is fixed about a run before it starts, from its configuration and its data.

No I/O here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.locations import Location
from distsgd.config import TrainConfig
from distsgd.data.manifest import Manifest
from distsgd.data.node_cache import DataPlace, StoredData
from distsgd.data.orders import MOST_NARROW_ROWS
from distsgd.data.prepare.labels import check_two_classes
from distsgd.data.sampler import Sampler
from distsgd.errors import ConfigError
from distsgd.models import Model
from distsgd.optim.frozen import Frozen, find_frozen
from distsgd.optim.rules import UpdateRule
from distsgd.optim.search import SearchRule
from distsgd.parallel.launch.session.address import chosen_address
from distsgd.parallel.numerics import num_cores, profile
from distsgd.parallel.runner import MakeWorker
from distsgd.parallel.server.evaluation_grid import EvaluationGrid
from distsgd.parallel.server.spec import Length, LogSpec, PoolSpec, ServerSpec, UpdateSpec
from distsgd.parallel.server.target import Target
from distsgd.parallel.tree import most_nodes
from distsgd.parallel.worker import WorkerSpec
from distsgd.run.model import build_model
from distsgd.run.own_code import NO_OWN_CODE, OwnCode
from distsgd.run.rule_and_sampler import make_rule, make_sampler
from distsgd.run.shapes import target_problems

# Python, numpy, Arrow and Ray in a worker process before any row is read; measured. What the
# library of a model adds, the model knows.
PROCESS_BYTES = 150 << 20


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run before it starts."""

    config: TrainConfig
    data: DataPlace
    manifest: Manifest
    model: Model
    sampler: Sampler
    rule: UpdateRule | SearchRule
    frozen: Frozen | None
    total_steps: int
    length: Length
    own: OwnCode = NO_OWN_CODE

    @property
    def worker(self) -> str | MakeWorker:
        """The worker class, or its ``module:class``."""
        return self.own.worker or self.config.parallel.worker

    @property
    def address(self) -> str:
        """The Ray that it is trained on: "local", "auto" or host:port."""
        return chosen_address(self.config.parallel.address)

    @property
    def num_workers(self) -> int | None:
        """Worker processes that are asked for; None: as many as a cluster has room for.

        "auto" is one for each core this process may use, and None on a cluster; [fewest, most] as
        many as that within bounds, or in a cluster the most, for which its scheduler finds room as
        it can.
        """
        workers = self.config.parallel.workers
        is_local = self.address == "local"
        if isinstance(workers, tuple):
            fewest, most = workers
            return min(max(num_cores(), fewest), most) if is_local else most
        if workers == "auto":
            return num_cores() if is_local else None
        return workers

    @property
    def _least_workers(self) -> int | None:
        workers = self.config.parallel.workers
        return workers[0] if isinstance(workers, tuple) else None

    @property
    def evaluation_grid(self) -> EvaluationGrid:
        """When the held-out rows are evaluated."""
        train = self.config.train
        if train.evaluate_every_samples is not None:
            return EvaluationGrid(train.evaluate_every_samples, "samples")
        if train.evaluate_every_steps is not None:
            return EvaluationGrid(train.evaluate_every_steps)
        assert train.evaluate_every_epochs is not None
        return EvaluationGrid(train.evaluate_every_epochs * self.sampler.steps_per_epoch)

    @property
    def target(self) -> Target | None:
        """What ends it early."""
        return target_of(self.config)

    @property
    def slots(self) -> int:
        """Partials a worker can hold."""
        return most_nodes(self.sampler.most_leaves)

    @property
    def is_per_sample(self) -> bool:
        """Are per-sample gradients measured?"""
        return self.config.statistics.per_sample and not isinstance(self.rule, SearchRule)

    def worker_spec(self) -> WorkerSpec:
        """What a worker needs to know."""
        config = self.config
        return WorkerSpec(
            data=self.data,
            model=self.model,
            sampler=self.sampler,
            **config.train.settings_for(WorkerSpec),
            per_sample=self.is_per_sample,
            has_classes=self.manifest.label_kind == "class",
            num_test_rows=self.manifest.test_rows,
            profile=profile(config.train.dtype, self.model),
        )

    def server_spec(self, run: Path | Location, initial_weights: Array | None) -> ServerSpec:
        """What the server needs to know; it records into `run`."""
        config = self.config
        return ServerSpec(
            worker=self.worker_spec(),
            update=self._update_spec(),
            record=LogSpec(
                run=run,
                digest_every=config.train.digest_every,
                checkpoint_every_s=config.checkpoint.every_s,
                checkpoint_every_steps=config.checkpoint.every_steps,
                keep=config.checkpoint.keep,
            ),
            pool=PoolSpec(
                num_workers=self.num_workers,
                **config.parallel.settings_for(PoolSpec),
                least_workers=self._least_workers,
            ),
            total_steps=self.total_steps,
            length=self.length,
            target=self.target,
            evaluate_every=self.evaluation_grid,
            num_test_rows=self.manifest.test_rows,
            init=config.model.init or "",
            initial_weights=initial_weights,
        )

    def _update_spec(self) -> UpdateSpec:
        optimizer = self.config.optimizer
        rates = self.config.schedule.component(
            peak_learning_rate=optimizer.learning_rate, total_steps=self.total_steps
        )
        return UpdateSpec(
            rule=self.rule,
            schedule=rates,
            clip_norm=optimizer.clip_norm,
            per_sample=self.is_per_sample,
            **self.config.train.settings_for(UpdateSpec),
            steps_per_epoch=self.sampler.steps_per_epoch,
            squared_error_factor=self.model.squared_error_factor,
            frozen=self.frozen,
            output_advice=self.model.output_advice,
        )

    def memory_per_process_bytes(self) -> int:
        """About what a worker needs.

        The process, the model's library, the weights, partials in use, rows of two blocks, what a
        block needs, the order of the rows.
        """
        itemsize = np.dtype(self.config.train.dtype).itemsize
        rows = min(self.sampler.blocking.block_rows, self.sampler.num_rows)
        in_use = self.sampler.most_leaves.bit_length() + 2
        return (
            PROCESS_BYTES
            + self.model.library_bytes
            + (1 + min(in_use, self.slots)) * self.model.num_parameters * itemsize
            + 2
            * rows
            * (self.manifest.num_features + math.prod(self.manifest.target_shape))
            * itemsize
            + rows * self.model.numbers_per_sample * itemsize
            + self.sampler.order_bytes
        )

    def hot_bytes(self) -> int:
        """Features that mini-batches are drawn from at a time; more memory than that helps none."""
        itemsize = np.dtype(self.config.train.dtype).itemsize
        return self.sampler.hot_rows * self.manifest.num_features * itemsize

    def _hot_shard_bytes(self) -> int:
        """About what a node must cache of data on object storage at a time; 0 for other data."""
        if not isinstance(self.data, StoredData):
            return 0
        shards = sorted((it.num_bytes for it in self.manifest.train_shards), reverse=True)
        all_bytes = sum(it.num_bytes for it in self.manifest.test_shards)
        hot_rows, num_rows = self.sampler.hot_rows, self.sampler.num_rows
        # Windows are small and lie anywhere: each may be in a shard of its own.
        is_all = hot_rows >= num_rows
        num_hot = len(shards) if is_all else 2 * self.sampler.blocking.lanes
        return sum(shards[:num_hot]) + (all_bytes if is_all else 0)

    def warnings(self) -> tuple[str, ...]:
        """What is allowed but probably not meant."""
        found = []
        is_local = self.address == "local"
        if is_local and self.num_workers is not None and self.num_workers > num_cores():
            found.append(
                f"parallel.workers is {self.num_workers}, more than the {num_cores()} cores "
                "here; they will take turns"
            )
        if left_out := self.manifest.left_out:
            what = "columns" if len(left_out) > 1 else "column"
            found.append(
                f"{what} {', '.join(map(repr, left_out[:10]))}"
                f"{' and more' if len(left_out) > 10 else ''} left out of the features: the index"
                " of a data frame, which numbers the rows (to train on it, name it in [data]"
                " features; to leave it out without a word, in exclude)"
            )
        if not self.manifest.test_rows:
            found.append(
                "no rows are held out; set [data] test_fraction or test_path to measure accuracy"
            )
        if (hot := self._hot_shard_bytes()) > (most := self.config.data.cache_size_gb * 1e9):
            found.append(
                f"data.cache_size_gb is {most / 1e9:g}, and the shards in use at a time take about"
                f" {hot / 1e9:.3g} GB; they will be fetched again and again (set [data]"
                " cache_size_gb to more)"
            )
        if self.model.output_advice:
            found.append(self.model.output_advice)
        num_with_weights = sum(spec.name.endswith(".weight") for spec in self.model.parameters)
        if (
            self.config.model.init == "zeros"
            and num_with_weights > 1
            and not self.config.model.initial_weights
        ):
            found.append(
                'model.init is "zeros"; all units of a hidden layer stay equal to each other (set '
                '[model] init = "glorot")'
            )
        return tuple(found)


def make_run_spec(
    config: TrainConfig, data: DataPlace, manifest: Manifest, own: OwnCode = NO_OWN_CODE
) -> RunSpec:
    """Hold the configuration against the prepared `data`; `own` is what it does not name.

    Raises:
        DataError: The labels are classes, and all the same.
        ConfigError: The batch is larger than the data, or the network does not fit the rows; all
            problems at once.
        ModelError: The network cannot be built.
    """
    rows, size = manifest.train_rows, config.batch.size
    problems = []
    if size != "full" and size > rows:
        problems.append(
            f'batch.size is {size}; must be 1 to {rows} (the training rows) or "full" (set '
            "[batch] size)"
        )
    if config.data.shuffle == "rows" and rows > MOST_NARROW_ROWS:
        problems.append(
            f'data.shuffle is "rows" with {rows:,} training rows; must be at most '
            f'{MOST_NARROW_ROWS:,} (set [data] shuffle = "windows")'
        )
    if manifest.label_kind == "class":
        # Before the network: of one class no number of outputs is right.
        check_two_classes(manifest.sources[0].name, manifest.labels[0], manifest.class_names)
    try:
        model = own.model or build_model(config, manifest, own.factory)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    problems += target_problems(manifest, model)
    frozen, unknown = _frozen(config, model)
    problems += unknown
    if (target := target_of(config)) is not None:
        has_classes = manifest.label_kind == "class"
        problems += target.problems(num_test_rows=manifest.test_rows, has_classes=has_classes)
    if problems:
        raise ConfigError(problems)
    sampler, rule = make_sampler(config, manifest), own.rule or make_rule(config)
    total_steps, length = _total_steps(config, sampler.steps_per_epoch)
    return RunSpec(config, data, manifest, model, sampler, rule, frozen, total_steps, length, own)


def _frozen(config: TrainConfig, model: Model) -> tuple[Frozen | None, list[str]]:
    """The weights that stay as they are, and what is wrong with their names."""
    names = config.optimizer.frozen
    if not names:
        return None, []
    places, problems = find_frozen(names, {spec.name: spec.shape for spec in model.parameters})
    frozen = Frozen(places)
    if len(frozen.places) == model.num_parameters and not problems:
        problems.append(
            f"optimizer.frozen names all {model.num_parameters} weights; nothing is left to learn "
            "(edit [optimizer] frozen)"
        )
    return frozen, problems


def target_of(config: TrainConfig) -> Target | None:
    """What ends a run early."""
    return None if config.train.target is None else Target.parse(config.train.target)


def _total_steps(config: TrainConfig, steps_per_epoch: int) -> tuple[int, Length]:
    """How many steps a run has, and whether that is so by steps or by epochs."""
    train = config.train
    by_epochs = None if train.epochs is None else train.epochs * steps_per_epoch
    if by_epochs is not None and (train.steps is None or by_epochs <= train.steps):
        return by_epochs, "epochs"
    assert train.steps is not None
    return train.steps, "steps"
