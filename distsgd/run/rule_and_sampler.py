"""The rule and the sampler that a configuration names: found, checked, made.

Between the configuration and the specs that travel to processes. No I/O here, but that a module
which is named is imported.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distsgd.base.named import Kind, Named
from distsgd.config import TrainConfig
from distsgd.data.manifest import Manifest
from distsgd.data.node_cache import DataPlace
from distsgd.data.sampler import Sampler, SamplerSpec
from distsgd.errors import ConfigError
from distsgd.models.protocol import Model
from distsgd.optim.rules import UpdateRule
from distsgd.optim.search import SearchRule
from distsgd.parallel.runner import WORKER
from distsgd.parallel.worker import WorkerSpec

RULE = Kind(
    "optimizer.type",
    rule="a class with init and update_inplace, or with init, rate and search_inplace",
    way_out="see distsgd.optim.rules and distsgd.optim.search",
    methods=(("init", "update_inplace"), ("init", "rate", "search_inplace")),
)
SAMPLER = Kind(
    "batch.sampler",
    rule="a class with num_samples, partition, row_order and describe, or a class method of it",
    way_out="see distsgd.data.sampler:Sampler",
    methods=(("num_samples", "partition", "row_order", "describe"),),
    attributes=("num_rows", "batch_rows", "blocking", "steps_per_epoch", "most_leaves"),
)


def make_rule(config: TrainConfig) -> UpdateRule | SearchRule:
    """The rule of ``[optimizer]``.

    Raises:
        ConfigError: What it names cannot be found, is no rule (then nothing was called), or does
            not go with other keys.
    """
    optimizer = config.optimizer
    if optimizer.type in optimizer.components:
        rule: UpdateRule = optimizer.component()
        return rule
    made: UpdateRule | SearchRule = Named(optimizer.type, optimizer.options).make(RULE)
    if isinstance(made, SearchRule) and (problems := list(_about_search(config))):
        raise ConfigError(problems)
    return made


def _about_search(config: TrainConfig) -> Iterator[str]:
    """What needs a gradient, or a learning rate, with a rule that asks for losses only."""
    asked = {
        "optimizer.clip_norm": config.optimizer.clip_norm is not None,
        "train.stop_gradient_norm": config.train.stop_gradient_norm is not None,
        "train.on_divergence": config.train.on_divergence == "halve_lr",
    }
    for section, _, key in (name.partition(".") for name, is_set in asked.items() if is_set):
        yield (
            f'{section}.{key} is set with optimizer.type "{config.optimizer.type}"; that rule asks '
            f"for losses only and has no gradient (remove {key} from [{section}], or take another "
            "rule)"
        )


def make_sampler(config: TrainConfig, manifest: Manifest) -> Sampler:
    """The sampler of ``[batch]``.

    Raises:
        ConfigError: What it names cannot be found, or is no sampler (then nothing was called).
    """
    spec, batch = _sampler_spec(config, manifest), config.batch
    if batch.sampler == "permutation":
        return _permutation(spec)
    sampler: Sampler = Named(batch.sampler, batch.sampler_options).make(SAMPLER, spec)
    return sampler


def find_sampler_and_worker(config: TrainConfig) -> None:
    """Find what the configuration names, before any row is read; nothing is called.

    Raises:
        ConfigError: A name cannot be found, or names another kind of thing; all problems at once.
    """
    batch, problems = config.batch, list[str]()
    parts = [(Named(config.parallel.worker), WORKER)]
    if batch.sampler != "permutation":
        parts.insert(0, (Named(batch.sampler, batch.sampler_options), SAMPLER))
    for named, kind in parts:
        try:
            named.find(kind, None)  # In place of what it will be made with.
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def _permutation(spec: SamplerSpec) -> Sampler:
    return spec.permutation(spec.batch_rows, spec.blocking(spec.batch_rows))


def _sampler_spec(config: TrainConfig, manifest: Manifest) -> SamplerSpec:
    parallel = config.parallel
    return SamplerSpec(
        num_rows=manifest.train_rows,
        size=config.batch.size,
        seed=config.train.seed,
        shuffle=config.data.shuffle,
        row_bytes=manifest.num_features * np.dtype(config.train.dtype).itemsize,
        lanes=parallel.lanes,
        lane_rows=None if parallel.lane_rows == "auto" else parallel.lane_rows,
        block_rows=parallel.block_rows,
    )


def evaluation_spec(
    config: TrainConfig, data: DataPlace, manifest: Manifest, model: Model
) -> WorkerSpec:
    """What a worker needs to evaluate held-out rows: the network and the rows of a block.

    Neither the rule nor the sampler of the run is made, nor need their modules exist: no training
    row is drawn, and held-out rows are cut into blocks of `block_rows`, whatever draws the others.
    """
    return WorkerSpec(
        data=data,
        model=model,
        sampler=_permutation(_sampler_spec(config, manifest)),
        **config.train.settings_for(WorkerSpec),
        per_sample=False,
        has_classes=manifest.label_kind == "class",
        num_test_rows=manifest.test_rows,
    )
