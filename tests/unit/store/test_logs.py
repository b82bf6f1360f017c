import math
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.errors import CheckpointError
from distsgd.store import (
    DigestChain,
    DigestLog,
    DigestRow,
    EvaluationLog,
    EvaluationRow,
    HistoryRow,
    HistoryWriter,
    read_history,
    weights_digest,
)


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


def evaluation(step: int, *, test_loss: float | None = 0.5) -> EvaluationRow:
    return EvaluationRow(step, step / 10, test_loss, 0.9, 360)


def test_evaluations_come_back_as_they_were(tmp_path: Path) -> None:
    log = EvaluationLog(tmp_path / "evaluations.jsonl")
    rows = [
        evaluation(10),
        evaluation(20, test_loss=0.1 + 0.2),
        evaluation(30)._replace(test_accuracy=None),
    ]
    for each in rows:
        log.append(each)
    log.flush()
    assert list(log.read()) == rows


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_evaluation_that_is_not_finite_is_null(tmp_path: Path, loss: float) -> None:
    log = EvaluationLog(tmp_path / "evaluations.jsonl")
    log.append(evaluation(10, test_loss=loss))
    log.flush()
    assert log.read() == (evaluation(10, test_loss=None),)


def test_evaluations_beyond_a_step_are_dropped(tmp_path: Path) -> None:
    log = EvaluationLog(tmp_path / "evaluations.jsonl")
    for step in (10, 20, 30):
        log.append(evaluation(step))
    log.flush()
    log.drop_after(20)
    assert [each.step for each in log.read()] == [10, 20]
    log.drop_after(0)
    assert log.read() == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"step": 1}', "line 1: has the fields"),
        (
            '{"step": 1, "epoch": null, "test_loss": 1, "test_accuracy": 1, "rows": 1}',
            "line 1: epoch is None; must be a number",
        ),
        (
            '{"step": 1, "epoch": 1, "test_loss": "low", "test_accuracy": 1, "rows": 1}',
            "line 1: test_loss is 'low'; must be a number",
        ),
    ],
)
def test_evaluations_name_a_damaged_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "evaluations.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(CheckpointError, match=reason):
        EvaluationLog(path).read()


def test_digest_chain_is_its_formula() -> None:
    chain, value = DigestChain(), bytes(32)
    assert chain.value == value.hex()
    for step in (0, 100, 2**40):
        weights = np.arange(7, dtype=np.float32) + step
        value = blake3(value + step.to_bytes(8, "little") + weights.tobytes()).digest()
        assert chain.extend(step, weights) == value.hex() == chain.value


def test_digest_chain_goes_on_from_its_value() -> None:
    weights = np.ones(5)
    chain = DigestChain()
    chain.extend(1, weights)
    assert DigestChain(chain.value).extend(2, weights) == chain.extend(2, weights)


def test_digest_tells_steps_weights_signs_of_zero_and_dtypes_apart() -> None:
    zeros = np.zeros(4, np.float32)
    cases: list[tuple[int, NDArray[Any]]] = [
        (1, zeros),
        (2, zeros),
        (1, -zeros),
        (1, zeros.astype(np.float64)),
        (1, zeros[:3]),
    ]
    assert len({DigestChain().extend(*case) for case in cases}) == len(cases)


def test_digest_of_a_view_is_that_of_its_bytes_in_order() -> None:
    table = np.arange(12.0).reshape(3, 4)
    assert weights_digest(table[:, 1]) == weights_digest(table[:, 1].copy())
    assert weights_digest(table) == blake3(table.tobytes()).hexdigest()
    assert weights_digest(table[:0]) == blake3(b"").hexdigest()


@pytest.mark.parametrize("value", ["", "0" * 63, "g" * 64, "A" * 64, "0" * 64 + "\n"])
def test_digest_chain_refuses_a_value_that_is_none(value: str) -> None:
    with pytest.raises(CheckpointError, match="must be 64 hexadecimal digits"):
        DigestChain(value)


def test_digest_log_keeps_what_was_flushed(tmp_path: Path) -> None:
    log = DigestLog(tmp_path / "digests.jsonl")
    assert log.read() == ()
    log.flush()
    assert not (tmp_path / "digests.jsonl").exists()
    log.append(100, "a" * 64)
    assert log.read() == ()
    log.flush()
    log.append(200, "b" * 64)
    log.flush()
    log.flush()
    assert log.read() == (DigestRow(100, "a" * 64), DigestRow(200, "b" * 64))
    assert (tmp_path / "digests.jsonl").stat().st_mode & 0o777 == 0o600


def test_digest_log_drops_what_lies_beyond_a_step(tmp_path: Path) -> None:
    log = DigestLog(tmp_path / "digests.jsonl")
    for step in (100, 200, 300):
        log.append(step, "a" * 64)
    log.flush()
    log.append(400, "b" * 64)
    log.drop_after(200)
    log.append(300, "c" * 64)
    log.flush()
    assert [(row.step, row.digest[0]) for row in log.read()] == [
        (100, "a"),
        (200, "a"),
        (300, "c"),
    ]


def test_digest_log_passes_over_a_line_that_was_cut_off_and_then_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "digests.jsonl"
    log = DigestLog(path)
    log.append(1, "a" * 64)
    log.flush()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut].replace(b"1", b"2", 1))
        assert [row.step for row in log.read()] == [1]
        log.drop_after(1)
        log.append(3, "c" * 64)
        log.flush()
        assert [row.step for row in log.read()] == [1, 3]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "line 2: its step is None; must be an integer above 5"),
        ('{"step": 5, "digest": "%s"}' % ("a" * 64), "line 2: its step is 5; must be"),
        ('{"step": true, "digest": "%s"}' % ("a" * 64), "line 2: its step is True"),
        ('{"step": 6, "digest": "abc"}', "line 2: digest is 'abc'; must be 64"),
        ('{"step": 6, "digest": "%s"}}' % ("a" * 64), "line 2: is not JSON"),
        ("", "line 2: is not JSON"),
        ("[6]", "line 2: its step is None"),
    ],
)
def test_digest_log_names_a_damaged_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "digests.jsonl"
    log = DigestLog(path)
    log.append(5, "a" * 64)
    log.flush()
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CheckpointError, match=f"digests.jsonl: {reason}"):
        log.read()
