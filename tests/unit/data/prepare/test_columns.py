"""Reading rows once or twice: the same pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distsgd.data.options import PrepareOptions
from distsgd.data.prepare import columns
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import MemorySource

NUM_ROWS = 5000


class Counted(MemorySource):
    """A table that counts how often it is read."""

    times_read = 0

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.times_read += 1
        for batch in super().batches(columns):
            for first in range(0, batch.num_rows, 700):
                yield batch.slice(first, 700)


def table(label: pa.Array) -> pa.Table:
    chance = np.random.default_rng(0)
    names = {f"c{i}": chance.standard_normal(NUM_ROWS) for i in range(3)}
    return pa.table(names | {"label": label})


LABELS = {
    "text": pa.array([f"n{i % 7}" for i in range(NUM_ROWS, 0, -1)]),
    "integers": pa.array(np.arange(NUM_ROWS)[::-1] % 5),
    "numbers": pa.array(np.arange(NUM_ROWS) / 7),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize(("kept_bytes", "times_read"), [(128 << 20, 1), (0, 2), (100_000, 2)])
def test_rows_that_are_kept_for_the_second_pass_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, kept_bytes: int, times_read: int
) -> None:
    options = PrepareOptions(("label",), test_fraction=0.3, standardise="mean_std")
    expected = prepare(MemorySource(table(LABELS[kind])), tmp_path / "plain", options=options)
    monkeypatch.setattr(columns, "KEPT_BYTES", kept_bytes)
    source = Counted(table(LABELS[kind]))
    assert prepare(source, tmp_path / "out", options=options).digest == expected.digest
    assert source.times_read == times_read
