from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from distsgd.data.sources.arrow_file import ArrowSource
from distsgd.data.sources.formats import open_file
from distsgd.errors import DataError

TABLE = pa.table(
    {
        "a": np.arange(50.0),
        "b": [str(i) for i in range(50)],
        "c": pa.array(["x", "y"] * 25).dictionary_encode(),
    }
)
Form = Literal["file", "stream"]


def written(
    path: Path, form: Form = "file", table: pa.Table = TABLE, compression: str | None = None
) -> Path:
    file = path / f"rows.{form}"
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened: Any = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with pa.OSFile(str(file), "wb") as out, opened(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=20)
    return file


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_a_file_or_stream_gives_its_rows(
    tmp_path: Path, form: Form, compression: str | None
) -> None:
    source = open_file(written(tmp_path, form, compression=compression))
    assert isinstance(source, ArrowSource)
    assert (source.num_rows, source.schema) == (50, TABLE.schema)
    assert pa.Table.from_batches(source.batches(["a", "c"])).equals(TABLE.select(["a", "c"]))


def test_batches_are_bounded_in_bytes(tmp_path: Path) -> None:
    lists = pa.FixedSizeListArray.from_arrays(np.zeros(2000 * 4096, np.float32), 4096)
    path = tmp_path / "wide.arrow"
    table = pa.table({"x": lists})
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    rows = [batch.num_rows for batch in open_file(path).batches(["x"])]
    assert sum(rows) == 2000
    assert max(rows) <= (16 << 20) // (4096 * 8)


@pytest.mark.parametrize("form", ["file", "stream"])
def test_no_damage_to_a_file_is_anything_but_a_data_error(tmp_path: Path, form: Form) -> None:
    path = written(tmp_path, form)
    content = path.read_bytes()
    for at in range(8, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        try:
            source = open_file(path)
            list(source.batches([name for name in "abc" if name in source.schema.names]))
        except DataError:
            continue


@pytest.mark.parametrize("form", ["file", "stream"])
def test_a_file_cut_short_is_refused(tmp_path: Path, form: Form) -> None:
    path = written(tmp_path, form)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match="cannot be read"):
        list(open_file(path).batches(["a"]))
