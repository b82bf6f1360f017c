"""Preparing: files become a data set directory, in two streaming passes.

The first pass checks and splits rows and takes statistics; the second standardises and writes. A
stratified split reads the labels before, since it needs to know the rows of each class. Everything
is cut at fixed row numbers (`columns`), so that the bits do not depend on files and row groups.
Letters: N rows of a piece, I features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from distsgd.base.files import atomic_directory, write_new_file
from distsgd.base.locations import Location, place_argument
from distsgd.base.settings import call_argument
from distsgd.data.cache_directory import DEFAULT_CACHE, Cache, local_cache
from distsgd.data.fetch import fetched
from distsgd.data.manifest import (
    MANIFEST_FILE,
    Manifest,
    RunningStatistics,
    SourceEntry,
    Statistics,
    standardise_inplace,
)
from distsgd.data.options import LabelKind, PrepareOptions, validate_options
from distsgd.data.prepare.casting import cast_piece, squared_norms
from distsgd.data.prepare.columns import RawRows
from distsgd.data.prepare.csv_types import as_trained, typed_sources
from distsgd.data.prepare.integers import IntegerFeatures
from distsgd.data.prepare.labels import Vocabulary, resolve_label_kind, sort_classes
from distsgd.data.prepare.schema import (
    TableSchema,
    like_training,
    resolve_schema,
    target_shape,
)
from distsgd.data.prepare.split import (
    ClassNames,
    HeldOutClasses,
    Split,
    simple_split,
    stratified_split,
)
from distsgd.data.shards import RowFormat, ShardWriter
from distsgd.data.sources.formats import (
    SourceSpec,
    check_named_once,
    csv_file_of,
    open_sources,
    source_argument,
    with_rows,
)
from distsgd.data.sources.partitions import partition_keys, partitions_as_text
from distsgd.data.sources.source import TableSource
from distsgd.data.upload import check_free, upload
from distsgd.errors import DataError

__all__ = ["PrepareOptions", "Progress", "prepare", "read_features"]

Progress = Callable[[str, int, int | None], None]
# From targets to row, place in it and reason of the first that cannot be used; None where all can.
LabelProblem = Callable[[NDArray[Any]], tuple[int, int, str] | None]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _FirstPass:
    """What reading everything once has told."""

    statistics: Statistics
    class_names: ClassNames
    train_rows: int
    test_rows: int


def prepare(
    sources: SourceSpec,
    out: Path | str | Location,
    *,
    options: PrepareOptions,
    on_progress: Progress | None = None,
    on_message: Say | None = None,
    cache_dir: Path | str | None = None,
) -> Manifest:
    """Write sources as a data set directory; blocks until it is on the disk, whole.

    Args:
        sources: Files, addresses of files on object storage (``s3://...``) or globs of either
            (Parquet, Arrow, IDX, CSV), or one source in memory (`arrays_source`, `MemorySource`),
            or one of your own (`TableSource`).
        out: Directory to make; must not exist or be empty. Or an address without a data set, which
            gets the shards and, as the last file, the manifest.
        options: What the columns mean and how rows are treated.
        on_progress: Called with a phase, rows done and rows in all.
        on_message: Called with what the user should know.
        cache_dir: What is fetched from object storage, or on its way there, lies in this cache.

    Raises DataError for anything in the sources that cannot be used, ConfigError for impossible
    options, StorageError where object storage refuses.
    """
    validate_options(options)
    place = place_argument("out", out)
    progress = call_argument("on_progress", on_progress, lambda _phase, _done, _total: None)
    say = call_argument("on_message", on_message, lambda _text: None)
    cache = Cache(local_cache(cache_dir), on_message=say)
    sources = source_argument("sources", sources)
    if isinstance(place, Location):
        check_free(place)
    else:
        _check_out(place)
    train, tests = fetched(sources, cache), fetched(options.test_sources, cache)
    write = partial(
        write_data_set, train, tests, options=options, on_progress=progress, on_message=say
    )
    if isinstance(place, Path):
        return write(place)
    with cache.staging() as staging:
        manifest = write(staging / "data")
        upload(staging / "data", place, say)
    return manifest


def write_data_set(
    sources: SourceSpec,
    test_sources: SourceSpec,
    out: Path,
    *,
    options: PrepareOptions,
    on_progress: Progress,
    on_message: Say,
) -> Manifest:
    """As `prepare`, from sources of this machine alone; empty `test_sources` are none."""
    opened, num_train_sources = _open_all(sources, test_sources, options, on_message)
    schema, kind = _resolve(opened, options)
    rows = RawRows(opened, schema, reads_again=True)
    train_source_rows = sum(source.num_rows for source in opened[:num_train_sources])
    if options.stratify:
        split, class_names = stratified_split(rows, options, on_progress)
    else:
        split, class_names = simple_split(rows, train_source_rows, options), ()
    first = _first_pass(rows, split, _vocabulary(kind, class_names), options, on_progress)
    manifest = _without_shards(opened, options, schema, kind, first)
    with atomic_directory(out) as directory:
        writer = ShardWriter(
            directory, RowFormat.of(manifest), options, (first.train_rows, first.test_rows)
        )
        manifest = _second_pass(rows, manifest, split, writer, on_progress)
        for source in opened:
            source.check_unchanged()
        write_new_file(directory / MANIFEST_FILE, manifest.to_json().encode())
    return manifest


def _check_out(out: Path) -> None:
    """Raise DataError unless `out` is free: not there, or an empty directory."""
    if out.is_dir() and any(out.iterdir()):
        raise DataError(out, "is not empty; name a new directory")
    if out.exists() and not out.is_dir():
        raise DataError(out, "is a file; name a new directory")


def read_features(
    source: SourceSpec,
    manifest: Manifest,
    *,
    labels: Literal["required", "optional", "ignored"] = "optional",
    label_problem: LabelProblem | None = None,
    cache: Cache = DEFAULT_CACHE,
) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None, int]]:
    """New raw rows, standardised and cast as the training rows were.

    Args:
        source: Files, addresses, globs or a source in memory.
        manifest: Of the training data.
        labels: Whether label columns must be there, are read where they are, or are not looked at.
        label_problem: Which label cannot be used, if any.
        cache: Where files on object storage are fetched to.

    Yields:
        Features ``[N, I]``, target (class indices int64 or numbers, ``[N, *target_shape]``; or
        None) and the number of the first row, over all sources. The arrays are the caller's.

    Raises DataError for rows that cannot be used, and for a class that training did not know.
    """
    are_texts = any(isinstance(name, str) for name in manifest.class_names)
    opened = open_sources(
        fetched(source_argument("data", source), cache),
        named=(*manifest.columns, *manifest.labels),
        texts=manifest.labels if are_texts else (),
        classes=manifest.labels if manifest.label_kind == "class" else (),
        csv=manifest.csv,
    )
    filled = with_rows(opened)
    has_labels = all(set(manifest.labels) <= set(each.schema.names) for each in filled)
    wanted = labels == "required" or (labels == "optional" and has_labels)
    schema = TableSchema(manifest.columns, manifest.list_width, manifest.labels if wanted else ())
    opened = as_trained(opened, labels=schema.label, label_kind=manifest.label_kind)
    rows = RawRows(opened, like_training(schema, filled, math.prod(manifest.target_shape)))
    integers, num_levels = IntegerFeatures(rows, manifest.dtype), manifest.num_levels
    vocabulary = _vocabulary(manifest.label_kind, manifest.class_names)
    shift_I, scale_I = manifest.shift, manifest.scale
    for piece in rows.pieces(vocabulary):
        if num_levels is not None:
            integers.check(piece)
            integers.check_known(piece, num_levels)
        standardise_inplace(piece.x_NI, shift_I, scale_I)
        x_NI, target = cast_piece(piece, rows, manifest.dtype)
        found = label_problem(target) if label_problem and target is not None else None
        if found is not None:
            row, place, reason = found
            raise rows.error(piece.first_row + row, rows.schema.label_names[place], reason)
        if target is not None:
            target = target.reshape(-1, *manifest.target_shape)
        yield x_NI, target, piece.first_row


def _open_all(
    sources: SourceSpec, test_sources: SourceSpec, options: PrepareOptions, on_message: Say
) -> tuple[list[TableSource], int]:
    """All sources, those to train from first, and how many these are."""
    named = frozenset(options.named_columns)
    csv, classes = options.csv, () if options.label_kind == "number" else options.label
    opened = open_sources(sources, named=named, classes=classes, csv=csv)
    num_train_sources = len(opened)
    if test_sources:
        named = named.union(*map(partition_keys, opened))
        texts = partitions_as_text(opened)
        tests = open_sources(test_sources, named=named, texts=texts, classes=classes, csv=csv)
        if not any(source.num_rows for source in tests):
            way_out = "name test files with some, or hold out a test_fraction"
            raise DataError(tests[0].name, f"has no rows to test on; {way_out}")
        opened += tests
    check_named_once(opened)
    if any(csv_file_of(source) for source in opened):
        opened = typed_sources(
            opened, labels=options.label, label_kind=options.label_kind, on_message=on_message
        )
    return opened, num_train_sources


def _resolve(opened: list[TableSource], options: PrepareOptions) -> tuple[TableSchema, LabelKind]:
    schema = resolve_schema(
        opened, label=options.label, features=options.features, exclude=options.exclude
    )
    assert schema.types is not None
    kind = resolve_label_kind(opened[0].name, list(schema.types), options)
    if options.stratify and (kind != "class" or schema.label_shape is not None):
        what = "numbers, and only classes" if kind != "class" else "lists, and only single classes"
        reason = f"label column {schema.label[0]!r} holds {what} can be stratified"
        raise DataError(opened[0].name, f"{reason}; set stratify = false")
    return schema, kind


def _vocabulary(kind: LabelKind, class_names: ClassNames) -> Vocabulary | None:
    """Of classes that are known, or are yet to be found; None for numbers."""
    return Vocabulary(class_names, growing=not class_names) if kind == "class" else None


def _without_shards(
    opened: list[TableSource],
    options: PrepareOptions,
    schema: TableSchema,
    kind: LabelKind,
    first: _FirstPass,
) -> Manifest:
    return Manifest(
        columns=schema.columns,
        list_width=schema.list_width,
        labels=schema.label,
        label_kind=kind,
        target_shape=target_shape(opened[0].name, schema, kind, options.target_shape),
        class_names=first.class_names,
        dtype=options.dtype,
        standardise=options.standardise,
        statistics=first.statistics,
        split_seed=options.split_seed,
        test_fraction=options.test_fraction,
        stratify=options.stratify,
        train_shards=(),
        test_shards=(),
        sources=tuple(SourceEntry(s.name, s.num_bytes, s.num_rows) for s in opened),
        left_out=schema.left_out,
        csv=options.csv,
        feature_kind=options.feature_kind,
    )


def _first_pass(
    rows: RawRows,
    split: Split,
    vocabulary: Vocabulary | None,
    options: PrepareOptions,
    progress: Progress,
) -> _FirstPass:
    split_pass = split.begin()
    are_integers = options.feature_kind == "integer"
    integers = IntegerFeatures(rows, options.dtype) if are_integers else None
    statistics = RunningStatistics(rows.schema.num_features)
    held_out = HeldOutClasses()
    done = 0
    for piece in rows.pieces(vocabulary):
        count = len(piece.x_NI)
        test_N = split_pass.is_test(piece.target, count)
        all_train = not test_N.any()
        statistics.add(piece.x_NI if all_train else piece.x_NI[~test_N])
        if integers is not None:
            integers.check(piece)
            integers.see_held_out(piece, test_N)
        if vocabulary is not None and piece.target is not None:
            held_out.see(piece, test_N)
        done += count
        progress("reading", done, rows.num_rows)
    if done != rows.num_rows:
        reason = f"has {done} rows and says {rows.num_rows}; write it again"
        raise DataError(rows.locate(0)[0], reason)
    if statistics.num_rows == 0:
        raise DataError(rows.locate(0)[0], "has no rows to train on; give files with some")
    found = statistics.result()
    if integers is not None:
        integers.check_held_out(found)
    names = vocabulary.names if vocabulary else ()
    held_out.check(rows, names)
    return _FirstPass(found, sort_classes(names), statistics.num_rows, done - statistics.num_rows)


def _second_pass(
    rows: RawRows, manifest: Manifest, split: Split, writer: ShardWriter, progress: Progress
) -> Manifest:
    vocabulary = _vocabulary(manifest.label_kind, manifest.class_names)
    shift_I, scale_I, split_pass = manifest.shift, manifest.scale, split.begin()
    for piece in rows.pieces(vocabulary):
        if manifest.standardise != "none":
            standardise_inplace(piece.x_NI, shift_I, scale_I)
        x_NI, target = cast_piece(piece, rows, manifest.dtype)
        norms_N = squared_norms(x_NI, piece, rows)
        assert target is not None, "prepared rows have labels"
        test_N = split_pass.is_test(piece.target, len(x_NI))
        writer.append(piece.first_row, test_N, x_NI=x_NI, target=target, squared_norms_N=norms_N)
        progress("writing", piece.first_row + len(x_NI), rows.num_rows)
    train_shards, test_shards = writer.finish()
    return replace(manifest, train_shards=train_shards, test_shards=test_shards).with_digest()
