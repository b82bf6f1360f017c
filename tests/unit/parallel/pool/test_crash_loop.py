"""Blocks that kill are found and named; those that were only unlucky are forgotten."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from distsgd.errors import ClusterError
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.pool.crash_loop import MAX_DEATHS, CrashLoopGuard, Deaths, namer
from distsgd.parallel.worker import WorkerSpec
from distsgd.store.pointer import DEATHS
from tests.fakes import small_blocks

SAMPLER = small_blocks(50, 16, lanes=4, lane_rows=4, block_rows=5)


def request(
    first: int, last: int, step: int = 7, kind: RequestKind = RequestKind.GRADIENT
) -> ComputeRequest:
    return ComputeRequest(0, kind, step, first, last, 0, 0)


def remembered(path: Path) -> CrashLoopGuard:
    guard = CrashLoopGuard()
    guard.remember_in(path)
    return guard


def test_deaths_in_a_row_are_counted_at_what_their_places_have_in_common() -> None:
    first = Deaths(1, 7, 0, 4).after(None)
    assert first == Deaths(1, 7, 0, 4, deaths=1)
    second = Deaths(1, 7, 2, 6).after(first)
    assert second == Deaths(1, 7, 2, 4, deaths=2)
    assert Deaths(1, 7, 3, 9).after(second) == Deaths(1, 7, 3, 4, deaths=MAX_DEATHS)
    for elsewhere in (Deaths(1, 7, 4, 9), Deaths(1, 8, 2, 4), Deaths(2, 7, 2, 4)):
        assert elsewhere.after(second) == elsewhere


def test_worker_server_worker_on_the_same_blocks_ends_the_run_and_names_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / DEATHS
    remembered(path).died(request(0, 4))  # The server computes them next, and dies.
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = remembered(path)
    with pytest.raises(ClusterError, match=r"3 processes died .* blocks 2 to 3 of step 7"):
        again.died(request(2, 6))
    assert not path.exists()


def test_blocks_that_somebody_computed_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / DEATHS
    guard = remembered(path)
    for _ in range(10):
        guard.died(request(0, 4))
        guard.cleared()
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []


def test_other_blocks_steps_and_kinds_begin_anew() -> None:
    guard = CrashLoopGuard()
    for one in (
        request(0, 2),
        request(2, 4),
        request(2, 4, 8),
        request(2, 4, 8, RequestKind.EVALUATE),
    ):
        guard.died(one)
    guard.died(request(2, 4, 8, RequestKind.EVALUATE))
    with pytest.raises(ClusterError):
        guard.died(request(2, 4, 8, RequestKind.EVALUATE))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"kind": 1}',
        '{"kind":1,"step":-1,"first":0,"last":1,"deaths":9}',
        '{"kind":1,"step":7,"deaths":2}',
    ],
)
def test_damaged_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / DEATHS).write_text(text)
    remembered(tmp_path / DEATHS).died(request(0, 4))


def test_directory_that_is_gone_is_no_reason_to_stop(tmp_path: Path) -> None:
    remembered(tmp_path / "gone" / DEATHS).cleared()


def test_blocks_are_named_by_their_rows(tmp_path: Path) -> None:
    model = Network([Dense(2)], "quadratic", (3,))
    name = namer(WorkerSpec(tmp_path, model, SAMPLER, "float32", 0, False, True, 0))
    text = name(request(0, 1, step=1))
    block = SAMPLER.partition(1).blocks[0]
    assert text.startswith("blocks 0 to 0 of step 1 (rows ")
    numbers = text.partition("rows ")[2].partition(" of")[0].split(", ")
    assert len(numbers) == block.last - block.first
    rows = np.empty(len(numbers), np.int64)
    SAMPLER.row_order().rows_inplace(1, block.first, block.last, rows)
    assert [int(number) for number in numbers] == rows.tolist()
    assert "and 8 more" in name(request(0, len(SAMPLER.partition(0).blocks), step=0))
    assert name(request(1, 3, kind=RequestKind.EVALUATE)) == "blocks 1 to 2 of the test rows"
