"""All that is fixed about a run before it starts, from its configuration and its data. No I/O."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsgd.config import TrainConfig
from distsgd.data.deal import Deal
from distsgd.data.manifest import Manifest
from distsgd.errors import ConfigError
from distsgd.nn.layers import Activation, Dense, Flatten, Layer
from distsgd.nn.model import Model
from distsgd.optim.rules import make_rule
from distsgd.optim.schedules import make_schedule
from distsgd.parallel.exchange.contract import Array
from distsgd.parallel.messages import WorkerTask
from distsgd.parallel.recorder import RecordTask
from distsgd.parallel.server import CrewTask, ServerTask
from distsgd.parallel.training import UpdateTask
from distsgd.parallel.tree import most_nodes

PROCESS_BYTES = (
    150 << 20
)  # Python, numpy, Arrow and Ray in a worker process before any row is read; measured.


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A run before it starts."""

    config: TrainConfig
    data: Path
    manifest: Manifest
    model: Model
    deal: Deal
    total_steps: int

    @property
    def num_workers(self) -> int:
        """Worker processes; "auto" is one for each core this process may use."""
        workers = self.config.parallel.workers
        return num_cores() if workers == "auto" else workers

    @property
    def slots(self) -> int:
        """Partials a worker can hold."""
        return most_nodes(self.deal.lanes, self.deal.most_blocks_per_lane)

    def worker_task(self) -> WorkerTask:
        """What a worker needs to know."""
        config = self.config
        return WorkerTask(
            data=self.data,
            model=self.model,
            deal=self.deal,
            dtype=config.train.dtype,
            seed=config.train.seed,
            per_sample=config.statistics.per_sample,
            has_classes=self.manifest.label_kind == "class",
        )

    def server_task(self, run: Path, initial_weights: Array | None) -> ServerTask:
        """What the server needs to know; it records into `run`."""
        config, per_epoch = self.config, self.deal.steps_per_epoch
        return ServerTask(
            worker=self.worker_task(),
            update=self._update_task(),
            record=RecordTask(
                run=run,
                digest_every=config.train.digest_every,
                checkpoint_every_s=config.checkpoint.every_s,
                checkpoint_every_steps=config.checkpoint.every_steps,
                keep=config.checkpoint.keep,
            ),
            crew=CrewTask(
                num_workers=self.num_workers,
                plan=config.parallel.plan,
                exchange=config.parallel.exchange,
                step_timeout_s=config.parallel.step_timeout_s,
            ),
            total_steps=self.total_steps,
            evaluate_every_steps=config.train.evaluate_every_epochs * per_epoch,
            num_test_rows=self.manifest.test_rows,
            init=config.model.init,
            initial_weights=initial_weights,
        )

    def _update_task(self) -> UpdateTask:
        optimizer, schedule = self.config.optimizer, self.config.schedule
        rule = make_rule(
            optimizer.type,
            momentum=optimizer.momentum,
            weight_decay=optimizer.weight_decay,
            decoupled_weight_decay=optimizer.decoupled_weight_decay,
        )
        rates = make_schedule(
            schedule.type,
            learning_rate=optimizer.learning_rate,
            warmup_steps=schedule.warmup_steps,
            total_steps=self.total_steps,
            final_fraction=schedule.final_fraction,
            every_steps=schedule.every_steps,
            factor=schedule.factor,
        )
        return UpdateTask(
            rule=rule,
            schedule=rates,
            clip_norm=optimizer.clip_norm,
            per_sample=self.config.statistics.per_sample,
            history_every=self.config.train.history_every,
            steps_per_epoch=self.deal.steps_per_epoch,
        )

    def memory_per_process_bytes(self) -> int:
        """About what a worker needs.

        The process, the weights, partials in use, rows and activations of a block.
        """
        itemsize = np.dtype(self.config.train.dtype).itemsize
        rows = min(self.deal.block_rows, self.deal.num_rows)
        widths = [size for shape in _shapes(self.model) for size in shape]
        in_use = (self.deal.lanes * self.deal.most_blocks_per_lane).bit_length() + 2
        return (
            PROCESS_BYTES
            + (1 + min(in_use, self.slots)) * self.model.num_parameters * itemsize
            + 2 * rows * self.manifest.num_features * itemsize
            + 2 * rows * sum(widths) * itemsize
        )

    def warnings(self) -> tuple[str, ...]:
        """What is allowed but probably not meant."""
        found = []
        if self.num_workers > num_cores():
            found.append(
                f"parallel.workers is {self.num_workers}, more than the {num_cores()} cores "
                "here; they will take turns"
            )
        if not self.manifest.test_rows:
            found.append(
                "no rows are held out; set [data] test_fraction or test_path to measure accuracy"
            )
        return tuple(found)


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blueprint(config: TrainConfig, data: Path, manifest: Manifest) -> Blueprint:
    """Hold the configuration against the data.

    Raises:
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
    model = build_model(config, manifest.num_features)
    if model.num_outputs != manifest.num_targets:
        what = "classes" if manifest.label_kind == "class" else "label columns"
        problems.append(
            f"model.layers ends in {model.num_outputs} outputs; must be "
            f"{manifest.num_targets}, the number of {what} "
            "(set units of the last dense layer)"
        )
    if problems:
        raise ConfigError(problems)
    parallel = config.parallel
    deal = Deal.of(
        rows,
        rows if size == "full" else size,
        lanes=parallel.lanes,
        lane_rows=None if parallel.lane_rows == "auto" else parallel.lane_rows,
        block_rows=parallel.block_rows,
    )
    return Blueprint(config, data, manifest, model, deal, _total_steps(config, deal))


def build_model(config: TrainConfig, num_features: int) -> Model:
    """The network of ``[model]`` on rows of `num_features` numbers. Raises ModelError."""
    layers: list[Layer] = []
    for layer in config.model.layers:
        match layer.type:
            case "dense":
                layers.append(Dense(layer.units, activation=layer.activation, bias=layer.bias))
            case "flatten":
                layers.append(Flatten())
            case _:
                layers.append(Activation(layer.type))
    return Model(layers, config.model.loss, (num_features,))


def _total_steps(config: TrainConfig, deal: Deal) -> int:
    train = config.train
    limits = [train.steps, None if train.epochs is None else train.epochs * deal.steps_per_epoch]
    return min(limit for limit in limits if limit is not None)


def _shapes(model: Model) -> list[tuple[int, ...]]:
    """One shape for each parameter's outputs: what a block needs room for."""
    return [spec.shape[-1:] for spec in model.parameters if len(spec.shape) > 1]
