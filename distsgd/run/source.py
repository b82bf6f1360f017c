"""From ``[data]`` to a prepared data set.

A directory that is one already, the cache, or arrays in the run's directory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from distsgd.config import TrainConfig
from distsgd.data.cache import cached
from distsgd.data.cache_entries import default_cache_dir
from distsgd.data.dataset import DataSet, DirectoryLock
from distsgd.data.manifest import Manifest, read_manifest
from distsgd.data.options import CsvSettings, PrepareOptions
from distsgd.data.prepare.column_names import selects
from distsgd.data.prepare.prepare import prepare
from distsgd.errors import ConfigError, DataError
from distsgd.nn.losses import find_loss
from distsgd.run.handed_in import source_of
from distsgd.run.progress import PreparingWatch


def prepare_options(config: TrainConfig) -> PrepareOptions:
    """How the configuration wants its rows prepared."""
    data = config.data
    needs_classes = (
        find_loss(config.model.loss, config.model.loss_options).target_kind == "class"
        or data.one_hot
    )
    return PrepareOptions(
        label=data.labels,
        features=data.features if data.features == "rest" else tuple(data.features),
        exclude=data.exclude,
        label_kind="class" if needs_classes else "number",
        test_fraction=data.test_fraction,
        stratify=data.stratify,
        test_sources=data.test_paths,
        standardise=data.standardise,
        dtype=config.train.dtype,
        split_seed=data.split_seed,
        shards=data.shards,
        csv=CsvSettings(**data.csv.model_dump()),
    )


def prepared_data(
    config: TrainConfig,
    *,
    cache_dir: Path | None,
    on_message: Callable[[str], None],
    held: list[DirectoryLock] | None = None,
) -> Path:
    """The prepared directory of the configured rows.

    Prepared once into the cache where they are raw. Blocks.

    Args:
        config: Names the rows.
        cache_dir: The cache; `default_cache_dir` unless given.
        on_message: Called with what a person should know.
        held: Gets the lock that keeps the entry from being removed while it lives.

    Raises:
        DataError: The rows cannot be used.
        ConfigError: The directory was prepared for something else.
    """
    paths = config.data.paths
    if len(paths) == 1 and (Path(paths[0]) / "manifest.json").is_file():
        directory = Path(paths[0])
        _check_fits(config, DataSet.open(directory).manifest)
        return directory
    for path in paths:
        if Path(path).is_dir():
            raise DataError(
                path,
                "is a directory without a manifest.json; name files, a glob, or a prepared "
                "directory",
            )
    options = prepare_options(config)
    return cached(
        paths,
        options=options,
        cache_dir=cache_dir or default_cache_dir(),
        on_message=on_message,
        on_progress=PreparingWatch(on_message),
        max_bytes=int(config.data.cache_size_gb * 1e9),
        held=held,
    )


def prepared_arrays(config: TrainConfig, data: object, out: Path) -> Path:
    """The rows that are handed in (`source_of`), prepared into `out` by the same way as a file's.

    Raises:
        DataError: They cannot be used, or do not have as many label columns as are named.
        ConfigError: No label column of a table is named.
    """
    source, labels = source_of(data, config)
    prepare(source, out, options=replace(prepare_options(config), label=labels))
    return out


def manifest_of(directory: Path) -> Manifest:
    """What is in a prepared directory."""
    return read_manifest(directory)


def _check_fits(config: TrainConfig, manifest: Manifest) -> None:
    """Refuse a prepared directory that is not what the configuration says about its rows."""
    options = prepare_options(config)
    said = config.data.model_fields_set
    wanted: list[tuple[str, Any, Any]] = [
        ("data.label", options.label, manifest.labels),
        ("train.dtype", options.dtype, manifest.dtype),
    ]
    if not selects(manifest.columns, options.features, ()):
        wanted.append(("data.features", options.features, manifest.columns))
    if not selects(manifest.columns, "rest", options.exclude):
        wanted.append(("data.exclude", options.exclude, manifest.columns))
    wanted += [
        (f"data.{key}", getattr(options, key), getattr(manifest, key))
        for key in ("standardise", "test_fraction", "stratify", "split_seed")
        if key in said
    ]
    problems = [
        f"{name} is {value!r}, but {config.data.paths[0]} was prepared with {found!r}; "
        "prepare it again or change the configuration"
        for name, value, found in wanted
        if value != found
    ]
    if options.label_kind != manifest.label_kind:
        problems.append(_kinds_differ(config, manifest))
    if options.test_sources:
        problems.append(
            f"data.test_path is set, but {config.data.paths[0]} is prepared and has its own"
            " held-out rows; remove test_path from [data]"
        )
    if problems:
        raise ConfigError(problems)


def _kinds_differ(config: TrainConfig, manifest: Manifest) -> str:
    """The problem that a loss takes classes and the labels were prepared as numbers, or so."""
    kind, wanted, there = "number", "numbers", "classes"
    if manifest.label_kind == "number":
        kind, wanted, there = "class", "classes", "numbers"
    taker = (
        "data.one_hot is true" if config.data.one_hot else f'model.loss is "{config.model.loss}"'
    )
    loss = "softmax_cross_entropy" if there == "classes" else "squared_error"
    return (
        f"{taker}, which takes {wanted} as labels, but {config.data.paths[0]} was prepared with"
        f' {there}; set [model] loss to one for {there}, such as "{loss}", or prepare the data'
        f" again with --label-kind {kind}"
    )
