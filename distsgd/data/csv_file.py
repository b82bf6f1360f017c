"""CSV files, compressed or not: a header line of names, then rows.

A first reading of the whole file finds the type of each column, so that no row far down can have
another; a second reading gives the rows. Both see text and turn it into values by the same rule.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from distsgd.data.paths import check_unchanged, file_stamp
from distsgd.data.source import arrow_errors
from distsgd.errors import DataError

_BLOCK_BYTES = 4 << 20
_MAX_HEADER_BYTES = 4 << 20
# Each takes about 0.2 ms to check and prepare, however few rows there are.
_MAX_COLUMNS = 1 << 15
_DELIMITERS = ",;\t"
_NULLS = pa.array(["", "NA", "N/A", "null", "NULL"])
_BOOLEANS = pa.array(["0", "1", "false", "true", None])
# The first that every value of a column has is its type; what is none of them is text.
_KINDS = (pa.int64(), pa.float64(), pa.bool_())


class CsvSource:
    """One CSV file, read a block of about 4 MiB at a time.

    Separated by comma, semicolon or tab, whichever the header has most of. In columns of numbers an
    empty field, ``NA``, ``N/A`` and ``null`` are nulls, in columns of text an empty field is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.files = (path,)
        self._stamp = file_stamp(path)
        self.num_bytes = self._stamp[0]
        with arrow_errors(self.name):
            self._names, self._delimiter = _read_header(path)
            kinds, self.num_rows = self._scan()
        self.schema: pa.Schema = pa.schema(list(zip(self._names, kinds, strict=True)))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, of these columns."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        place_of = {name: place for place, name in enumerate(self._names)}
        places_of_kind: dict[pa.DataType, list[int]] = {}
        for field in schema:
            places_of_kind.setdefault(field.type, []).append(place_of[field.name])
        with arrow_errors(self.name):
            for batch in self._text_batches():
                array_at: dict[int, pa.Array] = {}
                for kind, places in places_of_kind.items():
                    values = _stripped(_joined(batch, places), kind).cast(kind)
                    array_at |= zip(places, _cut(values, len(places)), strict=True)
                arrays = [array_at[place_of[name]] for name in columns]
                yield pa.record_batch(arrays, schema=schema)

    def check_unchanged(self) -> None:
        """Raise DataError when the file has another size or time of change than when opened."""
        check_unchanged(self.path, self._stamp)

    def _scan(self) -> tuple[list[pa.DataType], int]:
        possible = {kind: list(range(len(self._names))) for kind in _KINDS}
        num_rows = 0
        for batch in self._text_batches():
            num_rows += batch.num_rows
            for kind, places in possible.items():
                if places and batch.num_rows:
                    values = _stripped(_joined(batch, places), kind)
                    possible[kind] = _that_can_be(kind, values, places)
        kinds = [pa.string()] * len(self._names)
        for kind in reversed(_KINDS):
            for place in possible[kind]:
                kinds[place] = kind
        return kinds, num_rows

    def _text_batches(self) -> Iterator[pa.RecordBatch]:
        # Columns are called by their place: names may be there twice, which is reported later.
        places = [str(i) for i in range(len(self._names))]
        with _opened(self.path) as file:
            yield from pacsv.open_csv(
                file,
                read_options=pacsv.ReadOptions(
                    block_size=_BLOCK_BYTES, column_names=places, skip_rows=1, use_threads=False
                ),
                parse_options=pacsv.ParseOptions(delimiter=self._delimiter),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
                ),
            )


@contextmanager
def _opened(path: Path) -> Iterator[pa.NativeFile]:
    # A name like rows.csv.gz says how it is compressed.
    with pa.input_stream(str(path), compression="detect") as file:
        yield file


def _read_header(path: Path) -> tuple[list[str], str]:
    with _opened(path) as file:
        block = file.read(_MAX_HEADER_BYTES)
    text = block.split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    if not block.strip():
        raise DataError(path, "is empty; write it again")
    delimiter = max(_DELIMITERS, key=text.count)
    names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    if not names or not all(names):
        raise DataError(path, f"has a column without a name (header {text[:60]!r}); name it")
    if len(names) > _MAX_COLUMNS:
        rule = f"at most {_MAX_COLUMNS} are read; write it as Parquet with a column of lists"
        raise DataError(path, f"has {len(names)} columns; {rule}")
    if all(_is_number(name) for name in names):
        reason = f"has no header: its first line is {text[:60]!r}; put the names of the columns"
        raise DataError(path, f"{reason} before it")
    return names, delimiter


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _joined(batch: pa.RecordBatch, places: Sequence[int]) -> pa.Array:
    """The values of some columns, one column after the other: thousands are one call each."""
    return pa.concat_arrays([batch.column(place) for place in places])


def _cut(values: pa.Array, num_columns: int) -> list[pa.Array]:
    """What `_joined` has joined."""
    num_rows = len(values) // num_columns
    return [values.slice(i * num_rows, num_rows) for i in range(num_columns)]


def _stripped(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Text without space around it, and null where it stands for that in a column of `kind`."""
    values = pc.utf8_trim_whitespace(values)
    is_text = pa.types.is_string(kind)
    nulls = pc.equal(values, "") if is_text else pc.is_in(values, value_set=_NULLS)
    return pc.if_else(nulls, None, values)


def _that_can_be(kind: pa.DataType, values: pa.Array, places: list[int]) -> list[int]:
    """Those of the columns at `places`, whose values are joined, that can be of type `kind`."""
    if pa.types.is_boolean(kind):  # Most columns cannot, and asking for each takes long.
        fits = pc.is_in(pc.ascii_lower(values), value_set=_BOOLEANS)
        fits = fits.to_numpy(zero_copy_only=False).reshape(len(places), -1).all(axis=1)
        return [place for place, fit in zip(places, fits, strict=True) if fit]
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        if len(places) == 1:
            return []
    else:
        return places
    half = len(places) // 2
    cut = half * (len(values) // len(places))
    return [
        *_that_can_be(kind, values.slice(0, cut), places[:half]),
        *_that_can_be(kind, values.slice(cut), places[half:]),
    ]
