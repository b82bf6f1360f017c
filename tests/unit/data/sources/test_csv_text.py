from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from distsgd.data.options import CsvSettings, with_given
from distsgd.data.sources import csv_text
from distsgd.data.sources.csv_file import CsvSource
from distsgd.errors import ConfigError, DataError

TEXT = "x,y\n1,é\n2,ü\n"


def read(path: Path, settings: CsvSettings | None = None) -> dict[str, list[object]]:
    source = CsvSource(path, settings or CsvSettings())
    table = pa.Table.from_batches(source.batches(source.schema.names), source.schema)
    return dict(table.to_pydict())


def written(tmp_path: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "cp500"],
)
def test_every_encoding_is_read_where_it_is_named(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path, TEXT.encode(encoding))
    assert read(path, CsvSettings(encoding=encoding)) == {"x": [1, 2], "y": ["é", "ü"]}


@pytest.mark.parametrize(
    ("encoding", "found", "key"),
    [
        ("latin-1", "line 2 has the byte 0xe9, which is no UTF-8", "latin-1"),
        ("utf-16", "is UTF-16 text", "utf-16"),
        ("utf-16-be", "is UTF-16 text", "utf-16-be"),
        ("utf-16-le", "is UTF-16 text", "utf-16-le"),
        ("utf-32", "is UTF-32 text", "utf-32"),
    ],
)
def test_an_encoding_that_is_not_named_is_recognised(
    tmp_path: Path, encoding: str, found: str, key: str
) -> None:
    with pytest.raises(DataError, match=rf'{found}.* set \[data\.csv\] encoding = "{key}"'):
        read(written(tmp_path, TEXT.encode(encoding)))


def test_a_byte_that_is_no_text_is_named_by_its_line_far_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distsgd.data.sources.csv_stream.BLOCK_BYTES", 64)
    content = b"x,y\n" + b"1,\xc3\xa9\n" * 900 + b"2,\xe9\n" + b"3,a\n" * 900
    with pytest.raises(DataError, match="line 902 has the byte 0xe9"):
        read(written(tmp_path, content))
    with pytest.raises(DataError, match="line 902 has the byte 0xe9"):
        read(written(tmp_path, gzip.compress(content), "rows.csv.gz"))


def test_utf16_is_refused_where_the_file_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'no byte order mark.* encoding = "utf-8"'):
        read(written(tmp_path, TEXT), CsvSettings(encoding="utf-16"))
    with pytest.raises(DataError, match="0xc3, which is no text in ascii"):
        read(written(tmp_path, TEXT), CsvSettings(encoding="ascii"))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("row", [b"2\0,a", b"2,a\0", b"2,\0"])
def test_a_nul_is_named_by_its_line(tmp_path: Path, row: bytes, encoding: str) -> None:
    path = written(tmp_path, b"x,y\n1,a\n" + row + b"\n")
    with pytest.raises(DataError, match="line 3 has a NUL"):
        read(path, CsvSettings(encoding=encoding))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"PAR1\0\0PAR1", "is a Parquet file .* name it .parquet"),
        (gzip.compress(b"x,y\n1,2\n", mtime=0), "compressed with gzip .* name it .csv.gz"),
        (b"PK\x03\x04\x14\0\x06\0", "ZIP archive .* save it as CSV"),
    ],
)
def test_another_format_under_the_name_of_csv_is_named(
    tmp_path: Path, content: bytes, found: str
) -> None:
    with pytest.raises(DataError, match=found):
        read(written(tmp_path, content))


@pytest.mark.parametrize("separator", ["|", ":", " ", "^", "~"])
def test_an_unknown_separator_is_named_and_can_be_set(tmp_path: Path, separator: str) -> None:
    path = written(tmp_path, "x,z,y\n1,2.5,a\n2,3.5,b\n".replace(",", separator))
    with pytest.raises(DataError) as caught:
        read(path)
    assert f'set [data.csv] separator = "{separator}"' in str(caught.value)
    expected = {"x": [1, 2], "z": [2.5, 3.5], "y": ["a", "b"]}
    assert read(path, CsvSettings(separator=separator)) == expected


def test_runs_of_spaces_are_no_separator(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"more than one space.* write it again"):
        read(written(tmp_path, "x   y\n1   0\n"))


