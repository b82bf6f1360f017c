"""Reading a manifest: it came from a disk, so every value is checked and nothing is trusted.

ShardError names the first bad value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar, get_args

from distsgd.base.locations import Location
from distsgd.data.manifest import (
    FORMAT,
    MANIFEST_FILE,
    MAX_FEATURES,
    VERSION,
    Manifest,
    ShardEntry,
    SourceEntry,
    Statistics,
    usual_target_shape,
)
from distsgd.data.options import (
    ClassName,
    CsvSettings,
    Dtype,
    FeatureKind,
    LabelKind,
    Standardise,
    csv_problems,
)
from distsgd.errors import ShardError, shortened


class Directory(Protocol):
    """A prepared data set on object storage."""

    def __truediv__(self, name: str) -> Location:
        """The file of a name in it."""
        ...


Choice = TypeVar("Choice", bound=str)

MAX_MANIFEST_BYTES = 1 << 30
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.arrow")
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")
_LARGEST_INTEGER = (1 << 64) - 1


class ManifestReader:
    """The values of one object of the manifest at `path`."""

    def __init__(self, path: Path | Location, raw: Any, where: str = "") -> None:
        self._path, self._where = path, where
        if not isinstance(raw, dict):
            self._fail(where or "the file", raw, "an object")
        self._raw: dict[str, Any] = raw

    def expect(self, key: str, value: object) -> None:
        """Refuse any other value."""
        self.require(self._get(key) == value, key, f"{value!r}")

    def require(self, holds: bool, key: str, rule: str) -> None:  # noqa: FBT001 -- the condition is the subject.
        """Refuse the value of `key` unless the rule holds."""
        if not holds:
            self._fail(key, self._raw.get(key), rule)

    def text(self, key: str) -> str:
        """Any text."""
        value = self._get(key)
        return value if isinstance(value, str) else self._fail(key, value, "text")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of different texts."""
        values = self._list(key)
        self.require(all(isinstance(value, str) for value in values), key, "a list of texts")
        self.require(len(set(values)) == len(values), key, "a list of different texts")
        return tuple(values)

    def optional_texts(self, key: str) -> tuple[str, ...] | None:
        """A list of different texts, or null."""
        return None if self._get(key) is None else self.texts(key)

    def file_name(self, key: str) -> str:
        """A plain file name of ours: no directories, nothing hidden."""
        value = self.text(key)
        return (
            value
            if _FILE_NAME.fullmatch(value)
            else self._fail(key, value, "the plain name of a shard file")
        )

    def hexadecimal(self, key: str) -> str:
        """A blake3 checksum."""
        value = self.text(key)
        return (
            value
            if _HEXADECIMAL.fullmatch(value)
            else self._fail(key, value, "64 hexadecimal digits")
        )

    def choice(self, key: str, choices: tuple[Choice, ...], unsaid: str = "") -> Choice:
        """One of some texts; `unsaid`, if it is given, where the key is missing."""
        value = unsaid if unsaid and key not in self._raw else self.text(key)
        for choice in choices:
            if value == choice:
                return choice
        return self._fail(key, value, f"one of {', '.join(choices)}")

    def integer(self, key: str, *, least: int) -> int:
        """An integer from `least` to 2**64 - 1."""
        value = self._get(key)
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and least <= value <= _LARGEST_INTEGER
        ):
            return value
        return self._fail(key, value, f"an integer of at least {least}")

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        return value if isinstance(value, bool) else self._fail(key, value, "true or false")

    def optional_integer(self, key: str, *, least: int) -> int | None:
        """An integer or null."""
        return None if self._get(key) is None else self.integer(key, least=least)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._get(key)
        return float(value) if _is_number(value) else self._fail(key, value, "a finite number")

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = self._list(key)
        self.require(all(_is_number(value) for value in values), key, "a list of finite numbers")
        return tuple(float(value) for value in values)

    def counts(self, key: str, unsaid: tuple[int, ...]) -> tuple[int, ...]:
        """A list of whole numbers of at least 1; `unsaid` where the key is missing."""
        values = self._list(key) if key in self._raw else list(unsaid)
        are_counts = all(type(value) is int and value >= 1 for value in values)
        self.require(are_counts, key, "a list of whole numbers of at least 1")
        return tuple(values)

    def class_names(self, key: str) -> tuple[ClassName, ...]:
        """A list of different texts, or of integers, or of booleans."""
        values = self._list(key)
        kinds = {type(value) for value in values}
        self.require(
            len(kinds) <= 1 and kinds <= {str, int, bool}, key, "texts, or integers, or booleans"
        )
        self.require(len(set(values)) == len(values), key, "different values")
        return tuple(values)

    def child(self, key: str) -> ManifestReader:
        """An object within this one."""
        return ManifestReader(self._path, self._get(key), f"{self._where}{key}.")

    def children(self, key: str) -> Iterator[ManifestReader]:
        """The objects of a list."""
        for i, raw in enumerate(self._list(key)):
            yield ManifestReader(self._path, raw, f"{self._where}{key}[{i}].")

    def _get(self, key: str) -> Any:
        if key not in self._raw:
            self._fail(key, None, "there")
        return self._raw[key]

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        return value if isinstance(value, list) else self._fail(key, value, "a list")

    def _fail(self, key: str, value: object, rule: str) -> NoReturn:
        shown = shortened(repr(value))
        raise ShardError(
            str(self._path),
            f"{self._where}{key} is {shown}; must be {rule}; prepare the data again",
        )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def read_manifest(directory: Path | Directory) -> Manifest:
    """The checked manifest of a prepared directory; blocks.

    Args:
        directory: On a disk, or on object storage.

    Raises:
        ShardError: It is missing, or something is wrong with it.
        StorageError: The storage refuses, or does not answer.
    """
    path = directory / MANIFEST_FILE
    try:
        if _size_of(path) > MAX_MANIFEST_BYTES:
            raise ShardError(
                str(path), f"is larger than {MAX_MANIFEST_BYTES >> 20} MiB; prepare the data again"
            )
        raw: Any = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise ShardError(
            str(directory), f"is no prepared data set (no {MANIFEST_FILE}); prepare it first"
        ) from error
    except OSError as error:
        raise ShardError(
            str(path), f"cannot be read ({error.strerror}); check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ShardError(
            str(path), f"is not valid JSON ({error}); prepare the data again"
        ) from error
    manifest = _from_json(ManifestReader(path, raw))
    if manifest.with_digest().digest != manifest.digest:
        raise ShardError(
            str(path), "does not have the digest it claims: it was changed; prepare the data again"
        )
    return manifest


