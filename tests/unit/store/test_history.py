import shutil
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.errors import CheckpointError
from distsgd.store import HistoryRow, HistoryWriter, read_history


def row(step: int) -> HistoryRow:
    noise = None if step % 3 == 0 else 10.0 / step
    return HistoryRow(
        step, step / 7, step * 64, 0.1, 1 / step, None, 0.5, 0.25, 2.0, noise, step * 1e-3
    )


def write(directory: Path, *parts: range) -> HistoryWriter:
    writer = HistoryWriter(directory)
    for part in parts:
        for step in part:
            writer.append(row(step))
        writer.flush()
    return writer


def steps_of(directory: Path) -> list[int]:
    table = read_history(directory)
    expected = [row(step)._asdict() for step in table["step"].to_pylist()]
    assert table.to_pylist() == expected
    return [each["step"] for each in expected]


def test_history_comes_back_as_it_was(tmp_path: Path) -> None:
    writer = write(tmp_path / "history", range(1, 51), range(51, 100))
    assert steps_of(tmp_path / "history") == list(range(1, 100))
    assert writer.flush() is None
    parts = sorted(path.name for path in (tmp_path / "history").iterdir())
    assert parts == [
        "part-000000000001-000000000050.parquet",
        "part-000000000051-000000000099.parquet",
    ]
    mode = (tmp_path / "history" / parts[0]).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_history_is_empty_before_the_first_row(tmp_path: Path) -> None:
    table = read_history(tmp_path / "missing")
    assert table.num_rows == 0
    assert table.column_names == list(HistoryRow._fields)
    assert HistoryWriter(tmp_path).flush() is None


def test_history_has_nan_losses_and_nulls_apart(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path)
    writer.append(row(1)._replace(train_loss=float("nan"), grad_norm=None))
    writer.flush()
    table = read_history(tmp_path)
    assert np.isnan(table["train_loss"][0].as_py())
    assert table["grad_norm"][0].as_py() is None


@settings(deadline=None)  # It waits for the disk.
@given(
    cuts=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    pending=st.integers(0, 5),
    dropped_at=st.integers(0, 60),
)
def test_history_drops_what_lies_beyond_a_step(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], pending: int, dropped_at: int
) -> None:
    directory = tmp_path_factory.mktemp("history")
    ends = [1, *(1 + np.cumsum(cuts)).tolist()]
    writer = write(directory, *map(range, ends[:-1], ends[1:]))
    for step in range(ends[-1], ends[-1] + pending):
        writer.append(row(step))
    writer.drop_after(dropped_at)
    writer.flush()
    assert steps_of(directory) == [s for s in range(1, ends[-1] + pending) if s <= dropped_at]
    shutil.rmtree(directory)


def test_history_of_many_small_parts_is_merged(tmp_path: Path) -> None:
    write(tmp_path, *(range(step, step + 1) for step in range(1, 131)))
    assert len(list(tmp_path.iterdir())) <= 64
    assert steps_of(tmp_path) == list(range(1, 131))


def test_history_counts_a_row_once_after_an_interrupted_merge(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6), range(6, 9))
    shutil.copytree(tmp_path, tmp_path / "before")
    write(tmp_path, range(1, 9))
    assert len(list(tmp_path.glob("part-*"))) == 3
    assert steps_of(tmp_path) == list(range(1, 9))
    HistoryWriter(tmp_path).drop_after(7)
    assert steps_of(tmp_path) == list(range(1, 8))


def test_history_ignores_what_is_no_part(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    (tmp_path / ".staging-part-000000000006-000000000009.parquet-0a1b").write_bytes(b"half")
    (tmp_path / "part-1-5.parquet").write_bytes(b"")
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5]


def test_history_part_that_is_cut_off_or_exchanged_is_refused(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    for data in (b"", b"not Parquet at all", whole[:-1], whole[: len(whole) // 2], whole[4:]):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{path.name}: cannot be read"):
            read_history(tmp_path)


def test_history_notices_a_flipped_bit_in_its_pages(tmp_path: Path) -> None:
    write(tmp_path, range(1, 200))
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(4)
    end = column.data_page_offset + column.total_compressed_size
    for position in range(end - 200, end):
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{path.name}: cannot be read"):
            read_history(tmp_path)


def test_history_refuses_steps_that_are_not_those_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    path = next(tmp_path.iterdir())
    path.rename(tmp_path / "part-000000000001-000000000007.parquet")
    with pytest.raises(CheckpointError, match="do not ascend from 1 to 7"):
        read_history(tmp_path)
    next(tmp_path.iterdir()).rename(tmp_path / "part-000000000001-000000000003.parquet")
    with pytest.raises(CheckpointError, match="has 5 rows; must have 1 to 3, as it is named"):
        read_history(tmp_path)


def test_history_refuses_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "part-000000000001-000000000001.parquet"
    pq.write_table(pa.table({"step": [1]}), path)
    with pytest.raises(CheckpointError, match=r"has the columns \['step'\]; must have step, epoch"):
        read_history(tmp_path)
