"""One table says how a format is told; a file of each goes to its reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.data.options import DEFAULT_CSV
from distsgd.data.sources.known_formats import FORMATS, companion_of, format_of
from distsgd.errors import DataError

TABLE = pa.table({"a": [1.0, 2.0]})
IDX = b"\0\0\x08\x01" + (2).to_bytes(4, "big") + bytes([7, 8])


def written(path: Path, kind: str) -> Path:
    if kind == "Parquet":
        pq.write_table(TABLE, path)
    elif kind == "Arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, TABLE.schema) as writer:
            writer.write_table(TABLE)
    else:
        content = IDX if kind.startswith("Idx") else b"a\n1.0\n2.0\n"
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rows.csv", "Csv"),
        ("rows.tsv.gz", "Csv"),
        ("rows.arrow", "Arrow"),
        ("rows", "Parquet"),
        ("rows.bin", "Idx"),
        ("rows.gz", "Idx"),
    ],
)
def test_file_of_each_format_is_told_and_read(name: str, kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, kind)
    source = format_of(path).open(path, DEFAULT_CSV)
    assert type(source).__name__ == f"{kind}Source"
    (column,) = (batch.column(0) for batch in source.batches(source.schema.names))
    assert len(np.asarray(column)) == source.num_rows == 2


def test_what_is_of_no_format_is_refused_by_the_last(tmp_path: Path) -> None:
    for name, content in (("a.gz", gzip.compress(b"text")), ("b", b"text"), ("c", b"")):
        (tmp_path / name).write_bytes(content)
        assert format_of(tmp_path / name) is FORMATS[-1]
        with pytest.raises(DataError, match=name):
            format_of(tmp_path / name).open(tmp_path / name, DEFAULT_CSV)


def test_labels_are_the_companion_of_images_alone(tmp_path: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "images.csv"):
        (tmp_path / name).touch()
    labels = tmp_path / "train-labels-idx1-ubyte"
    assert companion_of(tmp_path / "train-images-idx3-ubyte") == labels
    assert companion_of(labels) is None
    assert companion_of(tmp_path / "images.csv") is None