def test_separators_within_quotes_do_not_count(tmp_path: Path) -> None:
    path = written(tmp_path, '"a, b, c";d\n1;2\n')
    assert read(path) == {"a, b, c": [1], "d": [2]}


def test_one_column_is_a_table(tmp_path: Path) -> None:
    assert read(written(tmp_path, "first name\nx\ny\n")) == {"first name": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,0\n2\n", r"row 1 \(line 3\) has 1 values and the header 2: '2'"),
        ("x,y\n1,0\n\n1,2,3\n", r"row 1 \(line 4\) has 3 values and the header 2"),
        ('x,y\n"1\n",0\n\n2\n', r"row 1 \(line 5\) has 1 values"),
        ("x,y\n1,2,3\n", r"row 0 \(line 2\) .* set \[data\.csv\] separator"),
        ('\n\n"x\n",y\n1,0\n2\n', r"row 1 \(line 6\) has 1 values"),
        ('x,y\n1,"a\n2,c\n3,d\n', "quote .* line 2 that nothing closes"),
        ("\n \n", "is empty"),
        ("1.5,2e3,-1\n4,5,6\n", "has no header: its first line is '1.5,2e3,-1'"),
        ("1,5;2\n4;5\n", "has no header"),
    ],
)
def test_what_is_no_table_is_named_by_row_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, text))


def test_a_ragged_row_far_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 64)
    with pytest.raises(DataError, match=r"row 500 \(line 502\) has 1 values"):
        read(written(tmp_path, "x,y\n" + "1,2\n" * 500 + "3\n" + "1,2\n" * 500))


def test_a_quote_that_is_open_over_a_block_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 64)
    with pytest.raises(DataError, match="quote"):
        read(written(tmp_path, 'x,y\n1,"a\n' + "1,2\n" * 500))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,y\r1,2\r3,4\r", {"x": [1, 3], "y": [2, 4]}),
        ("x,y\r\n1,2\r\n\r\n3,4\r\n\r\n", {"x": [1, 3], "y": [2, 4]}),
        ('x,"y\nz"\n1,"a\n,""b"\n', {"x": [1], "y\nz": ['a\n,"b']}),
        ("\n\nx,y\n1,2", {"x": [1], "y": [2]}),
        ('x,y\n1,5" pipe\n', {"x": [1], "y": ['5" pipe']}),
        ("x,y\n\n\n", {"x": [], "y": []}),
        (",x\n0,5\n", {"Unnamed: 0": [0], "x": [5]}),
        (",,x\n0,1,5\n", {"Unnamed: 0": [0], "Unnamed: 1": [1], "x": [5]}),
        (",Unnamed: 0,x\n0,1,5\n", {"Unnamed: 0.1": [0], "Unnamed: 0": [1], "x": [5]}),
    ],
)
def test_shapes_that_are_a_table(
    tmp_path: Path, text: str, expected: dict[str, list[object]]
) -> None:
    assert read(written(tmp_path, text)) == expected


def test_a_decimal_comma_and_null_values_are_read_where_they_are_set(tmp_path: Path) -> None:
    path = written(tmp_path, "a;b;c\n1,5;?;?\n-2,25e1;3;d\n")
    settings = CsvSettings(decimal=",", null_values=("?",))
    assert read(path, settings) == {"a": [1.5, -22.5], "b": [None, 3], "c": [None, "d"]}
    # A thousand is not one and a half.
    assert read(written(tmp_path, "a;b\n1.500;1\n"), settings)["a"] == ["1.500"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("separator=ab", "separator is 'ab'; must be"),
        ("separator=7", "separator is '7'; must be"),
        ("separator=.", "another character than decimal"),
        ("encoding=klingon", "encoding is 'klingon'; must be"),
        ("encoding=base64", "encoding is 'base64'; must be"),
        ("decimal=;", "decimal is ';'; must be"),
        ("null_values=?,?", "different texts"),
        ("colour=red", "must be FIELD=VALUE"),
        ("separator", "must be FIELD=VALUE"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        with_given(CsvSettings(), [given])


def test_settings_are_given_as_texts() -> None:
    given = ["separator=\\t", "decimal=,", "null_values=?,-", "encoding=latin-1"]
    assert with_given(CsvSettings(), given) == CsvSettings("\t", "latin-1", ",", ("?", "-"))
