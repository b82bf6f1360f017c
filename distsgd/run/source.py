"""From ``[data]`` to a prepared data set whose labels the loss takes.

A directory or address that is one already, the cache, or rows that are handed in, in the run's
directory. Rows are prepared without knowing the loss, and may have been prepared for another one:
this is the border where prepared rows, or new ones, meet it. Classes need no check: they are
numbers of known names. Letters: N rows, K numbers of a label, M of them outside.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distsgd.autodiff.ops.domain import EVERY_NUMBER
from distsgd.base.locations import Location, place_of
from distsgd.config import TrainConfig
from distsgd.data.cache import cached
from distsgd.data.cache_address import cached_at
from distsgd.data.cache_directory import Cache, DirectoryLock
from distsgd.data.dataset import DataSet
from distsgd.data.manifest import MANIFEST_FILE, Manifest
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.node_cache import DataPlace, StoredData
from distsgd.data.options import AskedLabelKind, CsvSettings, PrepareOptions
from distsgd.data.prepare.feature_columns import selects
from distsgd.data.prepare.prepare import LabelProblem, prepare
from distsgd.errors import ConfigError, DataError
from distsgd.models.protocol import Model
from distsgd.nn.losses import find_loss
from distsgd.run.progress import PreparingWatch
from distsgd.run.rows import source_of


def prepare_options(config: TrainConfig) -> PrepareOptions:
    """How the configuration wants its rows prepared."""
    data = config.data
    return PrepareOptions(
        label=data.labels,
        features=data.features if data.features == "rest" else tuple(data.features),
        exclude=data.exclude,
        feature_kind=data.feature_kind,
        label_kind=_label_kind(config),
        target_shape=data.target_shape,
        test_fraction=data.test_fraction,
        stratify=data.stratify,
        test_sources=data.test_paths,
        standardise=data.standardise,
        dtype=config.train.dtype,
        split_seed=data.split_seed,
        shards=data.shards,
        csv=CsvSettings(**data.csv.model_dump()),
    )


# Of prepared data: a directory, or an address that all nodes read from; None: the default one.
CachePlace: TypeAlias = "Path | Location | None"


def named_data(config: TrainConfig, cache_dir: CachePlace) -> DataPlace | None:
    """The prepared data set that the configuration names; None where it names raw files. Blocks.

    Raises:
        ConfigError: An address cannot be one.
        StorageError: Object storage refuses, or does not answer.
    """
    paths = config.data.paths
    place = place_of(paths[0]) if len(paths) == 1 else None
    if isinstance(place, Path):
        return place if (place / MANIFEST_FILE).is_file() else None
    if place is None or has_magic(place.address) or (place / MANIFEST_FILE).stat() is None:
        return None
    return _stored(config, place, cache_dir)


def _stored(config: TrainConfig, place: Location, cache_dir: CachePlace) -> StoredData:
    return StoredData(place, _on_each_node(cache_dir), _cache_bytes(config))


def _on_each_node(cache_dir: CachePlace) -> Path | None:
    """A cache as other nodes find it, whose users may have another home."""
    if not isinstance(cache_dir, Path):
        return None
    there = cache_dir.expanduser().absolute()
    with suppress(RuntimeError, ValueError):  # No home here, or it lies elsewhere.
        return "~" / there.relative_to(Path.home())
    return there


def prepared_data(
    config: TrainConfig,
    *,
    cache_dir: CachePlace,
    on_message: Callable[[str], None],
    held: list[DirectoryLock] | None = None,
) -> DataPlace:
    """The prepared data set of the configured rows.

    Prepared once into the cache where they are raw. Blocks.

    Args:
        config: Names the rows.
        cache_dir: The cache, a directory or an address; `default_cache_dir` unless given.
        on_message: Called with what a person should know.
        held: Gets the lock that keeps the entry from being removed while it lives.

    Raises:
        DataError: The rows cannot be used.
        ConfigError: The directory was prepared for something else.
        StorageError: Object storage refuses, or does not answer.
    """
    if (found := named_data(config, cache_dir)) is not None:
        # On a disk all is read once; what is fetched is verified as it comes.
        is_here = isinstance(found, Path)
        _check_fits(config, DataSet.open(found).manifest if is_here else manifest_of(found))
        return found
    paths = config.data.paths
    for path in paths:
        if isinstance(place := place_of(path), Path) and place.is_dir():
            raise DataError(
                path,
                "is a directory without a manifest.json; name files, a glob, or a prepared "
                "directory",
            )
    prepared: dict[str, Any] = {
        "options": prepare_options(config),
        "on_message": on_message,
        "on_progress": PreparingWatch(on_message),
        "max_bytes": _cache_bytes(config),
    }
    if isinstance(cache_dir, Location):
        return _stored(config, cached_at(paths, cache_dir, **prepared), cache_dir)
    return cached(paths, cache_dir=cache_dir, held=held, **prepared)


def data_again(
    config: TrainConfig,
    manifest: Manifest,
    run: Path,
    *,
    cache_dir: CachePlace,
    on_message: Callable[[str], None],
    held: list[DirectoryLock],
) -> DataPlace:
    """The prepared rows that `run` was trained on, as `config` and `manifest` say; see `Run.data`.

    Raises:
        DataError: They are gone, or have changed.
    """
    in_run = run / "data"
    if (in_run / manifest.train_shards[0].file).is_file():
        return in_run
    if not config.data.paths:
        raise DataError(
            in_run,
            "holds the rows of this run no more (they were handed in as arrays); restore it",
        )
    # A prepared directory need not agree with defaults, which a record cannot tell from wishes.
    found = named_data(config, cache_dir) or prepared_data(
        config, cache_dir=cache_dir, on_message=on_message, held=held
    )
    if manifest_of(found).digest != manifest.digest:
        reason = f"is no longer the data that {run} was trained on; restore it"
        raise DataError(str(found), reason)
    return found


def cache_for(
    config: TrainConfig, cache_dir: CachePlace, on_message: Callable[[str], None]
) -> Cache:
    """Where new rows for a run are fetched to: a directory of this node in any case."""
    return Cache(
        cache_dir if isinstance(cache_dir, Path) else None, _cache_bytes(config), on_message
    )


def _cache_bytes(config: TrainConfig) -> int:
    return int(config.data.cache_size_gb * 1e9)


def prepared_arrays(config: TrainConfig, data: object, out: Path) -> Path:
    """The rows that are handed in (`source_of`), prepared into `out` by the same way as a file's.

    Raises:
        DataError: They cannot be used, or do not have as many label columns as are named.
        ConfigError: No label column of a table is named.
    """
    source, labels = source_of(data, config)
    prepare(source, out, options=replace(prepare_options(config), label=labels))
    return out


def manifest_of(data: DataPlace) -> Manifest:
    """What is in a prepared data set; raises as `read_manifest`."""
    return read_manifest(data)


_CHOSEN = (
    "feature_kind",
    "target_shape",
    "standardise",
    "test_fraction",
    "stratify",
    "split_seed",
)


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
        for key in _CHOSEN
        if key in said and getattr(options, key) is not None
    ]
    problems = [
        f"{name} is {value!r}, but {config.data.paths[0]} was prepared with {found!r}; "
        "prepare it again or change the configuration"
        for name, value, found in wanted
        if value != found
    ]
    if options.label_kind not in ("auto", manifest.label_kind):
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
    loss = "softmax_cross_entropy" if there == "classes" else "squared_error"
    way_out = f'set [model] loss to one for {there}, such as "{loss}"'
    if config.data.one_hot:
        taker = "data.one_hot is true"
    elif config.model.loss is not None:
        taker = f'model.loss is "{config.model.loss}"'
    else:
        taker, way_out = f'data.label_kind is "{kind}"', "remove label_kind from [data]"
    return (
        f"{taker}, which takes {wanted} as labels, but {config.data.paths[0]} was prepared with"
        f" {there}; {way_out}, or prepare the data again with --label-kind {kind}"
    )


def _label_kind(config: TrainConfig) -> AskedLabelKind:
    """What the labels are to be: as the loss has it; a model of one's own takes what there is."""
    model = config.model
    if model.loss is None:
        return "class" if config.data.one_hot else config.data.label_kind
    is_class = find_loss(model.loss, model.loss_options).target_kind == "class"
    return "class" if is_class or config.data.one_hot else "number"


