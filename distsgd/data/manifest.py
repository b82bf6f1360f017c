"""The manifest of a prepared data set: what its shards hold, how to treat new rows alike.

``manifest.json`` came from a disk: every value is checked when it is read, nothing is trusted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from distsgd.data.manifest_reader import ManifestReader
from distsgd.data.options import (
    DEFAULT_CSV,
    ClassName,
    CsvSettings,
    Dtype,
    LabelKind,
    Standardise,
    csv_problems,
)
from distsgd.data.scaling import Statistics
from distsgd.errors import ShardError

FORMAT = "distsgd-data"
VERSION = 2
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 30
_NO_BITS = frozenset({"sources", "left_out", "csv", "digest"})


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One file of rows; its checksum is blake3 in hexadecimal."""

    file: str
    num_rows: int
    num_bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One source the rows came from."""

    name: str
    num_bytes: int
    num_rows: int


@dataclass(frozen=True, slots=True, repr=False)
class Manifest:
    """What a prepared data set is.

    Attributes:
        columns: Feature columns of the sources, in order; one when `list_width` is set.
        list_width: Length of the lists when the features are one list column, else None.
        labels: Label columns.
        label_kind: ``"class"``: targets are class indices; ``"number"``: the label columns
            themselves.
        class_names: Values of the classes by index, sorted, all of one type; empty for numbers.
        dtype: Of features, number labels and squared norms.
        standardise: Which rule gave `shift` and `scale`.
        statistics: Of the raw features over the training rows.
        split_seed: Key of split and order.
        test_fraction: Share of rows that are held out.
        stratify: Whether that share is held out of each class.
        train_shards: Shards of the training rows, in row order.
        test_shards: Shards of the held-out rows, in order of arrival.
        sources: Where the rows came from; `source_row` counts over all of them.
        left_out: Columns that are no features because they are the index of a data frame.
        csv: How CSV files are written, for new rows too.
        digest: blake3 of everything that defines the bits: all but `sources`, `left_out` and `csv`.
    """

    columns: tuple[str, ...]
    list_width: int | None
    labels: tuple[str, ...]
    label_kind: LabelKind
    class_names: tuple[ClassName, ...]
    dtype: Dtype
    standardise: Standardise
    statistics: Statistics
    split_seed: int
    test_fraction: float
    stratify: bool
    train_shards: tuple[ShardEntry, ...]
    test_shards: tuple[ShardEntry, ...]
    sources: tuple[SourceEntry, ...]
    left_out: tuple[str, ...] = ()
    csv: CsvSettings = DEFAULT_CSV
    digest: str = ""

    def __repr__(self) -> str:
        labels = ", ".join(map(repr, self.labels[:3])) + (", ..." if len(self.labels) > 3 else "")
        return (
            f"Manifest({self.train_rows:,} rows to train, {self.test_rows:,} to test, "
            f"{self.num_features:,} features, labels {labels} ({self.label_kind}, "
            f"{self.num_targets:,} targets), {self.dtype}, digest={self.digest[:16]!r})"
        )

    @property
    def num_features(self) -> int:
        """Numbers a row has."""
        return len(self.columns) if self.list_width is None else self.list_width

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each number: see `names_of_features`."""
        return names_of_features(self.columns, self.list_width)

    @property
    def num_targets(self) -> int:
        """Outputs a network needs: the number of classes, or of label columns."""
        return len(self.class_names) if self.label_kind == "class" else len(self.labels)

    @property
    def train_rows(self) -> int:
        """Rows to train on."""
        return sum(shard.num_rows for shard in self.train_shards)

    @property
    def test_rows(self) -> int:
        """Rows held out."""
        return sum(shard.num_rows for shard in self.test_shards)

    @property
    def shift(self) -> NDArray[np.float64]:
        """Of ``x' = (x - shift) / scale``; shape ``[num_features]``."""
        return self.statistics.shift_and_scale(self.standardise)[0]

    @property
    def scale(self) -> NDArray[np.float64]:
        """Of ``x' = (x - shift) / scale``; shape ``[num_features]``; 1 for a constant feature."""
        return self.statistics.shift_and_scale(self.standardise)[1]

    def locate(self, source_row: int) -> tuple[str, int]:
        """Name of the source of a row, and the row's number in it."""
        for source in self.sources:
            if source_row < source.num_rows:
                return source.name, source_row
            source_row -= source.num_rows
        raise ShardError("manifest", f"no source has row {source_row}; prepare the data again")

    def with_digest(self) -> Manifest:
        """The same with `digest` computed."""
        bits = {key: value for key, value in self._plain().items() if key not in _NO_BITS}
        text = json.dumps([FORMAT, VERSION, bits], sort_keys=True, allow_nan=False)
        return replace(self, digest=blake3(text.encode()).hexdigest())

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(
            {"format": FORMAT, "version": VERSION, **self._plain()},
            allow_nan=False,
            ensure_ascii=False,
        )

    def _plain(self) -> dict[str, Any]:
        """As JSON has it; `asdict` copies each number of each column."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        entries = ("train_shards", "test_shards", "sources")
        values["csv"] = asdict(self.csv)
        lists = {name: [asdict(entry) for entry in values[name]] for name in entries}
        statistics = self.statistics
        of_columns = {field.name: getattr(statistics, field.name) for field in fields(statistics)}
        return values | lists | {"statistics": of_columns}


def names_of_features(columns: tuple[str, ...], list_width: int | None) -> tuple[str, ...]:
    """Name of each number of a row: its column, with its place where that is a list.

    >>> names_of_features(("a", "b"), None), names_of_features(("x",), 2)
    (('a', 'b'), ('x[0]', 'x[1]'))
    """
    if list_width is None:
        return columns
    return tuple(f"{columns[0]}[{i}]" for i in range(list_width))


def read_manifest(directory: Path) -> Manifest:
    """The checked manifest of a prepared directory; ShardError says what is wrong with it."""
    path = directory / MANIFEST_FILE
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ShardError(
                path, f"is larger than {MAX_MANIFEST_BYTES >> 20} MiB; prepare the data again"
            )
        raw: Any = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ShardError(
            directory, f"is no prepared data set (no {MANIFEST_FILE}); prepare it first"
        ) from error
    except OSError as error:
        raise ShardError(
            path, f"cannot be read ({error.strerror}); check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ShardError(path, f"is not valid JSON ({error}); prepare the data again") from error
    manifest = _from_json(ManifestReader(path, raw))
    if manifest.with_digest().digest != manifest.digest:
        raise ShardError(
            path, "does not have the digest it claims: it was changed; prepare the data again"
        )
    return manifest


def _from_json(reader: ManifestReader) -> Manifest:
    reader.expect("format", FORMAT)
    is_ours = reader.integer("version", least=0) == VERSION
    reader.require(is_ours, "version", f"{VERSION} (another version of distsgd wrote it)")
    labels = reader.texts("labels")
    manifest = Manifest(
        columns=reader.texts("columns"),
        list_width=reader.optional_integer("list_width", least=1),
        labels=labels,
        label_kind=reader.choice("label_kind", get_args(LabelKind)),
        class_names=reader.class_names("class_names"),
        dtype=reader.choice("dtype", get_args(Dtype)),
        standardise=reader.choice("standardise", get_args(Standardise)),
        statistics=_statistics(reader.child("statistics")),
        split_seed=reader.integer("split_seed", least=0),
        test_fraction=reader.number("test_fraction"),
        stratify=reader.boolean("stratify"),
        train_shards=tuple(_shard(child) for child in reader.children("train_shards")),
        test_shards=tuple(_shard(child) for child in reader.children("test_shards")),
        sources=tuple(_source(child) for child in reader.children("sources")),
        left_out=reader.texts("left_out"),
        csv=_csv(reader.child("csv")),
        digest=reader.hexadecimal("digest"),
    )
    _check_consistent(reader, manifest)
    return manifest


def _check_consistent(reader: ManifestReader, manifest: Manifest) -> None:
    statistics = manifest.statistics
    lengths = {
        len(getattr(statistics, name)) for name in ("mean", "deviation", "minimum", "maximum")
    }
    reader.require(
        lengths == {manifest.num_features},
        "statistics",
        f"lists of {manifest.num_features} numbers",
    )
    reader.require(
        manifest.list_width is None or len(manifest.columns) == 1, "columns", "one list column"
    )
    reader.require(bool(manifest.columns), "columns", "not empty")
    reader.require(bool(manifest.labels), "labels", "not empty")
    reader.require(not set(manifest.labels) & set(manifest.columns), "labels", "no feature columns")
    is_class = manifest.label_kind == "class"
    reader.require(
        is_class == bool(manifest.class_names),
        "class_names",
        "given for classes, empty for numbers",
    )
    reader.require(not is_class or len(manifest.labels) == 1, "labels", "one column for classes")
    files = [shard.file for shard in (*manifest.train_shards, *manifest.test_shards)]
    reader.require(len(set(files)) == len(files), "train_shards", "files named once")
    reader.require(bool(manifest.train_shards), "train_shards", "not empty")
    source_rows = sum(source.num_rows for source in manifest.sources)
    reader.require(
        manifest.train_rows + manifest.test_rows == source_rows,
        "sources",
        "all rows, in one split each",
    )


def _statistics(reader: ManifestReader) -> Statistics:
    return Statistics(
        mean=reader.numbers("mean"),
        deviation=reader.numbers("deviation"),
        minimum=reader.numbers("minimum"),
        maximum=reader.numbers("maximum"),
    )


def _shard(reader: ManifestReader) -> ShardEntry:
    return ShardEntry(
        file=reader.file_name("file"),
        num_rows=reader.integer("num_rows", least=1),
        num_bytes=reader.integer("num_bytes", least=1),
        checksum=reader.hexadecimal("checksum"),
    )


def _csv(reader: ManifestReader) -> CsvSettings:
    settings = CsvSettings(
        separator=reader.text("separator"),
        encoding=reader.text("encoding"),
        decimal=reader.text("decimal"),
        null_values=reader.optional_texts("null_values"),
    )
    for field, rule in csv_problems(settings):
        reader.require(False, field, rule)
    return settings


def _source(reader: ManifestReader) -> SourceEntry:
    return SourceEntry(
        name=reader.text("name"),
        num_bytes=reader.integer("num_bytes", least=0),
        num_rows=reader.integer("num_rows", least=0),
    )
