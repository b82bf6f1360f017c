"""The text of a CSV file: the names in its header, then rows of columns of text.

Where the file is no table, the error names the row, the line and the text. Nothing is taken
for a number here.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from distsgd.data.options import CsvSettings, way_out
from distsgd.data.sources.csv_stream import BLOCK_BYTES, Utf8Stream, no_utf8
from distsgd.data.sources.stored_files import FilePath
from distsgd.data.tables import arrow_errors
from distsgd.errors import DataError, shortened

_MAX_HEADER_BYTES = 4 << 20
# Each takes about 0.2 ms to check and prepare, however few rows there are.
_MAX_COLUMNS = 1 << 15
_SEPARATORS = ",;\t"
_QUOTED = re.compile(r'"[^"]*"')
_NO_SEPARATOR = set("_-.()[]{}'\"/%+*=<>$€°")
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class _Header:
    """Names, what separates them, and the bytes and lines of UTF-8 that end with them."""

    names: list[str]
    separator: str
    num_bytes: int
    num_lines: int


class CsvText:
    """One CSV file as text; `names` are its columns, of which two may be called alike."""

    def __init__(self, path: FilePath, settings: CsvSettings) -> None:
        self.path, self.settings = path, settings
        with self._errors([]):
            self._header = _read_header(path, settings)
        self.names = self._header.names

    def batches(self, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """All rows in order, a block of about 4 MiB at a time: the columns at `places`, as text.

        Raises DataError where the file is no table.
        """
        # Columns are called by their place: names may be there twice, which is reported later.
        called = [str(i) for i in range(len(self.names))]
        wrong: list[pacsv.InvalidRow] = []

        def refuse(row: pacsv.InvalidRow) -> str:
            wrong.append(row)
            return "error"

        with self._errors(wrong), closing(self._after_header()) as stream:
            try:
                reader = pacsv.open_csv(
                    pa.PythonFile(stream, mode="r"),
                    read_options=pacsv.ReadOptions(
                        block_size=BLOCK_BYTES, column_names=called, use_threads=False
                    ),
                    parse_options=pacsv.ParseOptions(
                        delimiter=self._header.separator,
                        newlines_in_values=True,
                        invalid_row_handler=refuse,
                    ),
                    convert_options=pacsv.ConvertOptions(
                        column_types=dict.fromkeys(called, pa.string()),
                        strings_can_be_null=False,
                        include_columns=[str(place) for place in places],
                    ),
                )
            except pa.ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    return
                raise
            yield from reader
            if stream.num_quotes % 2:
                self._check_quotes_closed()

    def where(self, row: int) -> str:
        """How a message calls a row: by its number, and by its line where that can be found.

        Reads the file up to the row.
        """
        line = self._line_of(row)
        return f"row {row}" if line is None else f"row {row} (line {line})"

    def _line_of(self, row: int) -> int | None:
        """The line of the file, from 1 on, on which row number `row` begins."""
        with closing(self._after_header()) as stream:
            lines = io.TextIOWrapper(io.BufferedReader(stream), "utf-8", "replace", newline="")
            reader = csv.reader(lines, delimiter=self._header.separator)
            line, number = 0, -1
            try:
                for values in reader:
                    number += bool(values)  # Empty lines are no rows.
                    if number == row:
                        return self._header.num_lines + line + 1
                    line = reader.line_num
            except csv.Error:
                return None
        return None

    def _check_quotes_closed(self) -> None:
        """Raise DataError where a quote is open at the end: it has swallowed rows."""
        with closing(self._after_header()) as stream:
            lines = io.TextIOWrapper(io.BufferedReader(stream), "utf-8", "replace", newline="")
            reader = csv.reader(lines, delimiter=self._header.separator, strict=True)
            line = 0
            try:
                for _ in reader:
                    line = reader.line_num
            except csv.Error as error:
                if reader.line_num == line or "delimiter expected" in str(error):
                    return
                first = self._header.num_lines + line + 1
                reason = (
                    f'has a quote (") in the row that begins in line {first} that nothing closes'
                )
                raise DataError(self.path, f"{reason}; close it") from None

    def _after_header(self) -> Utf8Stream:
        stream = Utf8Stream(self.path, self.settings.encoding)
        stream.read(self._header.num_bytes)
        return stream

    @contextmanager
    def _errors(self, wrong: list[Any]) -> Iterator[None]:
        """Say what is wrong with the file where reading it fails."""
        try:
            with arrow_errors(str(self.path)):
                yield
        except DataError as error:
            if isinstance(error.__cause__, pa.ArrowInvalid | UnicodeDecodeError):
                raise self._diagnosis(error, wrong) from error.__cause__
            raise

    def _diagnosis(self, error: DataError, wrong: list[Any]) -> DataError:
        if wrong:
            return self._ragged(wrong[0])
        if "utf" in str(error.__cause__).lower() and (found := no_utf8(self.path)):
            return found
        if "straddling object" in str(error.__cause__):
            reason = f"has a row of more than {BLOCK_BYTES >> 20} MiB"
            return DataError(
                self.path, f'{reason}; close the quote (") that is open, or shorten it'
            )
        return error

    def _ragged(self, wrong: Any) -> DataError:
        separator = self._header.separator
        where = self.where(wrong.number - 1)
        reason = (
            f"{where} has {wrong.actual_columns} values and the header {wrong.expected_columns}"
        )
        shown = _shown(wrong.text)
        mend = "correct the row"
        if self.settings.separator == "auto" and wrong.number == 1:
            mend += f", or, if {separator!r} is not what separates values, set [data.csv] separator"
        return DataError(self.path, f"{reason}: {shown}; {mend}")


def _read_header(path: FilePath, settings: CsvSettings) -> _Header:
    with closing(Utf8Stream(path, settings.encoding)) as stream:
        block = stream.read(_MAX_HEADER_BYTES)
    lines = io.StringIO(codecs.getincrementaldecoder("utf-8")().decode(block), newline="")
    empty = list(itertools.takewhile(lambda line: not line.strip(), lines))
    lines.seek(0)
    taken = list(itertools.islice(lines, len(empty)))
    header = _first_record(lines)
    if not header:
        raise DataError(path, "is empty; write it again")
    if len(block) == _MAX_HEADER_BYTES and not header.endswith(("\n", "\r")):
        raise DataError(path, f"has a header of more than {len(block) >> 20} MiB; shorten it")
    line = header.rstrip("\r\n")
    separator = settings.separator
    if separator == "auto":
        row = next(filter(str.strip, lines), "")
        separator = _likely_separator(line, row)
        if separator not in line:
            _check_no_other_separator(path, line, row)
    names = [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
    names = _with_index_named(names)
    _check_names(path, names, line)
    num_lines = len(io.StringIO(header, newline="").readlines()) + len(taken)
    return _Header(names, separator, len("".join([*taken, header]).encode()), num_lines)


def _first_record(lines: Iterable[str]) -> str:
    r"""The first line, with those after it while a quote is open; alone where none closes it.

    >>> _first_record(['a,"b\\n', 'c"\\n', "1,2\\n"])
    'a,"b\\nc"\\n'
    """
    parts, is_open = [], False
    for line in lines:
        parts.append(line)
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            return "".join(parts)
    return parts[0] if parts else ""


def _likely_separator(header: str, row: str) -> str:
    """What the header has most of, and the row after it just as many where there is one such."""
    header, row = _QUOTED.sub("", header), _QUOTED.sub("", row)

    def likelihood(separator: str) -> tuple[bool, int]:
        count = header.count(separator)
        return 0 < count == row.count(separator), count

    return max(_SEPARATORS, key=likelihood)


def _check_no_other_separator(path: FilePath, header: str, row: str) -> None:
    """Refuse a file of one column that looks like several with another separator between them."""
    header, row = _QUOTED.sub("", header).strip(), _QUOTED.sub("", row).strip()
    others = [one for one in dict.fromkeys(header) if not (one.isalnum() or one in _NO_SEPARATOR)]
    for other in sorted(others, key=str.isspace):  # A space may belong to a name.
        is_run = other.isspace() and 2 * other in header
        if header.count(other) == row.count(other) and not is_run:
            reason = f"seems to be separated by {other!r} (header {_shown(header)})"
            raise DataError(path, f"{reason}; {way_out('separator', other)}")
    if len(header.split()) == len(row.split()) > 1:
        reason = f"is separated by more than one space (header {_shown(header)})"
        raise DataError(path, f"{reason}; write it again with one comma between two values")


def _with_index_named(names: list[str]) -> list[str]:
    """The names, of which empty ones in front, an index, become what pandas reads them as.

    >>> _with_index_named(["", "", "a"]), _with_index_named(["", "Unnamed: 0", "a"])
    (['Unnamed: 0', 'Unnamed: 1', 'a'], ['Unnamed: 0.1', 'Unnamed: 0', 'a'])
    """
    num_unnamed = next((place for place, name in enumerate(names) if name), 0)
    named = names[num_unnamed:]
    taken, index = set(named), []
    for place in range(num_unnamed):
        endings = itertools.chain([""], (f".{i}" for i in itertools.count(1)))
        free = (name for end in endings if (name := f"Unnamed: {place}{end}") not in taken)
        index.append(next(free))
    return index + named


def _check_names(path: FilePath, names: Sequence[str], line: str) -> None:
    if not all(names):
        raise DataError(path, f"has a column without a name (header {_shown(line)}); name it")
    if len(names) > _MAX_COLUMNS:
        rule = f"at most {_MAX_COLUMNS} are read; write it as Parquet with a column of lists"
        raise DataError(path, f"has {len(names)} columns; {rule}")
    if all(_is_number(name) for name in names if name):
        reason = f"has no header: its first line is {_shown(line)}; put the names of the columns"
        raise DataError(path, f"{reason} before it")


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    return repr(shortened(text, _LONGEST_SHOWN))