def check_labels(model: Model, data: DataPlace) -> None:
    """Hold all labels of a prepared data set, test rows too, against the domain of the loss.

    Reads the labels once, and no features; nothing where the loss takes any number.

    Raises:
        DataError: Names source, column and row of the first label outside it, in the order of the
            sources.
    """
    if model.target_domain == EVERY_NUMBER:
        return
    opened = DataSet.open(data, verify=False)
    if opened.manifest.label_kind == "class":
        return
    found = [
        _first_outside(model, target, source_rows_N)
        for rows in (opened.train, opened.test)
        for target, source_rows_N in rows.targets()
        if not model.target_domain.holds(target)
    ]
    if found:
        row, place, value = min(found)
        raise _error(opened.manifest, row, place, _reason(model, value))


def label_problem(model: Model) -> LabelProblem:
    """The same for rows that are read from files: see `prepare.read_features`."""
    return partial(_problem, model)


def _problem(model: Model, target: NDArray[Any]) -> tuple[int, int, str] | None:
    if target.dtype.kind != "f" or model.target_domain.holds(target):
        return None
    row, place, value = _first_outside(model, target, np.arange(len(target)))
    return row, place, _reason(model, value)


def _first_outside(
    model: Model, target: NDArray[Any], rows_N: NDArray[np.int64]
) -> tuple[int, int, float]:
    """Row number, place and value of the outside label with the smallest row number.

    Targets are numbers ``[N, *target_shape]``; a place is one of ``[K]``, all axes laid flat.
    """
    target_NK = target.reshape(len(target), -1)
    at_M, places_M = np.nonzero(model.target_domain.outside(target_NK))
    first = int(rows_N[at_M].argmin())  # Of its row the first place: they come in order.
    at, place = int(at_M[first]), int(places_M[first])
    return int(rows_N[at]), place, float(target_NK[at, place])


def _reason(model: Model, value: float) -> str:
    return (
        f"label {value:.9g} is outside of what loss {model.loss_name!r} takes; must be "
        f"{model.target_domain.rule} (correct the row, scale the column, or set another loss in "
        "[model])"
    )


def _error(manifest: Manifest, row: int, place: int, reason: str) -> DataError:
    name, row_in_source = manifest.locate(row)
    column = manifest.target_names[place]
    return DataError(name, f"column {column!r}, row {row_in_source}: {reason}")