def _size_of(path: Path | Location) -> int:
    if isinstance(path, Path):
        return path.stat().st_size
    stored = path.stat()
    if stored is None:
        raise FileNotFoundError(path.address)
    return stored.size_bytes


def _from_json(reader: ManifestReader) -> Manifest:
    reader.expect("format", FORMAT)
    is_ours = reader.integer("version", least=0) == VERSION
    reader.require(is_ours, "version", f"{VERSION} (another version of distsgd wrote it)")
    labels, label_kind = reader.texts("labels"), reader.choice("label_kind", get_args(LabelKind))
    manifest = Manifest(
        columns=reader.texts("columns"),
        list_width=reader.optional_integer("list_width", least=1),
        labels=labels,
        label_kind=label_kind,
        target_shape=reader.counts("target_shape", usual_target_shape(label_kind, len(labels))),
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
        feature_kind=reader.choice("feature_kind", get_args(FeatureKind), unsaid="number"),
        digest=reader.hexadecimal("digest"),
    )
    _check_consistent(reader, manifest)
    return manifest


def _check_consistent(reader: ManifestReader, manifest: Manifest) -> None:
    statistics = manifest.statistics
    lengths = {
        len(getattr(statistics, name)) for name in ("mean", "deviation", "minimum", "maximum")
    }
    num_features = manifest.num_features
    reader.require(lengths == {num_features}, "statistics", f"lists of {num_features} numbers")
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
    size, num_labels = math.prod(manifest.target_shape), len(manifest.labels)
    fits = num_labels in {1, size} and size <= MAX_FEATURES
    reader.require(fits, "target_shape", f"axes of the {num_labels} labels, or of one list")
    if manifest.num_levels is not None:
        reader.require(manifest.standardise == "none", "standardise", '"none" for integers')
        highest = max(statistics.maximum)
        are_whole = min(statistics.minimum) >= 0 and highest < 2.0**53 and highest % 1 == 0
        reader.require(are_whole, "statistics", "those of integers from 0 on")
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
