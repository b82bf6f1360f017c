"""The log of injected faults: each once, by one process, whatever a crash has cut."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest

from distsgd.errors import CheckpointError
from distsgd.lab.faults.log import FILE, FaultLog

PROCESSES = multiprocessing.get_context("fork")


def test_fault_is_claimed_once_by_whoever_comes_first_and_the_log_is_private(
    tmp_path: Path,
) -> None:
    first, second = FaultLog(tmp_path / FILE), FaultLog(tmp_path / FILE)
    assert first.claim("a", step=1)
    assert not first.claim("a", step=2)
    assert not second.claim("a", step=3)
    assert second.claim("b", step=4)
    assert [(entry["fault"], entry["step"]) for entry in first.read()] == [("a", 1), ("b", 4)]
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def claim_all(path: Path, start: Any, won: Any) -> None:
    start.wait()
    log = FaultLog(path)
    won.put(sum(log.claim(str(key)) for key in range(50)))


def test_processes_that_claim_at_once_do_not_share_a_fault(tmp_path: Path) -> None:
    start, won = PROCESSES.Barrier(4), PROCESSES.Queue()
    claimers = [
        PROCESSES.Process(target=claim_all, args=(tmp_path / FILE, start, won)) for _ in range(4)
    ]
    for claimer in claimers:
        claimer.start()
    assert sum(won.get(timeout=20) for _ in claimers) == 50
    for claimer in claimers:
        claimer.join(20)
    assert len(FaultLog(tmp_path / FILE).read()) == 50


@pytest.mark.parametrize("tail", [b'{"fault": "b"', b"\x00\xff", b"[1]\n", b"nonsense\n"])
def test_line_that_a_crash_cut_is_passed_over(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / FILE
    assert FaultLog(path).claim("a")
    path.write_bytes(path.read_bytes() + tail)
    assert FaultLog(path).names() == ["a"]
    assert FaultLog(path).claim("b")
    assert not FaultLog(path).claim("a")
    assert FaultLog(path).names() == ["a", "b"]


def test_log_that_cannot_be_written_means_no_fault_and_one_that_cannot_be_read_is_named(
    tmp_path: Path,
) -> None:
    assert not FaultLog(tmp_path / "gone" / FILE).claim("a")
    assert FaultLog(tmp_path / "gone" / FILE).read() == []
    (tmp_path / FILE).mkdir()
    with pytest.raises(CheckpointError, match=FILE):
        FaultLog(tmp_path / FILE).read()
