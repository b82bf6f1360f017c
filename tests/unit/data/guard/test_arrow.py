from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distsgd.data.guard import arrow
from distsgd.data.guard.arrow import check_decoded_size
from distsgd.data.sources.arrow_file import ArrowSource
from distsgd.errors import DataError


def written(rows: int, compression: str | None, *, is_file: bool) -> bytes:
    buffer = io.BytesIO()
    texts = pa.array(["x" * 100] * rows).dictionary_encode()
    table = pa.table({"a": np.zeros(rows), "text": texts})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    writer = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with writer(buffer, table.schema, options=options) as file:
        file.write_table(table)
    return buffer.getvalue()


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_decoded_size_is_that_of_the_largest_part(
    compression: str, *, is_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(10_000, compression, is_file=is_file)
    exact = 10_000 * (8 + 4)  # Numbers and the places in the dictionary.
    assert len(data) < exact / 4
    monkeypatch.setattr(arrow, "MAX_DECODED_BYTES", exact)
    check_decoded_size(pa.BufferReader(data), is_file=is_file)
    monkeypatch.setattr(arrow, "MAX_DECODED_BYTES", exact - 1)
    with pytest.raises(ValueError, match="decoded; the limit is"):
        check_decoded_size(pa.BufferReader(data), is_file=is_file)


@pytest.mark.parametrize("is_file", [True, False])
def test_what_is_not_compressed_is_read_in_place_and_has_no_limit(
    *, is_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "MAX_DECODED_BYTES", 0)
    data = written(100, None, is_file=is_file)
    check_decoded_size(pa.BufferReader(data), is_file=is_file)


def test_file_that_decodes_to_too_much_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.arrow"
    path.write_bytes(written(10_000, "zstd", is_file=True))
    monkeypatch.setattr(arrow, "MAX_DECODED_BYTES", 1000)
    with pytest.raises(DataError, match=r"bomb.arrow: .*write smaller record batches"):
        ArrowSource(path)
