"""The manifest of a prepared data set: what its shards hold, how to treat new rows alike.

The statistics of the features, and the standardising made from them, are part of it. It is read by
`manifest_reader`. No I/O here.

Letters: N rows, I features.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from distsgd.data.options import (
    DEFAULT_CSV,
    ClassName,
    CsvSettings,
    Dtype,
    FeatureKind,
    LabelKind,
    Standardise,
)
from distsgd.errors import ShardError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per-feature statistics of training rows; `deviation` is the population's (divided by N)."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    def shift_and_scale(self, kind: Standardise) -> tuple[Float64, Float64]:
        """The two of ``x' = (x - shift) / scale``; a constant feature has scale 1.

        Returns:
            Shapes ``[I]`` and ``[I]``.
        """
        mean, deviation, minimum, maximum = (
            np.array(getattr(self, f.name), np.float64) for f in fields(self)
        )
        if kind == "none":
            return np.zeros_like(mean), np.ones_like(mean)
        # Rounding can give a constant feature a tiny deviation: its extremes tell. Shifted by the
        # value itself it is 0.
        constant = minimum == maximum
        shift = np.where(constant, minimum, mean) if kind == "mean_std" else minimum
        scale = deviation if kind == "mean_std" else maximum - minimum
        return shift, np.where(constant | (scale == 0.0), 1.0, scale)


class RunningStatistics:
    """Statistics of rows that come in pieces.

    Pieces are merged in the order they come (Chan, Golub, LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances", 1979): equal pieces in equal order give
    equal bits.
    """

    def __init__(self, num_features: int) -> None:
        self.num_rows = 0
        self._mean = np.zeros(num_features)
        self._squares = np.zeros(num_features)
        self._minimum = np.full(num_features, np.inf)
        self._maximum = np.full(num_features, -np.inf)

    def add(self, x_NI: Float64) -> None:
        """Take in rows; shape ``[N, I]``, C order, N may be 0."""
        count = len(x_NI)
        if count == 0:
            return
        mean = x_NI.sum(axis=0) / count
        deviation = x_NI - mean
        np.multiply(deviation, deviation, out=deviation)
        total = self.num_rows + count
        delta = mean - self._mean
        self._mean += delta * (count / total)
        self._squares += deviation.sum(axis=0) + delta * delta * (self.num_rows * (count / total))
        np.minimum(self._minimum, x_NI.min(axis=0), out=self._minimum)
        np.maximum(self._maximum, x_NI.max(axis=0), out=self._maximum)
        self.num_rows = total

    def result(self) -> Statistics:
        """Statistics of all rows so far, at least one."""
        assert self.num_rows > 0, "the caller refuses data without training rows"
        return Statistics(
            mean=tuple(self._mean.tolist()),
            deviation=tuple(np.sqrt(self._squares / self.num_rows).tolist()),
            minimum=tuple(self._minimum.tolist()),
            maximum=tuple(self._maximum.tolist()),
        )


def standardise_inplace(x_NI: Float64, shift_I: Float64, scale_I: Float64) -> None:
    """``x = (x - shift) / scale`` in float64; the caller looks for infinities."""
    with np.errstate(over="ignore"):
        np.subtract(x_NI, shift_I, out=x_NI)
        np.divide(x_NI, scale_I, out=x_NI)


FORMAT = "distsgd-data"
VERSION = 2
MANIFEST_FILE = "manifest.json"
MAX_FEATURES = 1 << 20  # As many numbers a row may have, and as many its label.
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
        target_shape: Of a row's target: ``()`` for one class, ``(K,)`` for K label columns of
            numbers; of a list of classes or numbers its length, or other axes of as many.
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
        feature_kind: ``"integer"``: the features are whole numbers from 0 on, not standardised.
        digest: blake3 of everything that defines the bits: all but `sources`, `left_out` and `csv`.
    """

    columns: tuple[str, ...]
    list_width: int | None
    labels: tuple[str, ...]
    label_kind: LabelKind
    target_shape: tuple[int, ...]
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
    feature_kind: FeatureKind = "number"
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
        """Outputs a network needs: the number of classes, or of the numbers of a label."""
        return len(self.class_names) if self.label_kind == "class" else math.prod(self.target_shape)

    @property
    def num_levels(self) -> int | None:
        """One more than the highest integer of the features; None where they are no integers.

        Of the training rows, and so of all: held-out and new rows with a higher one are refused.
        """
        if self.feature_kind != "integer":
            return None
        return int(max(self.statistics.maximum)) + 1

    @property
    def target_names(self) -> tuple[str, ...]:
        """Name of each number or class of a target: its column, with its place in a list."""
        width = math.prod(self.target_shape)
        return names_of_features(self.labels, None if len(self.labels) == width else width)

    def empty_targets(self, num_rows: int) -> NDArray[Any]:
        """Room for targets: class indices int64, or numbers, ``[N, *target_shape]``."""
        kind = np.int64 if self.label_kind == "class" else self.dtype
        return np.empty((num_rows, *self.target_shape), kind)

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
        # Data sets of before they existed have the digest that they had.
        usual = {
            "feature_kind": "number",
            "target_shape": usual_target_shape(self.label_kind, len(self.labels)),
        }
        unsaid = {name for name, value in usual.items() if values[name] == value}
        plain = values | lists | {"statistics": of_columns}
        return {name: value for name, value in plain.items() if name not in unsaid}


def usual_target_shape(label_kind: LabelKind, num_labels: int) -> tuple[int, ...]:
    """The shape of a target of columns that hold one class or number a row."""
    return () if label_kind == "class" else (num_labels,)


def names_of_features(columns: tuple[str, ...], list_width: int | None) -> tuple[str, ...]:
    """Name of each number of a row: its column, with its place where that is a list.

    >>> names_of_features(("a", "b"), None), names_of_features(("x",), 2)
    (('a', 'b'), ('x[0]', 'x[1]'))
    """
    if list_width is None:
        return columns
    return tuple(f"{columns[0]}[{i}]" for i in range(list_width))
